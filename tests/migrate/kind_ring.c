// SPDX-License-Identifier: BSD-2-Clause
/*
 * kind_ring: KVM's ring (dirty_kvm_ring.c itself) before a KVM that is played here, so it
 * needs none; and one whose CPUs hold entries back, as Intel's do (page modification
 * logging), which no emulated one does: what is in a vCPU's buffer is in its ring only
 * once it has left the guest. A halted vCPU may still be in there, in HLT. Who does not
 * kick it out before the last harvest loses what it holds.
 *
 * One lock makes a write's entry and the protection of its page one step, as the MMU does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* All that would need a real one. */
#define ioctl		      played_ioctl
#define dirty_kvm_set_log     played_set_log
#define dirty_kvm_ring_create played_ring_create
#define dirty_kvm_ring_drain  played_ring_drain
#define dirty_kvm_ring_enable played_ring_enable
#include "../../vm-migrate/dirty/dirty_kvm_ring.c"

#include "kinds.h"

#define VCPUS	 3U
#define HELD	 512U /* entries, as Intel's buffer */
#define ENTRIES	 4096U
#define RING	 ((uint32_t)(ENTRIES * sizeof(struct kvm_dirty_gfn)))
#define RING_AT	 (KVM_DIRTY_LOG_PAGE_OFFSET * sysconf(_SC_PAGESIZE))
#define NO_VM_FD (-1)

struct vcpu {
	struct conform *c;
	int fd;
	struct kvm_dirty_gfn *entry; /* [ENTRIES] */
	uint32_t next, reset;	     /* free running */
	uint32_t read;		     /* dirty_kvm_vcpu.next */
	uint64_t held[HELD];	     /* page numbers */
	unsigned int nheld;
};

struct played {
	struct dirty_source *src;
	struct threads *threads;
	uint64_t *protect; /* bitmap: a write makes an entry */
	unsigned int nvcpus;
	struct vcpu vcpu[VCPUS];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct played *played; /* the one of the kind that is open */
static __thread struct vcpu *self;

/* ---- KVM ------------------------------------------------------------------------------ */

/* Lock held: what is handed back is protected again. Return: entries */
static int reset(struct vcpu *v)
{
	int n = 0;

	for (; v->reset != v->next; v->reset++, n++) {
		struct kvm_dirty_gfn *e = &v->entry[v->reset % ENTRIES];
		const struct ram *ram = &v->c->ram;

		if (!(__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) &
		      KVM_DIRTY_GFN_F_RESET))
			break;
		bitmap_set(played->protect, ram->block[e->slot].first_page + e->offset);
		__atomic_store_n(&e->flags, 0, __ATOMIC_RELEASE);
	}
	return n;
}

int played_ioctl(int fd, unsigned long request, ...)
{
	int n = 0;

	assert_int_equal(fd, NO_VM_FD);
	assert_int_equal(request, KVM_RESET_DIRTY_RINGS);
	pthread_mutex_lock(&lock);
	for (unsigned int i = 0; i < VCPUS; i++)
		n += reset(&played->vcpu[i]);
	pthread_mutex_unlock(&lock);
	return n;
}

int played_set_log(const struct ram *ram, int vm_fd, const struct dirty_kvm_slot *slot,
		   unsigned int nslots, bool on)
{
	pthread_mutex_lock(&lock);
	for (unsigned int i = 0; i < nslots; i++)
		for (uint64_t p = 0; p < slot[i].pages; p++)
			if (on)
				bitmap_set(played->protect, slot[i].first_page + p);
			else
				bitmap_clear(played->protect, slot[i].first_page + p);
	for (unsigned int i = 0; i < VCPUS; i++)
		played->vcpu[i].nheld = 0;
	pthread_mutex_unlock(&lock);
	return 0;
}

/* Lock held: into the ring with what is held back. Return: false: it is full */
static bool write_down(struct vcpu *v)
{
	while (v->nheld && v->next - v->reset < ENTRIES) {
		struct kvm_dirty_gfn *e = &v->entry[v->next % ENTRIES];
		uint64_t page = v->held[--v->nheld];
		const struct ram_block *b = ram_block_of(&v->c->ram, page);

		e->slot = (uint32_t)(b - v->c->ram.block);
		e->offset = page - b->first_page;
		__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_DIRTY, __ATOMIC_RELEASE);
		v->next++;
	}
	return !v->nheld;
}

/* ---- vCPUs ---------------------------------------------------------------------------- */

/* It leaves the guest, for a full ring as often as it takes. */
static void leave(struct vcpu *v)
{
	bool done;

	do {
		pthread_mutex_lock(&lock);
		done = write_down(v);
		pthread_mutex_unlock(&lock);
		if (!done)
			assert_int_equal(played_ring_drain(played->src), 0);
	} while (!done);
}

static void kick(void *arg)
{
	struct vcpu *v = arg;

	if (v->c->fault != FAULT_NO_KICK)
		leave(v);
}

/* The vCPU of this thread has written to the page. */
static void log_write(struct conform *c, uint64_t page)
{
	bool full;

	if (!self)
		self = &played->vcpu[__atomic_fetch_add(&played->nvcpus, 1,
							__ATOMIC_RELAXED)];
	/* Orders the write before the look: reset() protects, then its caller reads. */
	pthread_mutex_lock(&lock);
	if (bitmap_test(played->protect, page)) {
		bitmap_clear(played->protect, page);
		self->held[self->nheld++] = page;
	}
	full = self->nheld == HELD;
	pthread_mutex_unlock(&lock);
	if (full)
		leave(self);
}

/* ---- the kind ------------------------------------------------------------------------- */

static void open_vcpu(struct vcpu *v, struct conform *c)
{
	v->c = c;
	v->fd = memfd_create("vcpu", MFD_CLOEXEC);
	assert_true(v->fd >= 0 && !ftruncate(v->fd, RING_AT + RING));
	v->entry = mmap(NULL, RING, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, RING_AT);
	assert_true(v->entry != MAP_FAILED);
}

static void make_set(struct conform *c)
{
	struct dirty_kvm_slot slot[RAM_MAX_BLOCKS];
	struct dirty_kvm_vcpu vcpu[VCPUS];

	for (unsigned int i = 0; i < c->ram.nblocks; i++)
		slot[i] =
			(struct dirty_kvm_slot){ i, c->ram.block[i].first_page,
						 c->ram.block[i].size >> RAM_PAGE_SHIFT };
	for (unsigned int i = 0; i < VCPUS; i++) {
		struct vcpu *v = &played->vcpu[i];

		vcpu[i] = (struct dirty_kvm_vcpu){ v->fd, kick, v, &v->read };
	}
	assert_int_equal(dirty_set_create(&c->ram, &c->set), 0);
	assert_int_equal(played_ring_create(&c->ram, NO_VM_FD, RING, slot, c->ram.nblocks,
					    vcpu, VCPUS, &played->src),
			 0);
	assert_int_equal(dirty_set_add(c->set, played->src), 0);
}

static void ring_renew(struct conform *c)
{
	dirty_set_destroy(c->set);
	make_set(c);
}

static int ring_open(struct conform *c)
{
	c->priv = played = calloc(1, sizeof(*played));
	assert_non_null(played);
	conform_layout(c);
	played->protect = calloc(ram_words(&c->ram) + 1, sizeof(*played->protect));
	assert_non_null(played->protect);
	for (unsigned int i = 0; i < VCPUS; i++)
		open_vcpu(&played->vcpu[i], c);
	make_set(c);
	played->threads = threads_start(c, VCPUS, log_write);
	return 0;
}

static void ring_go(struct conform *c)
{
	threads_go(played->threads);
}

/* They stand still, in the guest. */
static void ring_halt(struct conform *c)
{
	threads_halt(played->threads);
}

static void ring_close(struct conform *c)
{
	c->writes = threads_end(played->threads);
	dirty_set_destroy(c->set);
	for (unsigned int i = 0; i < VCPUS; i++) {
		munmap(played->vcpu[i].entry, RING);
		close(played->vcpu[i].fd);
	}
	free(played->protect);
	free(played);
	played = NULL;
}

const struct conform_kind kind_ring = {
	.name = "ring that holds back",
	.open = ring_open,
	.go = ring_go,
	.halt = ring_halt,
	.close = ring_close,
	.renew = ring_renew,
	.kicks = true,
};
