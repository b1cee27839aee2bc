// SPDX-License-Identifier: BSD-2-Clause
/* qemu_parse: see qemu_parse.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qemu_parse.h"

#define MEMORY_AS "AS \"memory\""

/* The line at *text, without its end, cut to @len - 1; *text goes behind it. */
static bool next_line(const char **text, char *line, size_t len)
{
	size_t n = strcspn(*text, "\r\n"), keep = n < len ? n : len - 1;

	if (!**text)
		return false;
	memcpy(line, *text, keep);
	line[keep] = '\0';
	*text += n;
	if (**text == '\r')
		(*text)++;
	if (**text == '\n')
		(*text)++;
	return true;
}

/* A hexadecimal number at *s, which goes behind it. */
static bool hex(const char **s, uint64_t *v)
{
	char *end;
	const char *p = *s;

	/* No sign, no blanks: strtoull() takes both. */
	if (!((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'f') ||
	      (*p >= 'A' && *p <= 'F')))
		return false;
	errno = 0;
	*v = strtoull(p, &end, 16);
	*s = end;
	return !errno;
}

static bool skip(const char **s, const char *what)
{
	size_t n = strlen(what);

	if (strncmp(*s, what, n) != 0)
		return false;
	*s += n;
	return true;
}

/* "  START-END (prio 0, ram): NAME[ @OFFSET][ KVM]". Return: is it RAM or ROM? */
static bool range(const char *s, struct qemu_range *r)
{
	uint64_t first, last;
	const char *kind, *at;
	size_t n;

	s += strspn(s, " ");
	if (!hex(&s, &first) || !skip(&s, "-") || !hex(&s, &last) ||
	    !skip(&s, " (prio ") || last < first || last - first == UINT64_MAX)
		return false;
	kind = strchr(s, ',');
	if (!kind || !(skip(&kind, ", ram): ") || skip(&kind, ", rom): ")))
		return false;
	at = strstr(kind, " @");
	n = at ? (size_t)(at - kind) : strcspn(kind, " ");
	if (!n || n >= sizeof(r->name))
		return false;
	memcpy(r->name, kind, n);
	r->name[n] = '\0';
	r->gpa = first;
	r->size = last - first + 1;
	r->offset = 0;
	if (at) {
		at += 2;
		if (!hex(&at, &r->offset) || r->offset > UINT64_MAX - r->size)
			return false;
	}
	return true;
}

int qemu_parse_mtree(const char *text, struct qemu_range *r, unsigned int max)
{
	bool view = false, wanted = false;
	unsigned int n = 0;
	char line[512];

	while (next_line(&text, line, sizeof(line))) {
		if (!strncmp(line, "FlatView #", 10)) {
			if (wanted)
				break;
			view = true;
			continue;
		}
		if (view && strstr(line, MEMORY_AS)) {
			wanted = true;
			continue;
		}
		if (!wanted)
			continue;
		if (n == max)
			return -ENOSPC;
		if (!range(line, &r[n]))
			continue;
		if (n && r[n].gpa < r[n - 1].gpa + r[n - 1].size)
			return -EBADMSG;
		n++;
	}
	return n ? (int)n : -EBADMSG;
}

int qemu_parse_hva(const char *text, uint64_t *hva)
{
	const char *p = strstr(text, " is 0x");

	if (strncmp(text, "Host virtual address", 20) != 0 || !p)
		return -EBADMSG;
	p += 6;
	return hex(&p, hva) && *hva ? 0 : -EBADMSG;
}

/* "NAME  4 KiB  0xOFFSET 0xUSED 0xTOTAL[ 0xHVA RO]"; names have no blanks */
static bool ramblock(const char *s, struct qemu_ramblock *b)
{
	uint64_t v[3];
	size_t n;

	s += strspn(s, " ");
	n = strcspn(s, " ");
	if (!n || n >= sizeof(b->name))
		return false;
	memcpy(b->name, s, n);
	b->name[n] = '\0';
	s = strstr(s + n, "iB ");
	if (!s)
		return false;
	s += 3;
	for (int i = 0; i < 3; i++) {
		s += strspn(s, " ");
		if (!skip(&s, "0x") || !hex(&s, &v[i]))
			return false;
	}
	b->used = v[1];
	b->total = v[2];
	return b->used <= b->total;
}

int qemu_parse_ramblocks(const char *text, struct qemu_ramblock *b, unsigned int max)
{
	unsigned int n = 0;
	char line[512];

	while (next_line(&text, line, sizeof(line))) {
		if (n == max)
			return -ENOSPC;
		if (ramblock(line, &b[n]))
			n++;
	}
	return n ? (int)n : -EBADMSG;
}

/* As mm/shmem.c and ipc/shm.c name them. */
static bool is_shmem(const char *path)
{
	static const char *const begin[] = { "/memfd:", "/dev/zero",	  "/dev/shm/",
					     "/SYSV",	"/anon_hugepage", "/run/shm/" };

	for (size_t i = 0; i < sizeof(begin) / sizeof(begin[0]); i++)
		if (!strncmp(path, begin[i], strlen(begin[i])))
			return true;
	return false;
}

int qemu_parse_map(const char *line, struct qemu_map *m)
{
	struct qemu_map got = { 0 };
	const char *s = line;
	uint64_t v;
	char perm[4];

	if (!hex(&s, &got.start) || !skip(&s, "-") || !hex(&s, &got.end) ||
	    !skip(&s, " ") || got.start >= got.end || strlen(s) < 5)
		return -EBADMSG;
	memcpy(perm, s, sizeof(perm));
	s += sizeof(perm);
	got.writable = perm[1] == 'w';
	got.shared = perm[3] == 's';
	if (!skip(&s, " ") || !hex(&s, &got.offset) || !skip(&s, " ") || !hex(&s, &v) ||
	    !skip(&s, ":"))
		return -EBADMSG;
	got.dev_major = (unsigned int)v;
	if (!hex(&s, &v) || !skip(&s, " ") || *s < '0' || *s > '9')
		return -EBADMSG;
	got.dev_minor = (unsigned int)v;
	got.inode = strtoull(s, NULL, 10);
	s += strcspn(s, " ");
	s += strspn(s, " ");
	got.memfd = !strncmp(s, "/memfd:", 7);
	got.shmem = is_shmem(s);
	*m = got;
	return 0;
}
