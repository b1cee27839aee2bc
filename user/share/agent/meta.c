// SPDX-License-Identifier: BSD-2-Clause
/* meta: state that outlives an agent. Theory and contract in meta.h; agent's thread. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "coh.h"
#include "meta.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434 /* 5.3 */
#endif

#define MAGIC 0x35544d474d4547ull /* "GEMGMT5" */
/* Pages of GM_PAGE_SIZE; of larger ones as many bytes, but at least so many: of 4 importers
 * that have as many under way as they may (PEER_FLIGHT), and as many again that they have
 * not confirmed. The bytes of kept pages in messages have room in a connection's queue
 * (chan.c). */
#define KEEP_HOME     4096
#define KEEP_IMPORT   16384
#define HOME_LEAST    32
#define IMPORT_LEAST  16
#define KEEP_RELEASE  256 /* more than these are given back when none is kept */
#define RELEASE_LEAST 4

struct layout {
	unsigned int nkeep, ngiven;			     /* pages */
	size_t slots, table, once, entries, bytes;	     /* home */
	size_t held, given, given_bytes, staged, stage, len; /* import */
};

static size_t up(size_t n)
{
	return (n + GM_PAGE_SIZE - 1) & ~(size_t)(GM_PAGE_SIZE - 1);
}

static unsigned int pages_in(uint32_t small, unsigned int shift, unsigned int least)
{
	uint32_t n = gm_pages(small, shift);

	return n > least ? n : least;
}

static struct layout layout(uint64_t size, unsigned int shift)
{
	uint64_t pages = size >> shift;
	struct layout l = { .slots = GM_PAGE_SIZE,
			    .nkeep = pages_in(KEEP_HOME, shift, HOME_LEAST),
			    .ngiven = pages_in(KEEP_IMPORT, shift, IMPORT_LEAST) };

	l.table = l.slots + up(GM_SLOT_MAX * sizeof(struct meta_slot));
	l.once = l.table + up(coh_size(pages));
	l.entries = l.once + up(sizeof(struct once));
	l.bytes = l.entries + up(l.nkeep * sizeof(struct keep_entry));
	l.held = l.bytes + ((size_t)l.nkeep << shift);
	l.given = l.held + up(pages);
	l.given_bytes = l.given + up(l.ngiven * sizeof(struct keep_entry));
	l.staged = l.given_bytes + ((size_t)l.ngiven << shift);
	l.stage = l.staged + up(pages);
	l.len = l.stage + size;
	return l;
}

static void keep_reset(struct keep *k)
{
	k->n = k->most = k->nunused = 0;
	for (unsigned int i = k->room; i--;)
		k->unused[k->nunused++] = i;
}

static bool keep_map(struct keep *k, uint8_t *entries, uint8_t *bytes, unsigned int room,
		     uint64_t size, unsigned int shift)
{
	k->pages = size >> shift;
	k->entries = (struct keep_entry *)entries;
	k->bytes = bytes;
	k->room = room;
	k->shift = shift;
	k->order = calloc(room, sizeof(*k->order));
	k->unused = calloc(room, sizeof(*k->unused));
	return k->order && k->unused;
}

/* Return: false: errno says why */
static bool map(struct meta *m, uint64_t size, unsigned int shift)
{
	struct layout l = layout(size, shift);
	void *p = mmap(NULL, l.len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
		       m->fd, 0);

	if (p == MAP_FAILED)
		return false;
	m->map = p;
	m->len = l.len;
	m->hdr = p;
	m->size = size;
	m->shift = shift;
	m->slots = (struct meta_slot *)(m->map + l.slots);
	m->table = m->map + l.table;
	m->once = (struct once *)(m->map + l.once);
	m->held = m->map + l.held;
	m->staged = m->map + l.staged;
	m->stage = m->map + l.stage;
	return keep_map(&m->keep, m->map + l.entries, m->map + l.bytes, l.nkeep, size,
			shift) &&
	       keep_map(&m->given, m->map + l.given, m->map + l.given_bytes, l.ngiven,
			size, shift);
}

int meta_create(enum meta_kind kind, uint64_t size, unsigned int shift, struct meta **out)
{
	struct meta *m = calloc(1, sizeof(*m));
	int err;

	if (!m)
		return -ENOMEM;
	m->fd = memfd_create("ghostmem-meta", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (m->fd < 0 || ftruncate(m->fd, (off_t)layout(size, shift).len) ||
	    fcntl(m->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) ||
	    !map(m, size, shift)) {
		err = -errno;
		meta_destroy(m);
		return err;
	}
	m->hdr->kind = kind;
	m->hdr->size = size;
	m->hdr->page_shift = shift;
	keep_reset(&m->keep);
	keep_reset(&m->given);
	*out = m;
	return 0;
}

void meta_become(struct meta *m, enum meta_kind kind, uint32_t epoch)
{
	struct meta_hdr *h = m->hdr;

	__atomic_store_n(&h->kind, kind, __ATOMIC_RELEASE);
	__atomic_store_n(&h->epoch, epoch, __ATOMIC_RELEASE);
	__atomic_store_n(&h->claim, 0, __ATOMIC_RELEASE);
	if (kind == META_HOME)
		h->incarnation = 0;
}

void meta_clear(struct meta *m, enum meta_kind kind)
{
	struct layout l = layout(m->size, m->shift);
	size_t from = kind == META_HOME ? l.slots : l.held;
	size_t to = kind == META_HOME ? l.held : l.len;

	if (madvise(m->map + from, to - from, MADV_REMOVE))
		memset(m->map + from, 0, to - from);
	keep_reset(kind == META_HOME ? &m->keep : &m->given);
}

void meta_unstage(struct meta *m)
{
	size_t at = (size_t)(m->staged - m->map);

	m->hdr->staged = 0;
	if (madvise(m->map + at, m->len - at, MADV_REMOVE))
		memset(m->map + at, 0, m->len - at);
}

void meta_seal(struct meta *m)
{
	__atomic_store_n(&m->hdr->magic, MAGIC, __ATOMIC_RELEASE);
}

static bool sane(const struct meta_hdr *h, enum meta_kind kind, uint64_t size)
{
	return h->magic == MAGIC && (h->kind == META_HOME || h->kind == META_IMPORT) &&
	       (kind == META_ANY || h->kind == kind) && h->size == size &&
	       memchr(h->name, 0, sizeof(h->name)) &&
	       memchr(h->node, 0, sizeof(h->node)) &&
	       memchr(h->addr, 0, sizeof(h->addr)) && h->key.len &&
	       h->key.len <= GM_KEY_MAX && h->read_key.len <= GM_KEY_MAX;
}

/* Pages kept: of several copies of one page for one slot the newest. */
static void recover(struct keep *k)
{
	uint64_t page;

	for (unsigned int i = k->room; i--;) {
		struct keep_entry *e = &k->entries[i], *o;

		if (e->used && (!keep_page(k, e, &page) || e->slot >= GM_SLOT_MAX))
			e->used = 0;
		o = e->used ? keep_find(k, page, e->slot) : NULL;
		if (o && !coh_later(e->version, o->version))
			e->used = 0;
		else if (o)
			keep_del(k, o);
		if (e->used)
			k->order[k->n++] = i;
		else
			k->unused[k->nunused++] = i;
	}
	k->most = k->n;
}

/* Of the region's pages, as the header says. Return: 0: there is none that nobody can cut
 * off */
static unsigned int read_shift(int fd)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct meta_hdr h;

	if (seals < 0 || !(seals & F_SEAL_SHRINK) ||
	    pread(fd, &h, sizeof(h), 0) != sizeof(h) || h.magic != MAGIC ||
	    (h.page_shift != GM_PAGE_SHIFT && h.page_shift != GM_HUGE_SHIFT))
		return 0;
	return h.page_shift;
}

int meta_open(int fd, enum meta_kind kind, uint64_t size, struct meta **out)
{
	unsigned int shift = read_shift(fd);
	struct meta *m;
	struct stat st;
	int err;

	if (!shift || fstat(fd, &st) || !size || size % (1ull << shift) ||
	    size > GM_REGION_MAX || (uint64_t)st.st_size != layout(size, shift).len)
		return -EINVAL;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (m->fd < 0 || !map(m, size, shift)) {
		err = -errno;
		goto destroy;
	}
	err = -EINVAL;
	if (!sane(m->hdr, kind, size))
		goto destroy;
	recover(&m->keep);
	recover(&m->given);
	*out = m;
	return 0;
destroy:
	meta_destroy(m);
	return err;
}

void meta_destroy(struct meta *m)
{
	if (!m)
		return;
	if (m->map)
		munmap(m->map, m->len);
	if (m->fd >= 0)
		close(m->fd);
	free(m->keep.order);
	free(m->keep.unused);
	free(m->given.order);
	free(m->given.unused);
	free(m);
}

/* ---- windows ---------------------------------------------------------------------- */

int meta_window(struct meta *m, int32_t pid, uint64_t base, uint32_t have)
{
	int unused = -EBUSY;

	for (int i = META_WINDOWS; i--;) {
		struct meta_window *w = &m->hdr->windows[i];

		if (w->pid == pid && w->base == base)
			return i;
		if (!w->pid && !(have & 1u << i))
			unused = i;
	}
	if (unused >= 0) {
		m->hdr->windows[unused].base = base;
		m->hdr->windows[unused].pid = pid;
	}
	return unused;
}

void meta_window_forget(struct meta *m, int at)
{
	if (!m->left)
		m->hdr->windows[at].pid = 0;
}

/* A zombie maps nothing: a pidfd tells it from one that lives. */
static bool lives(int32_t pid)
{
	struct pollfd p = { .events = POLLIN };
	bool ended;

	if (pid < 0)
		return true; /* of another PID namespace: nobody knows */
	p.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (p.fd < 0)
		return errno != ESRCH && errno != EINVAL;
	ended = poll(&p, 1, 0) > 0;
	close(p.fd);
	return !ended;
}

unsigned int meta_awaited(struct meta *m, uint32_t have)
{
	unsigned int n = 0;

	for (int i = 0; i < META_WINDOWS; i++) {
		struct meta_window *w = &m->hdr->windows[i];

		if (!w->pid || have & 1u << i)
			continue;
		if (lives(w->pid))
			n++;
		else
			w->pid = 0;
	}
	return n;
}

/* ---- kept pages ------------------------------------------------------------------- */

const uint8_t *keep_bytes(const struct keep *k, const struct keep_entry *e)
{
	return k->bytes + ((size_t)(e - k->entries) << k->shift);
}

const uint8_t *keep_put(struct keep *k, const struct keep_entry *e, const void *bytes)
{
	struct keep_entry *at;
	uint8_t *copy;
	unsigned int i;

	if (!k->nunused)
		return NULL;
	i = k->unused[--k->nunused];
	at = &k->entries[i];
	copy = k->bytes + ((size_t)i << k->shift);
	memcpy(copy, bytes, (size_t)1 << k->shift);
	*at = *e;
	__atomic_store_n(&at->used, 1, __ATOMIC_RELEASE);
	k->order[k->n++] = i;
	if (k->n > k->most)
		k->most = k->n;
	return copy;
}

bool keep_page(const struct keep *k, const struct keep_entry *e, uint64_t *page)
{
	*page = __atomic_load_n(&e->page, __ATOMIC_RELAXED);
	return *page < k->pages;
}

struct keep_entry *keep_find(struct keep *k, uint64_t page, uint8_t slot)
{
	for (unsigned int i = k->n; i--;) {
		struct keep_entry *e = &k->entries[k->order[i]];

		if (e->page == page && e->slot == slot)
			return e;
	}
	return NULL;
}

/* A burst is over: its memory goes back. */
static void settle(struct keep *k)
{
	if (k->n || k->most <= pages_in(KEEP_RELEASE, k->shift, RELEASE_LEAST))
		return;
	madvise(k->bytes, (size_t)k->room << k->shift, MADV_REMOVE);
	k->most = 0;
}

void keep_del(struct keep *k, struct keep_entry *e)
{
	unsigned int at = (unsigned int)(e - k->entries), i = 0;

	__atomic_store_n(&e->used, 0, __ATOMIC_RELEASE);
	while (i < k->n && k->order[i] != at)
		i++;
	if (i == k->n)
		return;
	memmove(k->order + i, k->order + i + 1, (k->n - i - 1) * sizeof(*k->order));
	k->n--;
	k->unused[k->nunused++] = at;
	settle(k);
}

void keep_trim(struct keep *k, uint64_t session, uint64_t seq)
{
	unsigned int kept = 0, i;

	for (i = 0; i < k->n; i++) {
		struct keep_entry *e = &k->entries[k->order[i]];

		if (e->session == session && e->seq > seq)
			break; /* those behind it are later still */
		if (e->session != session) {
			k->order[kept++] = k->order[i];
			continue;
		}
		__atomic_store_n(&e->used, 0, __ATOMIC_RELEASE);
		k->unused[k->nunused++] = k->order[i];
	}
	if (kept == i)
		return;
	memmove(k->order + kept, k->order + i, (k->n - i) * sizeof(*k->order));
	k->n -= i - kept;
	settle(k);
}
