// SPDX-License-Identifier: BSD-2-Clause
/*
 * scribble: a program that writes into what its agent knows of a region (meta.h), which it
 * holds for the next agent. Whatever is there, the agents go on; of what numbers would lead
 * out of their memory, nothing is believed.
 *
 *	scribble OWNERS-SOCKET IMPORTERS-SOCKET
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../user/share/agent/coh.h"
#include "../../user/share/agent/meta.h"
#include "../../user/share/ghostmem.h"
#include "../../user/share/local.h"
#include "check.h"

#define PAGES	16
#define SIZE	(PAGES * GM_PAGE_SIZE)
#define CALL_MS 10000

static int call(int sock, uint8_t op, struct meta **meta)
{
	struct local_msg m = { .op = op,
			       .name = "scribble",
			       .key = { .len = 1, .bytes = "k" } };
	int fds[LOCAL_FDS], n;
	int err = local_call(sock, &m, NULL, 0, meta ? fds : NULL, meta ? &n : NULL,
			     CALL_MS, NULL, NULL);

	if (meta) {
		CHECK(!err && n == 2 && !meta_open(fds[1], META_ANY, SIZE, meta));
		while (n)
			close(fds[--n]);
	}
	return err;
}

int main(int argc, char **argv)
{
	struct ghostmem_export e = {
		.name = "scribble", .size = SIZE, .key = "k", .key_len = 1, .memfd = -1
	};
	struct ghostmem_import in = { .name = "scribble", .key = "k", .key_len = 1 };
	struct ghostmem_region *owner, *user;
	struct meta *home, *import;
	struct ghostmem *a, *b;
	int at_owner = local_connect(argv[1]), at_user = local_connect(argv[2]);
	struct coh_page *table;
	volatile uint8_t *p;
	uint64_t old;

	CHECK(argc == 3 && at_owner >= 0 && at_user >= 0);
	CHECK(!ghostmem_open(argv[1], &a) && !ghostmem_open(argv[2], &b));
	CHECK(!ghostmem_export(a, &e, &owner) && !ghostmem_import(b, &in, &user));
	call(at_owner, LOCAL_IMPORT, &home);
	call(at_user, LOCAL_IMPORT, &import);
	p = ghostmem_addr(user);

	/* Pages are busy, it says. */
	table = home->table;
	for (int i = 0; i < PAGES; i++)
		table[i].txn = UINT16_MAX;
	p[0] = 1;
	CHECK(p[GM_PAGE_SIZE] == 0);
	CHECK(!call(at_owner, LOCAL_STAT, NULL));

	/* More clients than there are places. */
	home->once->n = UINT32_MAX;
	CHECK(!ghostmem_fetch_add(user, 8, 5, &old) && old == 0);
	home->once->n = UINT32_MAX;
	CHECK(!ghostmem_fetch_add(user, 8, 5, &old) && old == 5);

	/* Pages are held as nothing is. */
	for (int i = 0; i < PAGES; i++)
		import->held[i] = (uint8_t)(3 + i);
	CHECK(!call(at_user, LOCAL_STAT, NULL));

	CHECK(!call(at_owner, LOCAL_REVOKE, NULL));
	CHECK(!call(at_owner, LOCAL_STAT, NULL) && !call(at_user, LOCAL_STAT, NULL));
	meta_destroy(home);
	meta_destroy(import);
	ghostmem_close(b);
	ghostmem_close(a);
	puts("done");
	return 0;
}
