// SPDX-License-Identifier: BSD-2-Clause
/*
 * qemu_compare: is the RAM of two QEMUs the same? See qemu_ram.h.
 *
 * Threads take pieces of PIECE bytes from a counter. A piece is read from both memfds
 * into buffers that stay in the cache, unless it is a hole on both sides.
 */
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../user/lib/bitmap.h"
#include "qemu_ram.h"

#define PIECE	    (256u << 10)
#define MAX_THREADS 16

struct pair {
	const struct qemu_backend *a, *b;
	unsigned int index; /* of @a */
	uint64_t first;	    /* number of its first piece */
};

struct job {
	const struct qemu_ram *ram; /* whose page numbers are wanted */
	struct pair pair[QEMU_MAX_BACKENDS];
	unsigned int npairs;
	uint64_t pieces;
	uint64_t *bitmap;
	_Atomic uint64_t next;
	_Atomic int err;
	pthread_mutex_t lock; /* diff */
	struct qemu_ram_diff *diff;
};

/* Number of the page of backend @k at @offset. */
static uint64_t page_number(const struct qemu_ram *r, unsigned int k, uint64_t offset)
{
	for (unsigned int i = 0; i < r->ram.nblocks; i++)
		if (r->ram_backend[i] == k && offset >= r->ram_offset[i] &&
		    offset - r->ram_offset[i] < r->ram.block[i].size)
			return r->ram.block[i].first_page +
			       ((offset - r->ram_offset[i]) >> RAM_PAGE_SHIFT);
	return RAM_NO_PAGE;
}

static bool is_hole(int fd, uint64_t at, uint64_t len)
{
	off_t data = lseek(fd, (off_t)at, SEEK_DATA);

	return data < 0 ? errno == ENXIO : (uint64_t)data >= at + len;
}

static int read_all(int fd, void *buf, size_t len, uint64_t at)
{
	uint8_t *p = buf;

	while (len) {
		ssize_t n = pread(fd, p, len, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		p += n;
		at += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static void note(struct job *j, const struct pair *p, uint64_t offset)
{
	uint64_t n = page_number(j->ram, p->index, offset);

	if (j->bitmap && n != RAM_NO_PAGE)
		bitmap_set_atomic(j->bitmap, n);
	pthread_mutex_lock(&j->lock);
	if (j->diff->differ < sizeof(j->diff->page) / sizeof(j->diff->page[0]))
		j->diff->page[j->diff->differ] = n;
	j->diff->differ++;
	pthread_mutex_unlock(&j->lock);
}

/* Return: pages that were read, -errno */
static int64_t compare_piece(struct job *j, const struct pair *p, uint64_t offset,
			     uint8_t *x, uint8_t *y)
{
	uint64_t left = p->a->size - offset;
	size_t len = left < PIECE ? (size_t)left : PIECE;
	uint64_t at_a = p->a->fd_offset + offset, at_b = p->b->fd_offset + offset;
	int err;

	if (is_hole(p->a->fd, at_a, len) && is_hole(p->b->fd, at_b, len))
		return 0;
	err = read_all(p->a->fd, x, len, at_a);
	if (!err)
		err = read_all(p->b->fd, y, len, at_b);
	if (err)
		return err;
	if (memcmp(x, y, len) != 0)
		for (size_t i = 0; i < len; i += RAM_PAGE_SIZE)
			if (memcmp(x + i, y + i, RAM_PAGE_SIZE) != 0)
				note(j, p, offset + i);
	return (int64_t)(len >> RAM_PAGE_SHIFT);
}

static void *work(void *arg)
{
	struct job *j = arg;
	uint8_t *x = malloc(PIECE), *y = malloc(PIECE);
	uint64_t pages = 0, n;
	int64_t got = x && y ? 0 : -ENOMEM;

	while (got >= 0 && !j->err && (n = j->next++) < j->pieces) {
		const struct pair *p = &j->pair[j->npairs - 1];

		while (p->first > n)
			p--;
		got = compare_piece(j, p, (n - p->first) * PIECE, x, y);
		if (got > 0)
			pages += (uint64_t)got;
	}
	if (got < 0)
		j->err = (int)got;
	free(x);
	free(y);
	pthread_mutex_lock(&j->lock);
	j->diff->pages += pages;
	pthread_mutex_unlock(&j->lock);
	return NULL;
}

static const struct qemu_backend *find(const struct qemu_ram *r,
				       const struct qemu_backend *like)
{
	for (unsigned int i = 0; i < r->nbackends; i++)
		if (!strcmp(r->backend[i].id, like->id) &&
		    r->backend[i].size == like->size)
			return &r->backend[i];
	return NULL;
}

bool qemu_ram_same(const struct qemu_ram *a, const struct qemu_ram *b, char *why,
		   size_t why_len)
{
	for (unsigned int i = 0; i < a->nbackends; i++) {
		if (find(b, &a->backend[i]))
			continue;
		snprintf(why, why_len,
			 "RAM \"%s\" of %" PRIu64
			 " MiB is not in the destination; start it with the source's "
			 "-object, -m and -machine",
			 a->backend[i].id, a->backend[i].size >> 20);
		return false;
	}
	if (a->nbackends == b->nbackends)
		return true;
	snprintf(why, why_len, "the destination has more RAM than the source");
	return false;
}

int qemu_ram_compare(const struct qemu_ram *a, const struct qemu_ram *b, uint64_t *bitmap,
		     unsigned int threads, struct qemu_ram_diff *diff)
{
	struct job j = { .ram = a, .bitmap = bitmap, .diff = diff };
	pthread_t t[MAX_THREADS];
	unsigned int n = 0;

	memset(diff, 0, sizeof(*diff));
	for (unsigned int i = 0; i < a->nbackends; i++) {
		const struct qemu_backend *other = find(b, &a->backend[i]);

		if (!other)
			return -EINVAL;
		j.pair[j.npairs++] = (struct pair){ &a->backend[i], other, i, j.pieces };
		j.pieces += (a->backend[i].size + PIECE - 1) / PIECE;
		diff->bytes += a->backend[i].size;
	}
	if (!j.npairs)
		return -EINVAL;
	if (!threads) {
		long cpus = sysconf(_SC_NPROCESSORS_ONLN);

		threads = cpus > 0 ? (unsigned int)cpus : 1;
	}
	if (threads > MAX_THREADS)
		threads = MAX_THREADS;
	pthread_mutex_init(&j.lock, NULL);
	while (n + 1 < threads && !pthread_create(&t[n], NULL, work, &j))
		n++;
	work(&j); /* this thread too */
	while (n)
		pthread_join(t[--n], NULL);
	pthread_mutex_destroy(&j.lock);
	return j.err;
}
