// SPDX-License-Identifier: BSD-2-Clause
/*
 * ghostmem-kv: a key-value cache in a region that any number of nodes share. The program
 * is also an example of libghostmem: reading is plain loads, writing plain stores under a
 * lock of the region; there is no server.
 *
 *	ghostmem-kv REGION set KEY VALUE | get KEY | list
 *	key of the region: GHOSTMEM_KEY
 *
 * The region's first page holds the lock; then come slots. A key lives in one of PROBES
 * slots from its hash on. A slot's version is odd while it is being written: a reader
 * that sees it odd, or changed, reads again. That is enough, as loads and stores are
 * sequentially consistent over all nodes.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../ghostmem.h"

#define PAGE	   4096
#define PROBES	   16
#define LOCK_MS	   5000
#define READ_AGAIN 1000000

struct slot {
	uint64_t version;
	char key[56], value[192];
};
_Static_assert(sizeof(struct slot) == 256, "slots fill pages");

static struct ghostmem_region *region;
static struct slot *slots;
static uint64_t nslots;

static void owner_gone(int sig)
{
	static const char text[] =
		"ghostmem-kv: SIGBUS: the region's owner is gone, its memory cannot be "
		"read\n";

	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(7);
	_exit(6);
}

static uint64_t hash(const char *s)
{
	uint64_t h = 14695981039346656037ull; /* FNV-1a */

	for (; *s; s++)
		h = (h ^ (uint8_t)*s) * 1099511628211ull;
	return h;
}

static struct slot *slot_at(const char *key, unsigned int i)
{
	return &slots[(hash(key) + i) % nslots];
}

/* A consistent copy. Return: false: its writer died in the middle */
static int copy(struct slot *s, struct slot *out)
{
	for (int i = 0; i < READ_AGAIN; i++) {
		uint64_t v = __atomic_load_n(&s->version, __ATOMIC_SEQ_CST);

		memcpy(out, s, sizeof(*out));
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (!(v & 1) && v == __atomic_load_n(&s->version, __ATOMIC_SEQ_CST))
			return 1;
	}
	return 0;
}

static int get(const char *key)
{
	struct slot c;

	for (unsigned int i = 0; i < PROBES; i++)
		if (copy(slot_at(key, i), &c) && c.version && !strcmp(c.key, key)) {
			puts(c.value);
			return 0;
		}
	fprintf(stderr, "ghostmem-kv: %s: not there\n", key);
	return 1;
}

static int set(const char *key, const char *value)
{
	struct slot *s = slot_at(key, 0); /* all taken: the first one makes room */
	int err;

	if (!*key || strlen(key) >= sizeof(s->key) || strlen(value) >= sizeof(s->value)) {
		fprintf(stderr, "ghostmem-kv: a key has 1 to 55 bytes, a value to 191\n");
		return 2;
	}
	err = ghostmem_lock(region, 0, LOCK_MS);
	if (err) {
		fprintf(stderr, "ghostmem-kv: lock: %s\n", strerror(-err));
		return 1;
	}
	for (unsigned int i = PROBES; i--;) {
		struct slot *t = slot_at(key, i);

		if (!t->version)
			s = t;
	}
	for (unsigned int i = 0; i < PROBES; i++)
		if (!strcmp(slot_at(key, i)->key, key))
			s = slot_at(key, i);
	__atomic_store_n(&s->version, s->version | 1, __ATOMIC_SEQ_CST);
	strcpy(s->key, key);
	strcpy(s->value, value);
	__atomic_store_n(&s->version, s->version + 1, __ATOMIC_SEQ_CST);
	err = ghostmem_unlock(region, 0);
	return err != 0;
}

static int list(void)
{
	struct slot c;

	for (uint64_t i = 0; i < nslots; i++)
		if (slots[i].version && copy(&slots[i], &c))
			printf("%s\t%s\n", c.key, c.value);
	return 0;
}

int main(int argc, char **argv)
{
	struct ghostmem_import in = { .key = getenv("GHOSTMEM_KEY") };
	struct ghostmem *g;
	int err, rc = 2;

	if (argc < 3 || !in.key) {
		fputs("usage: GHOSTMEM_KEY=... ghostmem-kv REGION "
		      "set KEY VALUE | get KEY | list\n",
		      stderr);
		return 2;
	}
	signal(SIGBUS, owner_gone);
	in.name = argv[1];
	in.key_len = strlen(in.key);
	err = ghostmem_open(NULL, &g);
	if (!err)
		err = ghostmem_import(g, &in, &region);
	if (err) {
		fprintf(stderr, "ghostmem-kv: %s: %s\n", argv[1], strerror(-err));
		return err == -EIO || err == -ETIMEDOUT ? 6 : 1;
	}
	slots = (struct slot *)((char *)ghostmem_addr(region) + PAGE);
	nslots = (ghostmem_size(region) - PAGE) / sizeof(*slots);
	if (nslots < PROBES)
		fputs("ghostmem-kv: the region has less than 3 pages\n", stderr);
	else if (argc == 5 && !strcmp(argv[2], "set"))
		rc = set(argv[3], argv[4]);
	else if (argc == 4 && !strcmp(argv[2], "get"))
		rc = get(argv[3]);
	else if (argc == 3 && !strcmp(argv[2], "list"))
		rc = list();
	ghostmem_close(g);
	return rc;
}
