// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz what reaches a VM of vm-migrate as text: requests at its control socket, the
 * machine's shape as a source describes it, workloads. The first byte says which; the
 * rest is the text. What is accepted and written out again has to be accepted again, and
 * to mean the same.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "../../vm-migrate/vmm/control_proto.h"
#include "../../vm-migrate/vmm/vm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void request(const char *text, size_t len)
{
	struct control_request a, b;
	struct precopy_conf c;
	char why[200] = "", *again;
	json_t *o;

	if (control_parse(text, len, &a, why, sizeof(why))) {
		check(*why);
		return;
	}
	o = control_request_json(&a);
	again = o ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	/* Text of JSON may hold what is no UTF-8 only as escapes, so it can be dumped. */
	check(again && !control_parse(again, strlen(again), &b, why, sizeof(why)));
	free(again);
	check(a.cmd == b.cmd && !strcmp(a.uri, b.uri) && a.streams == b.streams &&
	      a.bandwidth == b.bandwidth && a.tls == b.tls);
	if (a.cmd != CONTROL_MIGRATE)
		return;
	control_conf(&a, &c);
	check(*c.uri && c.streams >= 1 && c.streams <= WIRE_MAX_STREAMS &&
	      c.max_downtime_ms >= c.downtime_ms);
}

static void shape(const char *text)
{
	struct vm_conf a = { .nnets = 1 }, b = { .nnets = 1 };
	char why[200] = "", *again;

	if (vm_conf_parse(text, &a, why, sizeof(why))) {
		check(*why);
		return;
	}
	again = vm_conf_json(&a);
	check(again && !vm_conf_parse(again, &b, why, sizeof(why)));
	free(again);
	check(!strcmp(a.accel, b.accel) && a.memory == b.memory && a.vcpus == b.vcpus &&
	      a.start_paused == b.start_paused &&
	      !memcmp(a.net[0].mac, b.net[0].mac, 6) && a.work.on == b.work.on);
}

static void workload(const char *text)
{
	char why[200] = "", again[WORKLOAD_TEXT_MAX];
	struct workload a, b;

	if (workload_parse(text, &a, why, sizeof(why))) {
		check(*why);
		return;
	}
	workload_text(&a, again);
	check(!workload_parse(again, &b, why, sizeof(why)));
	check(a.rate == b.rate && a.set == b.set && a.set_percent == b.set_percent &&
	      a.fill == b.fill && a.piece == b.piece &&
	      a.fill_percent == b.fill_percent && a.pattern == b.pattern &&
	      a.whole_pages == b.whole_pages && a.stop == b.stop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (!size)
		return 0;
	text = malloc(size);
	if (!text)
		return 0;
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	switch (data[0]) {
	case 'r': request(text, size - 1); break;
	case 's': shape(text); break;
	case 'w': workload(text); break;
	default: break;
	}
	free(text);
	return 0;
}
