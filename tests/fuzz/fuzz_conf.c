// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz the configuration: the input as a file, and as an instance. What is accepted
 * must keep the limits that the rest of the daemon relies on; what is refused
 * must say why, in one printable line.
 */
#include <stdlib.h>
#include <string.h>

#include "../../user/daemon/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define EXPECT(cond)                                                                     \
	do {                                                                             \
		if (!(cond))                                                             \
			abort();                                                         \
	} while (0)

static void check_message(const char *err)
{
	EXPECT(*err);
	for (; *err; err++)
		EXPECT(*err >= ' ' && *err <= '~');
}

static void check_instance(const struct instance_conf *in)
{
	static const uint8_t zero[6];

	EXPECT(*in->name && memchr(in->name, 0, sizeof(in->name)));
	EXPECT(!strpbrk(in->name, " /\"\n"));
	EXPECT(memchr(in->iface, 0, sizeof(in->iface)));
	EXPECT(!(in->mac[0] & 1) && memcmp(in->mac, zero, 6));
	EXPECT(in->vlan <= 4094);
	EXPECT(port_find(in->port.kind));
	EXPECT(memchr(in->port.arg, 0, sizeof(in->port.arg)));
	if (!strcmp(in->port.kind, "tap"))
		EXPECT(*in->port.arg && strlen(in->port.arg) < IFNAMSIZ &&
		       !strchr(in->port.arg, '/'));
}

static void check_conf(const struct daemon_conf *c)
{
	EXPECT(c->nifaces <= CONF_MAX_IFACES);
	EXPECT(c->chunks >= 512 && !(c->chunks & (c->chunks - 1)));
	EXPECT(c->ctl[0] == '/' && memchr(c->ctl, 0, sizeof(c->ctl)));
	EXPECT(memchr(c->bpffs, 0, sizeof(c->bpffs)));
	for (unsigned int i = 0; i < c->nifaces; i++) {
		EXPECT(*c->iface[i].name && !strchr(c->iface[i].name, '/'));
		EXPECT(c->iface[i].queues <= GN_MAX_QUEUES);
	}
	for (unsigned int i = 0; i < c->ninstances; i++) {
		const struct instance_conf *a = &c->instance[i];
		unsigned int known = 0;

		check_instance(a);
		for (unsigned int k = 0; k < c->nifaces; k++)
			known += !strcmp(c->iface[k].name, a->iface);
		EXPECT(known == 1);
		for (unsigned int k = 0; k < i; k++) {
			const struct instance_conf *b = &c->instance[k];

			EXPECT(strcmp(a->iface, b->iface) ||
			       (strcmp(a->name, b->name) &&
				(a->vlan != b->vlan || memcmp(a->mac, b->mac, 6))));
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct instance_conf in;
	struct daemon_conf c;
	char err[512] = "", *text;
	FILE *f;

	conf_init(&c);
	f = size ? fmemopen((void *)data, size, "r") : NULL;
	if (f) {
		if (conf_read(&c, f, "f", err, sizeof(err)))
			check_message(err);
		else
			check_conf(&c);
		fclose(f);
	}
	conf_fini(&c);

	text = malloc(size + 1);
	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	text[strcspn(text, "\n")] = '\0';
	err[0] = '\0';
	if (conf_parse_instance(text, &in, err, sizeof(err)))
		check_message(err);
	else
		check_instance(&in);
	free(text);
	return 0;
}
