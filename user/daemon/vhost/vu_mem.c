// SPDX-License-Identifier: BSD-2-Clause
/*
 * vu_mem: guest memory of a vhost-user front end, and the guard of all such mappings.
 *
 * The guard's table lists every mapping of a peer's file in the process. Its reader is a
 * signal handler on any thread, so there is no lock: a slot is claimed by an atomic
 * exchange and filled under a sequence count, odd while it changes. The mapping in which
 * a thread faults cannot go away during the fault, because its owner unmaps only while no
 * worker runs the device; the count keeps the handler from a half-changed slot of
 * another.
 *
 * Thread: see vu_mem.h; the handler runs wherever the fault was.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vu_mem.h"

struct guard {
	uint32_t seq; /* odd: being changed */
	bool taken;
	uintptr_t start; /* of the mapping; 0: none */
	size_t len;
	size_t page; /* size of the file's pages */
	bool *broken;
};

static struct guard guards[VU_MAP_MAX];
static unsigned int guards_top; /* slots ever used: what the handler looks at */

#define GET(p)	  __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define SET(p, x) __atomic_store_n(p, x, __ATOMIC_RELEASE)

static void guard_set(struct guard *g, void *start, size_t len, size_t page, bool *broken)
{
	uint32_t seq = g->seq;

	/* An exchange, so that the fields' stores stay below it; pairs with the loads of
	 * seq in guard_read(). */
	__atomic_exchange_n(&g->seq, seq + 1, __ATOMIC_ACQ_REL);
	SET(&g->start, (uintptr_t)start);
	SET(&g->len, len);
	SET(&g->page, page);
	SET(&g->broken, broken);
	SET(&g->seq, seq + 2);
}

/* Return: a consistent copy of a live slot is in @out */
static bool guard_read(const struct guard *g, struct guard *out)
{
	uint32_t seq = GET(&g->seq);

	if (seq & 1)
		return false;
	/* Acquire each: the second look at seq comes after all of them. */
	out->start = GET(&g->start);
	out->len = GET(&g->len);
	out->page = GET(&g->page);
	out->broken = GET(&g->broken);
	return GET(&g->seq) == seq && out->start;
}

/* Return: slot, -ENOSPC */
static int guard_add(void *start, size_t len, size_t page, bool *broken)
{
	for (unsigned int i = 0; i < VU_MAP_MAX; i++) {
		unsigned int top = GET(&guards_top);

		if (__atomic_exchange_n(&guards[i].taken, true, __ATOMIC_ACQ_REL))
			continue;
		guard_set(&guards[i], start, len, page, broken);
		while (top <= i &&
		       !__atomic_compare_exchange_n(&guards_top, &top, i + 1, false,
						    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			;
		return (int)i;
	}
	return -ENOSPC;
}

static void guard_del(unsigned int slot)
{
	guard_set(&guards[slot], NULL, 0, 0, NULL);
	SET(&guards[slot].taken, false);
}

/*
 * Put a zero page where the file has none. Async-signal-safe: loads, a store, mmap(),
 * which is a bare system call that the sandbox allows. A page of the file's own size,
 * because a mapping of huge pages can be split nowhere else.
 */
static bool guard_repair(uintptr_t addr)
{
	unsigned int top = GET(&guards_top);
	struct guard g;

	for (unsigned int i = 0; i < top; i++) {
		uintptr_t page;

		if (!guard_read(&guards[i], &g) || addr - g.start >= g.len)
			continue;
		page = addr - (addr - g.start) % g.page;
		if (mmap((void *)page, g.page, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
			return false;
		SET(g.broken, true);
		return true;
	}
	return false;
}

static void on_sigbus(int sig, siginfo_t *si, void *context)
{
	int saved = errno;

	/* si_code > 0: a fault, not somebody's kill(). */
	if (si->si_code > 0 && guard_repair((uintptr_t)si->si_addr)) {
		errno = saved;
		return;
	}
	/* Not ours: die of it as if there were no handler. The signal is blocked until
	 * this returns, then it is delivered, at the latest when the access repeats. */
	signal(SIGBUS, SIG_DFL);
	raise(SIGBUS);
	errno = saved;
}

int vu_mem_guard(void)
{
	struct sigaction sa = { .sa_flags = SA_SIGINFO };

	sa.sa_sigaction = on_sigbus;
	sigemptyset(&sa.sa_mask);
	return sigaction(SIGBUS, &sa, NULL) ? -errno : 0;
}

/* Return: size of the file's pages: those of a hugetlbfs are its st_blksize */
static uint64_t file_page(const struct stat *st)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t block = (uint64_t)st->st_blksize;

	return block > page && !(block & (block - 1)) ? block : page;
}

int vu_map_create(struct vu_map *m, int fd, uint64_t offset, uint64_t size, bool *broken)
{
	uint64_t page, start, end;
	struct stat st;
	void *map;
	int slot;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode) || !size || offset >= (uint64_t)st.st_size ||
	    size > (uint64_t)INT64_MAX - offset)
		return -EINVAL;
	page = file_page(&st);
	start = offset & ~(page - 1);
	end = offset + size;
	if (end > (uint64_t)INT64_MAX - page)
		return -EINVAL;
	end = (end + page - 1) & ~(page - 1);

	map = mmap(NULL, end - start, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		   fd, (off_t)start);
	if (map == MAP_FAILED)
		return -errno;
	/* A core dump of the daemon is not to hold its guests' memory. */
	madvise(map, end - start, MADV_DONTDUMP);
	slot = guard_add(map, end - start, page, broken);
	if (slot < 0) {
		munmap(map, end - start);
		return slot;
	}
	m->map = map;
	m->map_len = end - start;
	m->base = (uint8_t *)map + (offset - start);
	m->slot = (unsigned int)slot;
	return 0;
}

void vu_map_destroy(struct vu_map *m)
{
	if (!m->base)
		return;
	/* In this order: another thread may map something else there at once. */
	guard_del(m->slot);
	munmap(m->map, m->map_len);
	memset(m, 0, sizeof(*m));
}

int vu_mem_add(struct vu_mem *m, uint64_t gpa, uint64_t uva, uint64_t size,
	       uint64_t offset, int fd)
{
	struct vu_region r = { .gpa = gpa, .uva = uva, .size = size, .offset = offset };
	struct stat st;
	unsigned int i;
	int err;

	if (m->nregions == VU_MEM_MAX_REGIONS)
		return -ENOSPC;
	if (!size || size > UINT64_MAX - gpa || size > UINT64_MAX - uva)
		return -EINVAL;
	for (i = 0; i < m->nregions && m->region[i].gpa < gpa; i++)
		if (gpa - m->region[i].gpa < m->region[i].size)
			return -EINVAL;
	if (i < m->nregions && m->region[i].gpa - gpa < size)
		return -EINVAL;

	err = vu_map_create(&r.map, fd, offset, size, &m->broken);
	if (err)
		return err;
	if (!fstat(fd, &st)) {
		r.dev = st.st_dev;
		r.ino = st.st_ino;
	}
	r.base = r.map.base;
	memmove(&m->region[i + 1], &m->region[i],
		(m->nregions - i) * sizeof(struct vu_region));
	m->region[i] = r;
	m->nregions++;
	return 0;
}

int vu_mem_del(struct vu_mem *m, uint64_t gpa, uint64_t uva, uint64_t size)
{
	for (unsigned int i = 0; i < m->nregions; i++) {
		struct vu_region *r = &m->region[i];

		if (r->gpa != gpa || r->uva != uva || r->size != size)
			continue;
		vu_map_destroy(&r->map);
		m->nregions--;
		memmove(r, r + 1, (m->nregions - i) * sizeof(struct vu_region));
		/* Size 0: a ring that remembers this entry finds nothing in it. */
		memset(&m->region[m->nregions], 0, sizeof(struct vu_region));
		return 0;
	}
	return -ENOENT;
}

void vu_mem_clear(struct vu_mem *m)
{
	for (unsigned int i = 0; i < m->nregions; i++)
		vu_map_destroy(&m->region[i].map);
	memset(m->region, 0, sizeof(m->region));
	m->nregions = 0;
	SET(&m->broken, false);
}

const struct vu_region *vu_mem_find(const struct vu_mem *m, uint64_t gpa)
{
	for (unsigned int i = 0; i < m->nregions; i++)
		if (gpa - m->region[i].gpa < m->region[i].size)
			return &m->region[i];
	return NULL;
}

void *vu_mem_gpa(const struct vu_mem *m, uint64_t gpa, uint64_t *len)
{
	const struct vu_region *r = vu_mem_find(m, gpa);
	uint64_t off;

	if (!r)
		return NULL;
	off = gpa - r->gpa;
	if (*len > r->size - off)
		*len = r->size - off;
	return r->base + off;
}

void *vu_mem_uva(const struct vu_mem *m, uint64_t uva, uint64_t len, uint64_t *gpa)
{
	for (unsigned int i = 0; i < m->nregions; i++) {
		const struct vu_region *r = &m->region[i];
		uint64_t off = uva - r->uva;

		if (off >= r->size || len > r->size - off)
			continue;
		if (gpa)
			*gpa = r->gpa + off;
		return r->base + off;
	}
	return NULL;
}
