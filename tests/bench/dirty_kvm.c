// SPDX-License-Identifier: BSD-2-Clause
/*
 * bench dirty_kvm: what a dirty page costs with each of KVM's logs.
 *
 *	dirty_kvm [--mib N] [--rounds N]
 *
 * A vCPU writes once to every page of a random choice of N MiB (128), all of which it has
 * touched before. subject:
 *
 *	bitmap		KVM_GET_DIRTY_LOG, which clears too
 *	manual		KVM_GET_DIRTY_LOG, KVM_CLEAR_DIRTY_LOG 4,096 pages at a time
 *	manual-64	the same, 64 pages at a time
 *	ring		1 MiB, or what KVM gives
 *	ring-small	4 KiB: the vCPU stops whenever it is full
 *
 * Of each dirty page, in ns: guest_ns, what the write takes longer than without a log
 * (exits for a full ring among it); harvest_ns, clear_ns; their sum. start_us: to switch
 * the log on. At 1 percent also what the harvest takes for the RAM it covers, as
 * tests/bench/harvest says it. Prints JSON lines, medians; judges nothing.
 */
#include <errno.h>
#include <getopt.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/clock.h"
#include "../../vm-migrate/dirty/dirty_kvm.h"
#include "../migrate/kvm_rig.h"

#define MAX_ROUNDS 31

struct subject {
	const char *name;
	bool plain;
	uint32_t ring;	    /* bytes, 0: none */
	unsigned int clear; /* words at a time */
};

static const struct subject subjects[] = {
	{ "bitmap", .plain = true },	{ "manual", .clear = 64 },
	{ "manual-64", .clear = 1 },	{ "ring", .ring = 1U << 20 },
	{ "ring-small", .ring = 4096 },
};

static const double percent[] = { 0.1, 1, 5, 20, 100 };

static unsigned int mib = 128, rounds = 7;

struct cost {
	double base[MAX_ROUNDS], guest[MAX_ROUNDS], harvest[MAX_ROUNDS],
		clear[MAX_ROUNDS];
	double start;
	unsigned int full, wrong;
};

static void die(const char *what, int err)
{
	fprintf(stderr, "dirty_kvm: %s: %s\n", what, strerror(-err));
	exit(1);
}

static void must(const char *what, int err)
{
	if (err)
		die(what, err);
}

static void *zeros(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (!p)
		die("memory", -ENOMEM);
	return p;
}

static int by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v)
{
	qsort(v, rounds, sizeof(*v), by_size);
	return v[rounds / 2];
}

/* All pages, in random order */
static uint32_t *shuffled(uint32_t n)
{
	uint32_t *list = zeros(n, sizeof(*list));
	uint64_t seed = 0x2545f4914f6cdd1dULL;

	for (uint32_t i = 0; i < n; i++)
		list[i] = i << RAM_PAGE_SHIFT;
	for (uint32_t i = n; i > 1; i--) {
		uint32_t k, t;

		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		k = (uint32_t)(seed % i);
		t = list[k];
		list[k] = list[i - 1];
		list[i - 1] = t;
	}
	return list;
}

struct vm {
	const struct subject *s;
	struct ram ram;
	struct kvm_rig rig;
	struct dirty_kvm_slot slot;
	struct dirty_source *src;
	uint32_t pages;
	uint64_t *bitmap;
};

static void vm_open(struct vm *v, const uint32_t *list)
{
	struct dirty_kvm_vcpu vcpu = { .next = &v->rig.vcpu[0].ring_next };
	uint32_t ring = v->s->ring;

	ram_init(&v->ram);
	must("RAM", ram_add(&v->ram, 0, (uint64_t)mib << 20, 0));
	v->slot = (struct dirty_kvm_slot){ 0, 0, v->pages };
	must("VM", kvm_rig_open(&v->rig, &v->ram, &v->slot, 1, 1, ring ? &ring : NULL,
				KVM_RIG_ONCE, list, v->pages));
	v->bitmap = zeros(ram_words(&v->ram), 8);
	vcpu.fd = v->rig.vcpu[0].fd;
	if (ring)
		must("ring", dirty_kvm_ring_create(&v->ram, v->rig.vm, ring, &v->slot, 1,
						   &vcpu, 1, &v->src));
	else if (!v->s->plain)
		must("bitmap",
		     dirty_kvm_bitmap_create(&v->ram, v->rig.vm, &v->slot, 1, &v->src));
	v->rig.ring = ring ? v->src : NULL;
}

static void vm_close(struct vm *v)
{
	if (v->src) {
		v->src->ops->stop(v->src);
		v->src->ops->destroy(v->src);
	}
	kvm_rig_close(&v->rig);
	ram_fini(&v->ram);
	free(v->bitmap);
}

/* The vCPU's time for the first @n pages of the list */
static double write_pages(struct vm *v, unsigned int n, unsigned int *full)
{
	uint64_t began;

	kvm_rig_rewind(&v->rig, n);
	began = clock_ns();
	*full += kvm_rig_once(&v->rig);
	return (double)(clock_ns() - began);
}

static int start(struct vm *v)
{
	return v->src ? v->src->ops->start(v->src)
		      : dirty_kvm_set_log(&v->ram, v->rig.vm, &v->slot, 1, true);
}

static void harvest(struct vm *v)
{
	struct kvm_dirty_log log = { .slot = 0, .dirty_bitmap = v->bitmap };

	if (!v->src)
		must("KVM_GET_DIRTY_LOG",
		     ioctl(v->rig.vm, KVM_GET_DIRTY_LOG, &log) ? -errno : 0);
	else if (v->src->ops->harvest(v->src, v->bitmap) < 0)
		die("harvest", -EIO);
}

static void clear(struct vm *v)
{
	size_t words = ram_words(&v->ram), n = v->s->clear;

	for (size_t w = 0; n && w < words; w += n)
		must("clear", v->src->ops->clear(v->src, w * 64,
						 (words - w < n ? words - w : n) * 64,
						 v->bitmap + w));
}

static void measure(struct vm *v, unsigned int n, struct cost *c)
{
	unsigned int none = 0;
	uint64_t t;

	write_pages(v, v->pages, &none);
	for (unsigned int r = 0; r < rounds; r++)
		c->base[r] = write_pages(v, n, &none);
	t = clock_ns();
	must("start", start(v));
	c->start = (double)(clock_ns() - t);
	for (unsigned int r = 0; r < rounds; r++) {
		c->guest[r] = write_pages(v, n, &c->full);
		memset(v->bitmap, 0, ram_words(&v->ram) * 8);
		t = clock_ns();
		harvest(v);
		c->harvest[r] = (double)(clock_ns() - t);
		c->wrong += bitmap_count(v->bitmap, ram_words(&v->ram)) != n;
		t = clock_ns();
		clear(v);
		c->clear[r] = (double)(clock_ns() - t);
	}
}

/* @ns: sorted */
static void print_harvest(const struct subject *s, double share, unsigned int n,
			  const double *ns)
{
	double gib = mib / 1024.0;

	printf("{\"bench\":\"harvest\",\"subject\":\"vm-migrate\",\"source\":\"kvm-%s\","
	       "\"variant\":\"\",\"gib\":%.3f,\"dirty_percent\":%g,\"dirty_pages\":%u,"
	       "\"metric\":\"harvest_ms_per_gib\",\"value\":%.5f,\"best\":%.5f}\n",
	       s->name, gib, share, n, ns[rounds / 2] / 1e6 / gib, ns[0] / 1e6 / gib);
}

static void bench(const struct subject *s, double share, const uint32_t *list)
{
	struct vm v = { .s = s, .pages = mib << (20 - RAM_PAGE_SHIFT) };
	unsigned int n = (unsigned int)(v.pages * share / 100);
	struct cost c = { 0 };
	double guest, harvest_ns, clear_ns, base;

	vm_open(&v, list);
	measure(&v, n, &c);
	base = median(c.base);
	guest = (median(c.guest) - base) / n;
	harvest_ns = median(c.harvest) / n;
	clear_ns = s->clear ? median(c.clear) / n : 0;
	printf("{\"bench\":\"dirty-kvm\",\"subject\":\"%s\",\"mib\":%u,\"dirty_percent\":"
	       "%g,"
	       "\"pages\":%u,\"base_ns\":%.0f,\"guest_ns\":%.0f,\"harvest_ns\":%.0f,"
	       "\"clear_ns\":%.0f,\"total_ns\":%.0f,\"start_us\":%.0f,"
	       "\"ring_full\":%.1f,\"wrong_harvests\":%u}\n",
	       s->name, mib, share, n, base / n, guest, harvest_ns, clear_ns,
	       guest + harvest_ns + clear_ns, c.start / 1000, (double)c.full / rounds,
	       c.wrong);
	if (share == 1)
		print_harvest(s, share, n, c.harvest);
	fflush(stdout);
	vm_close(&v);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "mib", required_argument, NULL, 'm' },
		{ "rounds", required_argument, NULL, 'r' },
		{ 0 },
	};
	uint32_t *list;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'm')
			mib = (unsigned int)strtoul(optarg, NULL, 0);
		else if (c == 'r')
			rounds = (unsigned int)strtoul(optarg, NULL, 0);
		else
			return 2;
	}
	if (mib < 4 || mib > 1024 || !rounds || rounds > MAX_ROUNDS) {
		fprintf(stderr, "dirty_kvm: an argument is out of range\n");
		return 2;
	}
	list = shuffled(mib << (20 - RAM_PAGE_SHIFT));
	for (size_t i = 0; i < sizeof(percent) / sizeof(percent[0]); i++)
		for (size_t k = 0; k < sizeof(subjects) / sizeof(subjects[0]); k++)
			bench(&subjects[k], percent[i], list);
	free(list);
	return 0;
}
