// SPDX-License-Identifier: BSD-2-Clause
/*
 * vm_conf: the shape of a machine as JSON, on its way to the destination. See vm.h.
 *
 * What comes in is foreign: every member is checked, an unknown one is refused, because a
 * newer source may mean something by it.
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vm.h"

#define CONF_VERSION 1
#define HUGE_BYTES   (2ULL << 20)

int vm_conf_check(const struct vm_conf *c, char *why, size_t len)
{
	struct workload_plan plan;
	struct ram ram;

	if (strcmp(c->accel, "kvm") != 0 && strcmp(c->accel, "process") != 0) {
		snprintf(why, len, "there is no accelerator \"%s\": kvm or process",
			 c->accel);
		return -EINVAL;
	}
	if (c->memory % HUGE_BYTES || c->memory < VM_MIN_MEMORY ||
	    c->memory > VM_MAX_MEMORY) {
		snprintf(why, len, "memory has to be a multiple of 2M, from 8M to 1T");
		return -EINVAL;
	}
	if (!c->vcpus || c->vcpus > VM_MAX_VCPUS) {
		snprintf(why, len, "1 to %d vCPUs are possible", VM_MAX_VCPUS);
		return -EINVAL;
	}
	if (!strcmp(c->accel, "process") && !c->work.on) {
		snprintf(why, len, "a process guest runs a workload: name it");
		return -EINVAL;
	}
	if (c->work.piece && !strcmp(c->accel, "kvm")) {
		snprintf(why, len, "piece= is for a process guest");
		return -EINVAL;
	}
	if (c->work.on) {
		ram = (struct ram){ .nblocks = 1, .bytes = c->memory };
		ram.block[0].size = c->memory < VM_HOLE_START ? c->memory : VM_HOLE_START;
		if (workload_plan(&c->work, &ram, c->vcpus - 1, c->vcpus, &plan)) {
			snprintf(why, len, "not enough memory for that workload");
			return -EINVAL;
		}
	}
	return 0;
}

/* ---- out --------------------------------------------------------------------------- */

static json_t *net_json(const struct vm_net_conf *n)
{
	char mac[18];

	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", n->mac[0], n->mac[1],
		 n->mac[2], n->mac[3], n->mac[4], n->mac[5]);
	return json_pack("{s:s}", "mac", mac);
}

char *vm_conf_json(const struct vm_conf *c)
{
	char work[WORKLOAD_TEXT_MAX] = "", *text;
	json_t *nets = json_array(), *o;

	for (unsigned int i = 0; i < c->nnets; i++)
		json_array_append_new(nets, net_json(&c->net[i]));
	if (c->work.on)
		workload_text(&c->work, work);
	o = json_pack("{s:i, s:s, s:I, s:i, s:s, s:b, s:o}", "version", CONF_VERSION,
		      "accel", c->accel, "memory", (json_int_t)c->memory, "vcpus",
		      (int)c->vcpus, "workload", work, "paused", c->start_paused, "net",
		      nets);
	text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	return text;
}

/* ---- in ---------------------------------------------------------------------------- */

int vm_parse_mac(const char *s, uint8_t mac[6])
{
	unsigned int v[6];
	int end = 0;

	if (sscanf(s, "%2x:%2x:%2x:%2x:%2x:%2x%n", &v[0], &v[1], &v[2], &v[3], &v[4],
		   &v[5], &end) != 6 ||
	    end != 17 || s[end] || v[0] & 1)
		return -EINVAL;
	for (unsigned int i = 0; i < 6; i++)
		mac[i] = (uint8_t)v[i];
	return 0;
}

/* Devices of the source take the destination's back ends in the order they are named. */
static int take_nets(json_t *nets, struct vm_conf *c, char *why, size_t len)
{
	if (json_array_size(nets) != c->nnets) {
		snprintf(why, len,
			 "the machine has %zu network devices, and recv was told of %u: "
			 "one --net for each",
			 json_array_size(nets), c->nnets);
		return -EINVAL;
	}
	for (unsigned int i = 0; i < c->nnets; i++) {
		json_t *n = json_array_get(nets, i);
		const char *mac = json_string_value(json_object_get(n, "mac"));

		if (!mac || json_object_size(n) != 1 ||
		    vm_parse_mac(mac, c->net[i].mac)) {
			snprintf(why, len, "network device %u: no valid address", i);
			return -EINVAL;
		}
	}
	return 0;
}

static int take(json_t *o, struct vm_conf *c, char *why, size_t len)
{
	const char *accel, *work;
	json_int_t version, memory, vcpus;
	json_error_t e;
	json_t *nets;
	int paused;

	if (json_unpack_ex(o, &e, 0, "{s:I}", "version", &version)) {
		snprintf(why, len, "configuration: %s", e.text);
		return -EINVAL;
	}
	if (version != CONF_VERSION) {
		snprintf(why, len, "configuration of version %lld; this one knows %d",
			 (long long)version, CONF_VERSION);
		return -EINVAL;
	}
	if (json_unpack_ex(o, &e, JSON_STRICT, "{s:I, s:s, s:I, s:I, s:s, s:b, s:o}",
			   "version", &version, "accel", &accel, "memory", &memory,
			   "vcpus", &vcpus, "workload", &work, "paused", &paused, "net",
			   &nets)) {
		snprintf(why, len, "configuration: %s", e.text);
		return -EINVAL;
	}
	if (strlen(accel) >= sizeof(c->accel) || memory < 0 || vcpus < 0 ||
	    vcpus > VM_MAX_VCPUS) {
		snprintf(why, len, "configuration: a value is out of range");
		return -EINVAL;
	}
	if (*c->accel && strcmp(c->accel, accel) != 0) {
		snprintf(why, len, "the machine runs by %s, and recv was told to use %s",
			 accel, c->accel);
		return -EINVAL;
	}
	strcpy(c->accel, accel);
	c->memory = (uint64_t)memory;
	c->vcpus = (unsigned int)vcpus;
	c->start_paused = paused;
	c->work = (struct workload){ .on = false };
	if (*work && workload_parse(work, &c->work, why, len))
		return -EINVAL;
	if (take_nets(nets, c, why, len))
		return -EINVAL;
	return vm_conf_check(c, why, len);
}

int vm_conf_parse(const char *json, struct vm_conf *conf, char *why, size_t len)
{
	struct vm_conf c = *conf;
	json_error_t e;
	json_t *o = json_loads(json, JSON_REJECT_DUPLICATES, &e);
	int err;

	if (!o) {
		snprintf(why, len, "configuration: %s", e.text);
		return -EINVAL;
	}
	err = take(o, &c, why, len);
	json_decref(o);
	if (!err)
		*conf = c;
	return err;
}
