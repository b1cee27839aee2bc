// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz what QEMU and /proc say. The first byte picks the parser, the rest is its text.
 * Whatever is accepted has to make sense.
 */
#include <stdlib.h>
#include <string.h>

#include "../../vm-migrate/qemu/qemu_parse.h"
#include "../../vm-migrate/qemu/qmp.h"

#define MAX_ITEMS 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool ok)
{
	if (!ok)
		abort();
}

static bool is_name(const char *s)
{
	size_t n = strnlen(s, QEMU_NAME_MAX);

	return n > 0 && n < QEMU_NAME_MAX;
}

static void try_qmp(const char *text, size_t len)
{
	struct qmp_msg m;

	if (qmp_parse(text, len, &m))
		return;
	must(json_is_object(m.root));
	must((m.type != QMP_ERROR && m.type != QMP_EVENT) || m.text);
	must(m.type != QMP_RETURN || m.data);
	must(m.id >= -1);
	qmp_msg_fini(&m);
}

static void try_mtree(const char *text)
{
	struct qemu_range r[MAX_ITEMS];
	int n = qemu_parse_mtree(text, r, MAX_ITEMS);

	must(n <= MAX_ITEMS);
	for (int i = 0; i < n; i++) {
		must(is_name(r[i].name) && r[i].size);
		must(r[i].offset <= UINT64_MAX - r[i].size);
		must(!i || r[i].gpa > r[i - 1].gpa);
	}
}

static void try_ramblocks(const char *text)
{
	struct qemu_ramblock b[MAX_ITEMS];
	int n = qemu_parse_ramblocks(text, b, MAX_ITEMS);

	must(n <= MAX_ITEMS);
	for (int i = 0; i < n; i++)
		must(is_name(b[i].name) && b[i].used <= b[i].total);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct qemu_map map;
	uint64_t hva;
	char *text;

	if (!size)
		return 0;
	text = malloc(size);
	if (!text)
		return 0;
	memcpy(text, data + 1, size - 1);
	text[size - 1] = '\0';
	switch (data[0] - '0') {
	case 0: try_qmp(text, size - 1); break;
	case 1: try_mtree(text); break;
	case 2: try_ramblocks(text); break;
	case 3: must(qemu_parse_hva(text, &hva) || hva); break;
	case 4: must(qemu_parse_map(text, &map) || map.start < map.end); break;
	}
	free(text);
	return 0;
}
