// SPDX-License-Identifier: BSD-2-Clause
/*
 * history: random operations on a few shared words, and the check of what they returned
 * against a sequential memory.
 *
 *	history run SOCKET REGION KEY NODE OPS FILE
 *	history check FILE...
 *
 * Everything written is unique and every write also returns what it replaced: an exchange
 * by the processor in the window, or ghostmem_swap(). So the writes of a word form one
 * chain from 0; if they do not, one was lost or seen twice. The chain is the order of the
 * sequential memory. It must agree with time (all nodes have one clock here): a write
 * that ended before another began is earlier in it; a read may return a value only if its
 * write had begun before the read ended and the next write had not ended before the read
 * began. A thread's reads never go back in the chain.
 *
 * With HISTORY_STOP it says "begun" after that, and ends once that file is there, if not
 * before. HISTORY_SEED: other operations. HISTORY_STRIDE: bytes from word to word. A swap that ended
 * with -EIO may or may not have been done: it is in the chain if a later write replaced
 * its value. One is enough for the check to fail, for nothing here may end so; the rest is
 * judged all the same.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../user/lib/clock.h"
#include "../../user/share/ghostmem.h"

#define WORDS 32

static uint64_t stride = 1024; /* four words a page */

struct op {
	uint64_t begin, end;
	uint64_t value; /* read or written */
	uint64_t old;	/* a write's */
	uint32_t word, write, node, pos, unknown, pad;
};

static int run(char **argv)
{
	struct ghostmem_import in = { .name = argv[3], .key = argv[4] };
	uint64_t node = strtoul(argv[5], NULL, 10), n = strtoul(argv[6], NULL, 10);
	const char *stop = getenv("HISTORY_STOP");
	const char *other = getenv("HISTORY_SEED"), *far = getenv("HISTORY_STRIDE");
	unsigned int seed = (unsigned int)node * 7919;
	struct op *ops = calloc(n, sizeof(*ops));
	struct ghostmem_region *r;
	struct ghostmem *g;
	FILE *f;
	int err;

	if (other)
		seed += (unsigned int)strtoul(other, NULL, 10);
	if (far)
		stride = strtoul(far, NULL, 10);
	in.key_len = strlen(argv[4]);
	err = ghostmem_open(argv[2], &g);
	if (!err)
		err = ghostmem_import(g, &in, &r);
	/* All begin together. */
	if (!err)
		err = ghostmem_barrier(r, WORDS * stride, 3, 10000);
	if (!err && stop) {
		printf("begun\n");
		fflush(stdout);
	}
	for (uint64_t i = 0; !err && i < n; i++) {
		struct op *o = &ops[i];
		uint64_t *w, off;

		o->word = (uint32_t)rand_r(&seed) % WORDS;
		o->node = (uint32_t)node;
		off = (uint64_t)o->word * stride;
		w = (uint64_t *)((char *)ghostmem_addr(r) + off);
		o->begin = clock_ns();
		switch (rand_r(&seed) % 4) {
		case 0: o->value = __atomic_load_n(w, __ATOMIC_SEQ_CST); break;
		case 1: err = ghostmem_get(r, off, &o->value, 8); break;
		case 2:
			o->write = 1;
			o->value = node << 32 | (i + 1);
			o->old = __atomic_exchange_n(w, o->value, __ATOMIC_SEQ_CST);
			break;
		default:
			o->write = 1;
			o->value = node << 32 | (i + 1);
			err = ghostmem_swap(r, off, o->value, &o->old);
			break;
		}
		o->end = clock_ns();
		if (err == -EIO && o->write) {
			o->unknown = 1;
			err = 0;
		}
		if (stop && i % 64 == 0 && !access(stop, F_OK))
			n = i + 1;
	}
	f = fopen(argv[7], "w");
	if (!f || fwrite(ops, sizeof(*ops), n, f) != n || fclose(f))
		err = -errno;
	if (err) {
		fprintf(stderr, "history: %s\n", strerror(-err));
		return 1;
	}
	ghostmem_close(g);
	return 0;
}

static int by_old(const void *a, const void *b)
{
	const struct op *x = *(struct op *const *)a, *y = *(struct op *const *)b;

	return (x->old > y->old) - (x->old < y->old);
}

static struct op *find_next(struct op **w, size_t n, uint64_t old)
{
	size_t lo = 0, hi = n;

	while (lo < hi) {
		size_t mid = (lo + hi) / 2;

		if (w[mid]->old < old)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < n && w[lo]->old == old ? w[lo] : NULL;
}

static int bad(const char *why, const struct op *o)
{
	printf("word %u, node %u, value %llx: %s\n", o->word, o->node,
	       (unsigned long long)o->value, why);
	return 1;
}

static bool doubt(struct op **w, size_t n, uint64_t value)
{
	while (n--)
		if (w[n]->value == value)
			return true;
	return false;
}

static int check_word(struct op *ops, size_t n, uint32_t word)
{
	struct op **writes = calloc(n + 1, sizeof(*writes));
	struct op **chain = calloc(n + 1, sizeof(*chain));
	uint64_t value = 0, latest = 0, at[4] = { 0 };
	size_t nw = 0, len = 0, doubtful = 0, done = 0;
	struct op *o;

	for (size_t i = 0; i < n; i++)
		if (ops[i].word == word && ops[i].write)
			writes[nw++] = &ops[i];
	/* Doubtful ones go to the end, out of the sorted part. */
	for (size_t i = 0; i < nw;) {
		if (!writes[i]->unknown) {
			i++;
			continue;
		}
		o = writes[i];
		writes[i] = writes[--nw];
		writes[nw] = o;
		doubtful++;
	}
	qsort(writes, nw, sizeof(*writes), by_old);
	for (size_t i = 1; i < nw; i++)
		if (writes[i]->old == writes[i - 1]->old)
			return bad("two writes replaced the same value", writes[i]);
	for (;;) {
		o = find_next(writes, nw, value);
		for (size_t i = nw; !o && i < nw + doubtful; i++) {
			/* Whose value somebody replaced. */
			if (!writes[i]->pos && find_next(writes, nw, writes[i]->value)) {
				o = writes[i];
				done++;
			}
		}
		if (!o || len >= nw + doubtful)
			break;
		chain[len++] = o;
		o->pos = (uint32_t)len;
		value = o->value;
		if (o->end < latest)
			return bad("write is later in the chain than in time", o);
		latest = o->begin > latest ? o->begin : latest;
	}
	if (len != nw + done) {
		printf("word %u: %zu of %zu writes in the chain\n", word, len - done, nw);
		return 1;
	}
	for (size_t i = 0; i < n; i++) {
		size_t pos;

		o = &ops[i];
		if (o->word != word)
			continue;
		if (o->write && o->unknown) {
			continue;
		} else if (o->write) {
			pos = o->pos;
		} else {
			for (pos = len; pos && chain[pos - 1]->value != o->value;)
				pos--;
			if (!pos && doubt(writes + nw, doubtful, o->value))
				continue;
			if (!pos && o->value)
				return bad("value was never written", o);
			if (pos && chain[pos - 1]->begin > o->end)
				return bad("read before it was written", o);
			if (pos < len && chain[pos]->end < o->begin)
				return bad("stale: was replaced before the read", o);
		}
		if (pos < at[o->node])
			return bad("its thread has seen a later value", o);
		at[o->node] = pos;
	}
	free(writes);
	free(chain);
	return 0;
}

static int check(int argc, char **argv)
{
	struct op *ops = NULL, o;
	size_t n = 0, room = 0, unknown = 0;
	int errors = 0;

	for (int i = 2; i < argc; i++) {
		FILE *f = fopen(argv[i], "r");

		while (f && fread(&o, sizeof(o), 1, f) == 1) {
			if (n == room) {
				room = 2 * room + 4096;
				ops = realloc(ops, room * sizeof(*ops));
				if (!ops)
					return 1;
			}
			if (o.word >= WORDS || o.node > 3)
				return 1;
			ops[n++] = o;
		}
		if (!f || fclose(f))
			return 1;
	}
	for (uint32_t w = 0; w < WORDS; w++)
		errors += check_word(ops, n, w);
	for (size_t i = 0; i < n; i++)
		unknown += ops[i].unknown;
	printf("%zu operations, %zu in doubt, on %d words: %d words in error\n", n,
	       unknown, WORDS, errors);
	return !n || unknown || errors;
}

int main(int argc, char **argv)
{
	if (argc == 8 && !strcmp(argv[1], "run"))
		return run(argv);
	if (argc > 2 && !strcmp(argv[1], "check"))
		return check(argc, argv);
	return 2;
}
