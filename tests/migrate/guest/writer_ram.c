// SPDX-License-Identifier: BSD-2-Clause
/*
 * writer_ram: is a write missing in the RAM of writer.S's guest? Reads memfds; knows
 * nothing of vm-migrate.
 *
 *	writer_ram HOT 0 RAM		what its first counter says, of one that runs
 *	writer_ram HOT PAGES RAM	is each of its counters where it has to be?
 *	writer_ram HOT PAGES SRC DST	and is DST what SRC has become by counting on?
 *
 * RAM, SRC, DST: FILE[,FILE], that of the guest-physical addresses from 0 on, one after the
 * other. HOT and PAGES are those of the guest, which has to be paused. Exit status 0: yes,
 * 1: no, 2: this could not be told.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096u
#define LAST (PAGE / 4 - 1)

struct file {
	int fd;
	uint64_t size;
};

struct ram {
	struct file file[2];
	uint64_t size;
};

struct hot {
	uint64_t at, pages;
};

static void cannot(const char *what)
{
	fprintf(stderr, "writer_ram: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void ram_open(struct ram *r, char *names)
{
	unsigned int n = 0;

	memset(r, 0, sizeof(*r));
	for (char *name = strtok(names, ","); name; name = strtok(NULL, ",")) {
		struct stat st;

		errno = E2BIG;
		if (n == 2)
			cannot(name);
		r->file[n].fd = open(name, O_RDONLY | O_CLOEXEC);
		if (r->file[n].fd < 0 || fstat(r->file[n].fd, &st))
			cannot(name);
		r->file[n].size = (uint64_t)st.st_size;
		r->size += r->file[n++].size;
	}
}

/* The file of @addr, which becomes an offset there. */
static const struct file *file_of(const struct ram *r, uint64_t *addr)
{
	if (*addr < r->file[0].size)
		return &r->file[0];
	*addr -= r->file[0].size;
	return &r->file[1];
}

static void page_read(const struct ram *r, uint64_t addr, uint32_t *page)
{
	const struct file *f = file_of(r, &addr);

	errno = EIO;
	if (pread(f->fd, page, PAGE, (off_t)addr) != (ssize_t)PAGE)
		cannot("read");
}

static bool is_hole(const struct ram *r, uint64_t addr)
{
	const struct file *f = file_of(r, &addr);
	off_t data = lseek(f->fd, (off_t)addr, SEEK_DATA);

	return data < 0 ? errno == ENXIO : (uint64_t)data >= addr + PAGE;
}

/* Counters are what the first says, up to one place, and one less from there on. */
static uint64_t count_bad(const struct ram *r, const struct hot *h, const char *whose)
{
	uint32_t page[PAGE / 4], first = 0, previous = 0;
	uint64_t bad = 0;

	for (uint64_t i = 0; i < 2 * h->pages; i++) {
		uint32_t v;

		page_read(r, h->at + i / 2 * PAGE, page);
		v = page[i % 2 ? LAST : 0];
		if (!i)
			first = previous = v;
		if (v == previous || (v == first - 1 && previous == first)) {
			previous = v;
			continue;
		}
		if (!bad++)
			printf("%s: counter %llu is %u, the first %u, the one before "
			       "%u\n",
			       whose, (unsigned long long)i, v, first, previous);
	}
	printf("%s: at %u\n", whose, first);
	return bad + !first;
}

static bool page_same(const struct hot *h, uint64_t addr, uint32_t *s, uint32_t *d)
{
	if (addr < h->at || addr >= h->at + h->pages * PAGE)
		return !memcmp(s, d, PAGE);
	return d[0] - s[0] < 1u << 31 && d[LAST] - s[LAST] < 1u << 31 &&
	       !memcmp(s + 1, d + 1, PAGE - 8);
}

static uint64_t compare(const struct ram *src, const struct ram *dst, const struct hot *h)
{
	uint32_t s[PAGE / 4], d[PAGE / 4];
	uint64_t bad = 0, pages = 0;

	errno = EINVAL;
	if (src->size != dst->size)
		cannot("sizes differ");
	for (uint64_t a = 0; a < src->size; a += PAGE) {
		if (is_hole(src, a) && is_hole(dst, a))
			continue;
		pages++;
		page_read(src, a, s);
		page_read(dst, a, d);
		if (!page_same(h, a, s, d) && !bad++)
			printf("the first page that differs: 0x%llx\n",
			       (unsigned long long)a);
	}
	printf("%llu of %llu pages differ\n", (unsigned long long)bad,
	       (unsigned long long)pages);
	return bad;
}

int main(int argc, char **argv)
{
	struct ram src, dst;
	struct hot h;
	uint64_t bad;

	if (argc < 4 || argc > 5) {
		fprintf(stderr, "usage: writer_ram HOT PAGES SRC [DST]\n");
		return 2;
	}
	h = (struct hot){ strtoull(argv[1], NULL, 0), strtoull(argv[2], NULL, 0) };
	ram_open(&src, argv[3]);
	if (!h.pages) {
		uint32_t page[PAGE / 4];

		page_read(&src, h.at, page);
		printf("%u\n", page[0]);
		return 0;
	}
	bad = count_bad(&src, &h, argc > 4 ? "source" : "RAM");
	if (argc > 4) {
		ram_open(&dst, argv[4]);
		bad += count_bad(&dst, &h, "destination");
		bad += compare(&src, &dst, &h);
	}
	return bad > 0;
}
