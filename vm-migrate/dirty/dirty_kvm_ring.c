// SPDX-License-Identifier: BSD-2-Clause
/*
 * dirty_kvm_ring: KVM's ring of dirty pages per vCPU.
 *
 * KVM appends an entry (flags: DIRTY) when a vCPU writes to a protected page. A drain
 * reads entries in their order, from where it left off, up to the first that is not
 * DIRTY, and hands each back (flags: RESET). KVM_RESET_DIRTY_RINGS then protects those
 * pages again. Only after it may they be read: a write before it makes no entry.
 *
 * A full ring stops its vCPU, whose thread drains as well; what that finds waits in a
 * bitmap of its own for the harvest. One mutex around all draining, which nobody holds
 * while he waits for a vCPU.
 *
 * Source: Documentation/virt/kvm/api.rst 8.29 KVM_CAP_DIRTY_LOG_RING(_ACQ_REL).
 */
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../user/lib/bitmap.h"
#include "dirty_kvm.h"

struct ring {
	struct dirty_kvm_vcpu vcpu;
	struct kvm_dirty_gfn *entry; /* [entries], mapped */
};

struct kvm_ring {
	struct dirty_source src;
	int vm_fd;
	uint32_t bytes, entries;
	pthread_mutex_t lock;
	/* Under lock: */
	uint64_t *pending; /* bitmap */
	bool waiting;	   /* something is in it */
	int err;	   /* of a drain, for the next harvest */
	struct ring *ring;
	unsigned int nrings;

	unsigned int nslots;
	struct dirty_kvm_slot slot[];
};

static struct kvm_ring *of(struct dirty_source *src)
{
	return (struct kvm_ring *)src;
}

static const struct dirty_kvm_slot *find_slot(const struct kvm_ring *k, uint32_t slot,
					      uint64_t offset)
{
	for (unsigned int i = 0; i < k->nslots; i++)
		if (k->slot[i].slot == slot && offset < k->slot[i].pages)
			return &k->slot[i];
	return NULL;
}

/* Return: entries taken */
static uint32_t drain_ring(struct kvm_ring *k, struct ring *r, uint64_t *bitmap,
			   int64_t *fresh)
{
	const struct dirty_kvm_slot *s;
	uint32_t *next = r->vcpu.next; /* free running */
	uint32_t n = 0;

	for (; n < k->entries; n++, ++*next) {
		struct kvm_dirty_gfn *e = &r->entry[*next & (k->entries - 1)];
		uint64_t page;

		/* Pairs with KVM's release of the flags: slot and offset are there. */
		if (!(__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) &
		      KVM_DIRTY_GFN_F_DIRTY))
			break;
		/* Slots that are not ours: logged for someone else */
		s = find_slot(k, e->slot, e->offset);
		if (s) {
			page = s->first_page + e->offset;
			*fresh += !bitmap_test(bitmap, page);
			bitmap_set(bitmap, page);
		}
		/* Pairs with KVM's acquire: it reuses the entry after this. */
		__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	}
	return n;
}

/* Lock held. Return: pages that were not in @bitmap before, -errno */
static int64_t drain(struct kvm_ring *k, uint64_t *bitmap)
{
	int64_t fresh = 0;
	uint32_t taken = 0;

	for (unsigned int i = 0; i < k->nrings; i++)
		taken += drain_ring(k, &k->ring[i], bitmap, &fresh);
	if (taken && ioctl(k->vm_fd, KVM_RESET_DIRTY_RINGS, 0) < 0)
		return -errno;
	return fresh;
}

int dirty_kvm_ring_drain(struct dirty_source *src)
{
	struct kvm_ring *k = of(src);
	int64_t n;

	pthread_mutex_lock(&k->lock);
	n = drain(k, k->pending);
	if (n < 0)
		k->err = (int)n;
	k->waiting = true;
	pthread_mutex_unlock(&k->lock);
	return n < 0 ? (int)n : 0;
}

static int64_t ring_harvest(struct dirty_source *src, uint64_t *bitmap)
{
	struct kvm_ring *k = of(src);
	int64_t n, more = 0;

	/* Out of the guest it has written down everything; not under the lock, for its
	 * thread may be waiting for that. */
	for (unsigned int i = 0; i < k->nrings; i++)
		if (k->ring[i].vcpu.kick)
			k->ring[i].vcpu.kick(k->ring[i].vcpu.arg);

	pthread_mutex_lock(&k->lock);
	n = drain(k, bitmap);
	if (k->waiting)
		more = (int64_t)bitmap_take(bitmap, k->pending, ram_words(src->ram));
	k->waiting = false;
	if (k->err)
		n = k->err;
	k->err = 0;
	pthread_mutex_unlock(&k->lock);
	return n < 0 ? n : n + more;
}

/* What lies in the rings, of earlier times too, is forgotten. */
static int discard(struct kvm_ring *k)
{
	int64_t n;

	pthread_mutex_lock(&k->lock);
	n = drain(k, k->pending);
	memset(k->pending, 0, ram_words(k->src.ram) * sizeof(*k->pending));
	k->waiting = false;
	k->err = 0;
	pthread_mutex_unlock(&k->lock);
	return n < 0 ? (int)n : 0;
}

static int ring_start(struct dirty_source *src)
{
	struct kvm_ring *k = of(src);
	int err = discard(k);

	return err ? err
		   : dirty_kvm_set_log(src->ram, k->vm_fd, k->slot, k->nslots, true);
}

static void ring_stop(struct dirty_source *src)
{
	struct kvm_ring *k = of(src);

	dirty_kvm_set_log(src->ram, k->vm_fd, k->slot, k->nslots, false);
	/* No vCPU stays outside because of a ring that nobody empties. */
	discard(k);
}

static void ring_destroy(struct dirty_source *src)
{
	struct kvm_ring *k = of(src);

	for (unsigned int i = 0; i < k->nrings; i++)
		munmap(k->ring[i].entry, k->bytes);
	pthread_mutex_destroy(&k->lock);
	free(k->ring);
	free(k->pending);
	free(k);
}

static const struct dirty_ops kvm_ring_ops = {
	.name = "kvm-ring",
	.by = DIRTY_BY_CPU,
	.start = ring_start,
	.harvest = ring_harvest,
	.stop = ring_stop,
	.destroy = ring_destroy,
};

int dirty_kvm_ring_enable(int vm_fd, uint32_t *bytes)
{
	static const unsigned int caps[] = { KVM_CAP_DIRTY_LOG_RING_ACQ_REL,
					     KVM_CAP_DIRTY_LOG_RING };
	uint32_t want = *bytes ? *bytes : 1U << 20;

	for (unsigned int i = 0; i < sizeof(caps) / sizeof(caps[0]); i++) {
		int max = ioctl(vm_fd, KVM_CHECK_EXTENSION, caps[i]);
		struct kvm_enable_cap cap = { .cap = caps[i] };

		if (max <= 0)
			continue;
		while (want & (want - 1))
			want &= want - 1;
		if (want > (uint32_t)max)
			want = (uint32_t)max;
		if (want < RAM_PAGE_SIZE)
			want = RAM_PAGE_SIZE;
		cap.args[0] = want;
		if (ioctl(vm_fd, KVM_ENABLE_CAP, &cap))
			return -errno;
		*bytes = want;
		return 0;
	}
	return -EOPNOTSUPP;
}

static int map_rings(struct kvm_ring *k, const struct dirty_kvm_vcpu *vcpu,
		     unsigned int nvcpus)
{
	off_t at = KVM_DIRTY_LOG_PAGE_OFFSET * sysconf(_SC_PAGESIZE);

	for (unsigned int i = 0; i < nvcpus; i++) {
		void *p;

		if (!vcpu[i].next)
			return -EINVAL;
		p = mmap(NULL, k->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu[i].fd,
			 at);
		if (p == MAP_FAILED)
			return -errno;
		k->ring[k->nrings++] = (struct ring){ .vcpu = vcpu[i], .entry = p };
	}
	return 0;
}

int dirty_kvm_ring_create(const struct ram *ram, int vm_fd, uint32_t bytes,
			  const struct dirty_kvm_slot *slot, unsigned int nslots,
			  const struct dirty_kvm_vcpu *vcpu, unsigned int nvcpus,
			  struct dirty_source **src)
{
	int err = dirty_kvm_check_slots(ram, slot, nslots);
	struct kvm_ring *k;

	if (err)
		return err;
	if (!bytes || bytes & (bytes - 1))
		return -EINVAL;
	k = calloc(1, sizeof(*k) + nslots * sizeof(*slot));
	if (!k)
		return -ENOMEM;
	k->src = (struct dirty_source){ .ops = &kvm_ring_ops, .ram = ram };
	k->vm_fd = vm_fd;
	k->bytes = bytes;
	k->entries = bytes / sizeof(struct kvm_dirty_gfn);
	k->nslots = nslots;
	memcpy(k->slot, slot, nslots * sizeof(*slot));
	pthread_mutex_init(&k->lock, NULL);
	k->pending = calloc(ram_words(ram) + 1, sizeof(*k->pending));
	k->ring = calloc(nvcpus ? nvcpus : 1, sizeof(*k->ring));
	err = k->pending && k->ring ? map_rings(k, vcpu, nvcpus) : -ENOMEM;
	if (err) {
		ring_destroy(&k->src);
		return err;
	}
	*src = &k->src;
	return 0;
}
