// SPDX-License-Identifier: BSD-2-Clause
/*
 * dma_log: mark guest pages that the device wrote; change where they are marked.
 *
 * Why no write is lost:
 *
 * - The front end's log is cleared by its reader at any time, by an atomic exchange, and
 *   then the page is read. So each mark is an atomic OR of its own, after the data
 *   (release): if the exchange takes the bit, the page read after it has the data; else
 *   the bit is there for the next one. Finding the bit set and leaving it alone would
 *   be wrong: the load may run ahead of the data's stores.
 * - A bitmap of the pair is cleared only while it is not the active one: after the grace
 *   period of a swap and before the next. Nobody clears what a writer marks, so here a
 *   bit that is set can be left alone, which saves most locked operations. All that a
 *   worker wrote before the grace period is marked in the old bitmap or the new, and
 *   visible to the harvester as the grace period orders it.
 *
 * A map's fields are written before its pointer is published (release) and not
 * changed until a later grace period is over, so two entries of each kind suffice.
 *
 * Threads: dma_log.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dma_log.h"

static void count(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

/* @settled: nobody clears bits of the map while it is published */
static void mark(struct dma_log *log, const struct dma_log_map *m, uint64_t gpa,
		 uint64_t len, bool settled)
{
	uint64_t first = gpa >> DMA_LOG_PAGE_SHIFT, last;

	if (!len)
		return;
	last = (len - 1 > UINT64_MAX - gpa ? UINT64_MAX : gpa + len - 1) >>
	       DMA_LOG_PAGE_SHIFT;
	if (last >= m->bits) {
		uint64_t n = last - (first > m->bits ? first : m->bits) + 1;

		count(&log->beyond, n);
		if (settled)
			count(&log->pair_beyond, n);
		if (first >= m->bits)
			return;
		last = m->bits - 1;
	}
	count(&log->marked, last - first + 1);

	for (uint64_t byte = first / 8; byte <= last / 8; byte++) {
		uint8_t bits = 0xff;

		if (byte == first / 8)
			bits &= (uint8_t)(0xffU << first % 8);
		if (byte == last / 8)
			bits &= (uint8_t)(0xffU >> (7 - last % 8));
		if (settled &&
		    (__atomic_load_n(&m->base[byte], __ATOMIC_RELAXED) & bits) == bits)
			continue;
		/* Data first: pairs with the harvester's exchange, or with the grace
		 * period. */
		__atomic_fetch_or(&m->base[byte], bits, __ATOMIC_RELEASE);
	}
}

void dma_log_mark_front(struct dma_log *log, uint64_t gpa, uint64_t len)
{
	/* Pairs with the release in publish(): the map's fields. */
	const struct dma_log_map *m = __atomic_load_n(&log->front, __ATOMIC_ACQUIRE);

	if (m)
		mark(log, m, gpa, len, false);
}

void dma_log_mark_pair(struct dma_log *log, uint64_t gpa, uint64_t len)
{
	const struct dma_log_map *m = __atomic_load_n(&log->pair, __ATOMIC_ACQUIRE);

	if (m)
		mark(log, m, gpa, len, true);
}

void dma_log_count(struct dma_log *log, uint64_t flagged, uint64_t unflagged)
{
	count(&log->flagged, flagged);
	count(&log->unflagged, unflagged);
}

/* Control thread: @m takes the place of what @sink points to. */
static void publish(struct dma_log *log, struct dma_log_map **sink, struct dma_log_map *m,
		    const struct dma_log_grace *grace)
{
	__atomic_store_n(sink, m, __ATOMIC_RELEASE);
	__atomic_store_n(&log->on, log->front || log->pair, __ATOMIC_RELEASE);
	grace->wait(grace->arg);
}

void dma_log_init(struct dma_log *log)
{
	memset(log, 0, sizeof(*log));
	log->pair_fd[0] = log->pair_fd[1] = -1;
}

void dma_log_set_front(struct dma_log *log, uint8_t *base, uint64_t size,
		       const struct dma_log_grace *grace)
{
	struct dma_log_map *m = NULL;

	if (base) {
		m = &log->front_map[log->front == &log->front_map[0]];
		m->base = base;
		m->bits = size > UINT64_MAX / 8 ? UINT64_MAX : size * 8;
	}
	if (m || log->front)
		publish(log, &log->front, m, grace);
}

static uint64_t bitmap_bytes(uint64_t pages)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	return ((pages + 7) / 8 + page - 1) & ~(page - 1);
}

static void free_pair(struct dma_log *log)
{
	for (unsigned int i = 0; i < 2; i++) {
		struct dma_log_map *m = &log->pair_map[i];

		if (m->base)
			munmap(m->base, bitmap_bytes(m->bits));
		m->base = NULL;
		if (log->pair_fd[i] >= 0)
			close(log->pair_fd[i]);
		log->pair_fd[i] = -1;
	}
}

/* A bitmap that its other holders cannot cut short under our writes. */
static int make_bitmap(uint64_t pages, struct dma_log_map *m, int *fd)
{
	size_t len = bitmap_bytes(pages);
	void *p;

	*fd = memfd_create("ghostnic-dirty", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd < 0)
		return -errno;
	if (ftruncate(*fd, (off_t)len) ||
	    fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return -errno;
	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	m->base = p;
	m->bits = pages;
	return 0;
}

int dma_log_enable_pair(struct dma_log *log, uint64_t pages,
			const struct dma_log_grace *grace)
{
	if (log->pair)
		return -EALREADY;
	if (!pages || pages > DMA_LOG_MAX_PAGES)
		return -EINVAL;
	for (unsigned int i = 0; i < 2; i++) {
		int err = make_bitmap(pages, &log->pair_map[i], &log->pair_fd[i]);

		if (err) {
			free_pair(log);
			return err;
		}
	}
	__atomic_store_n(&log->pair_beyond, 0, __ATOMIC_RELAXED);
	log->pair_owner[0] = '\0';
	publish(log, &log->pair, &log->pair_map[0], grace);
	return 0;
}

void dma_log_disable_pair(struct dma_log *log, const struct dma_log_grace *grace)
{
	if (log->pair)
		publish(log, &log->pair, NULL, grace);
	free_pair(log);
}

int dma_log_active(const struct dma_log *log)
{
	return log->pair ? log->pair == &log->pair_map[1] : -ENOENT;
}

int dma_log_swap(struct dma_log *log, const struct dma_log_grace *grace)
{
	int old = dma_log_active(log);

	if (old >= 0)
		publish(log, &log->pair, &log->pair_map[!old], grace);
	return old;
}

static uint64_t count_bits(const uint8_t *p, uint64_t len)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < len; i += sizeof(n))
		n += (unsigned int)__builtin_popcountll(__atomic_load_n(
			(const uint64_t *)(const void *)(p + i), __ATOMIC_RELAXED));
	return n;
}

/*
 * The next range of bitmap @i, from *@to on, that was ever marked. Reading a hole would
 * fill it with memory, and there may be far more of them. Return: false: there is none
 */
static bool next_data(const struct dma_log *log, unsigned int i, off_t *from, off_t *to)
{
	*from = lseek(log->pair_fd[i], *to, SEEK_DATA);
	if (*from < 0)
		return false;
	*to = lseek(log->pair_fd[i], *from, SEEK_HOLE);
	return *to > *from;
}

uint64_t dma_log_dirty(const struct dma_log *log, unsigned int i)
{
	const struct dma_log_map *m = &log->pair_map[i];
	off_t from, to = 0;
	uint64_t n = 0;

	while (m->base && next_data(log, i, &from, &to))
		n += count_bits(m->base + from, (uint64_t)(to - from));
	return n;
}

/* All that is marked in the other bitmap, in @last too. */
static void merge_into(struct dma_log *log, unsigned int last)
{
	const uint64_t *other = (const uint64_t *)(void *)log->pair_map[!last].base;
	uint64_t *all = (uint64_t *)(void *)log->pair_map[last].base;
	off_t from, to = 0;

	while (next_data(log, !last, &from, &to)) {
		for (size_t i = (size_t)from / 8; i < (size_t)to / 8; i++) {
			uint64_t bits = __atomic_load_n(&other[i], __ATOMIC_RELAXED);

			if (bits)
				__atomic_fetch_or(&all[i], bits, __ATOMIC_RELAXED);
		}
	}
}

int dma_log_end_pair(struct dma_log *log, const struct dma_log_grace *grace)
{
	int last = dma_log_active(log);

	if (last >= 0) {
		publish(log, &log->pair, NULL, grace);
		merge_into(log, (unsigned int)last);
	}
	return last;
}

void dma_log_fini(struct dma_log *log)
{
	log->on = false;
	log->front = log->pair = NULL;
	free_pair(log);
}
