// SPDX-License-Identifier: BSD-2-Clause
/* qemu_ram: find a QEMU's memory. See qemu_ram.h; qemu_compare.c compares two. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "qemu_ram.h"

#define RECIPE                                                                           \
	"-object memory-backend-memfd,id=mem,size=SIZE,share=on -machine "               \
	"memory-backend=mem"

struct find {
	struct qmp *q;
	pid_t pid;
	struct qemu_ram *r;
	struct qemu_range range[QEMU_MAX_RANGES];
	unsigned int nranges;
	char *why;
	size_t why_len;
};

#define fail(f, err, ...) (snprintf((f)->why, (f)->why_len, __VA_ARGS__), (err))

/* The region's name is the backend's id or its path. */
static bool is_backend(const char *region, const char *id)
{
	if (!strncmp(region, "/objects/", 9))
		region += 9;
	return !strcmp(region, id);
}

/* ---- monitor ------------------------------------------------------------------------
 */

/* The object behind the id. Return: 0, -errno */
static int backend_type(struct find *f, const char *id, char *type, size_t len)
{
	char path[QEMU_NAME_MAX + 16];
	json_t *ret;
	int err;

	snprintf(path, sizeof(path), "/objects/%s", id);
	err = qmp_call(f->q, "qom-get",
		       json_pack("{s:s, s:s}", "path", path, "property", "type"), &ret);
	if (err)
		return fail(f, err, "%s", qmp_error(f->q));
	snprintf(type, len, "%s",
		 json_string_value(ret) ? json_string_value(ret) : "something");
	json_decref(ret);
	return 0;
}

static int add_backend(struct find *f, const json_t *dev)
{
	const char *id = json_string_value(json_object_get(dev, "id"));
	json_int_t size = json_integer_value(json_object_get(dev, "size"));
	const char *who = qmp_name(f->q);
	struct qemu_backend *b;
	char type[64];
	int err;

	if (!id || !*id || strlen(id) >= QEMU_NAME_MAX || size <= 0 ||
	    size % (json_int_t)RAM_PAGE_SIZE)
		return fail(f, -EPROTO, "%s: query-memdev: a backend without id or size",
			    who);
	if (f->r->nbackends == QEMU_MAX_BACKENDS)
		return fail(f, -ENOSPC, "%s: more than %d memory backends", who,
			    QEMU_MAX_BACKENDS);
	err = backend_type(f, id, type, sizeof(type));
	if (err)
		return err;
	if (strcmp(type, "memory-backend-memfd") != 0 ||
	    !json_is_true(json_object_get(dev, "share")))
		return fail(f, -EOPNOTSUPP,
			    "%s: RAM \"%s\" is %s%s, and not a shared memfd; start QEMU "
			    "with " RECIPE,
			    who, id, type,
			    json_is_true(json_object_get(dev, "share"))
				    ? ""
				    : " without share=on");
	b = &f->r->backend[f->r->nbackends++];
	*b = (struct qemu_backend){ .size = (uint64_t)size, .fd = -1 };
	strcpy(b->id, id);
	return 0;
}

static int find_backends(struct find *f)
{
	json_t *ret, *dev;
	size_t i;
	int err = qmp_call(f->q, "query-memdev", NULL, &ret);

	if (err)
		return fail(f, err, "%s", qmp_error(f->q));
	json_array_foreach(ret, i, dev)
	{
		err = add_backend(f, dev);
		if (err)
			break;
	}
	json_decref(ret);
	if (!err && !f->r->nbackends)
		return fail(f, -EOPNOTSUPP,
			    "%s: no memory backend; start QEMU with " RECIPE,
			    qmp_name(f->q));
	return err;
}

static int find_ranges(struct find *f)
{
	char *text;
	int n, err = qmp_hmp(f->q, "info mtree -f", &text);

	if (err)
		return fail(f, err, "%s", qmp_error(f->q));
	n = qemu_parse_mtree(text, f->range, QEMU_MAX_RANGES);
	free(text);
	if (n < 0)
		return fail(f, n, "%s: cannot read \"info mtree -f\" of QEMU %u.%u",
			    qmp_name(f->q), qmp_version(f->q) / 1000000,
			    qmp_version(f->q) / 1000 % 1000);
	f->nranges = (unsigned int)n;
	return 0;
}

/* Where QEMU has mapped byte 0 of the backend. Return: 0; 1: no device has it; -errno */
static int find_hva(struct find *f, const struct qemu_backend *b, uint64_t *hva)
{
	const struct qemu_range *r = NULL;
	char cmd[64], *text;
	int err;

	for (unsigned int i = 0; i < f->nranges && !r; i++)
		if (is_backend(f->range[i].name, b->id))
			r = &f->range[i];
	if (!r)
		return 1;
	snprintf(cmd, sizeof(cmd), "gpa2hva 0x%" PRIx64, r->gpa);
	err = qmp_hmp(f->q, cmd, &text);
	if (err)
		return fail(f, err, "%s", qmp_error(f->q));
	err = qemu_parse_hva(text, hva);
	if (err || *hva < r->offset)
		err = fail(f, -EBADMSG, "%s: gpa2hva: %s", qmp_name(f->q), text);
	free(text);
	if (!err)
		*hva -= r->offset;
	return err;
}

/* ---- /proc --------------------------------------------------------------------------
 */

static int find_map(struct find *f, uint64_t hva, struct qemu_map *m)
{
	char path[64], *line = NULL;
	size_t room = 0;
	int err = -ENOENT;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)f->pid);
	maps = fopen(path, "re");
	if (!maps)
		return fail(f, -errno, "%s: %s: %s; is QEMU on this machine?",
			    qmp_name(f->q), path, strerror(errno));
	while (err && getline(&line, &room, maps) > 0)
		if (!qemu_parse_map(line, m) && m->start <= hva && hva < m->end)
			err = 0;
	free(line);
	fclose(maps);
	if (err || !m->memfd || !m->shared)
		return fail(f, err ? err : -EOPNOTSUPP,
			    "%s: process %d does not have the RAM that its monitor "
			    "speaks of; name QEMU's own with --pid or --dest-pid",
			    qmp_name(f->q), (int)f->pid);
	return 0;
}

/* Any descriptor of the process for that file. Return: a new one of ours, -errno */
static int open_map(struct find *f, const struct qemu_map *m)
{
	char path[64], file[384];
	int err = -ENOENT, fd = -1;
	const struct dirent *e;
	struct stat st;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)f->pid);
	d = opendir(path);
	if (!d)
		return fail(f, -errno, "%s: %s: %s; run this as QEMU's user, or root",
			    qmp_name(f->q), path, strerror(errno));
	while (fd < 0 && (e = readdir(d))) {
		snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
		if (e->d_name[0] == '.' || stat(file, &st) || st.st_ino != m->inode ||
		    major(st.st_dev) != m->dev_major || minor(st.st_dev) != m->dev_minor)
			continue;
		fd = open(file, O_RDONLY | O_CLOEXEC);
		err = fd < 0 ? -errno : 0;
	}
	closedir(d);
	if (fd < 0)
		return fail(f, err, "%s: cannot open the memfd of its RAM: %s",
			    qmp_name(f->q), strerror(-err));
	return fd;
}

/* Return: as find_hva() */
static int open_backend(struct find *f, struct qemu_backend *b)
{
	struct qemu_map m;
	struct stat st;
	uint64_t hva;
	int err = find_hva(f, b, &hva);

	if (!err)
		err = find_map(f, hva, &m);
	if (err)
		return err;
	b->fd_offset = m.offset + (hva - m.start);
	b->fd = open_map(f, &m);
	if (b->fd < 0)
		return b->fd;
	if (fstat(b->fd, &st) || b->fd_offset > (uint64_t)st.st_size ||
	    (uint64_t)st.st_size - b->fd_offset < b->size)
		return fail(f, -EBADMSG, "%s: the memfd of RAM \"%s\" is too small",
			    qmp_name(f->q), b->id);
	return 0;
}

/* ---- guest-physical addresses ---------------------------------------------------------
 */

/*
 * Ranges of a backend at the same distance from their addresses are one block: what
 * lies between (the VGA window below 1 MiB) is memory that the guest may have written
 * before it was hidden.
 */
static int add_block(struct find *f, unsigned int backend, unsigned int first)
{
	const struct qemu_backend *b = &f->r->backend[backend];
	const struct qemu_range *r = &f->range[first], *last = r;
	uint64_t size;
	void *at;
	int err;

	for (unsigned int i = first + 1; i < f->nranges; i++)
		if (is_backend(f->range[i].name, b->id) &&
		    f->range[i].gpa - f->range[i].offset == r->gpa - r->offset)
			last = &f->range[i];
	size = last->gpa + last->size - r->gpa;
	if (r->offset > b->size || size > b->size - r->offset ||
	    (r->gpa | r->offset | size) % RAM_PAGE_SIZE)
		return fail(f, -EBADMSG, "%s: RAM \"%s\" reaches beyond its end",
			    qmp_name(f->q), b->id);
	at = mmap(NULL, size, PROT_READ, MAP_SHARED, b->fd,
		  (off_t)(b->fd_offset + r->offset));
	if (at == MAP_FAILED)
		return fail(f, -errno, "%s: cannot map its RAM: %s", qmp_name(f->q),
			    strerror(errno));
	err = ram_adopt(&f->r->ram, r->gpa, size, at, b->fd, b->fd_offset + r->offset);
	if (err) {
		munmap(at, size);
		return fail(f, err, "%s: its RAM is in too many pieces", qmp_name(f->q));
	}
	f->r->ram_backend[f->r->ram.nblocks - 1] = backend;
	f->r->ram_offset[f->r->ram.nblocks - 1] = r->offset;
	return 0;
}

static int find_blocks(struct find *f)
{
	int err = 0;

	for (unsigned int i = 0; i < f->nranges && !err; i++) {
		const struct ram *ram = &f->r->ram;

		if (ram->nblocks &&
		    f->range[i].gpa < ram->block[ram->nblocks - 1].gpa +
					      ram->block[ram->nblocks - 1].size)
			continue; /* in that block already */
		for (unsigned int k = 0; k < f->r->nbackends && !err; k++)
			if (is_backend(f->range[i].name, f->r->backend[k].id))
				err = add_block(f, k, i);
	}
	return err;
}

int qemu_ram_find(struct qmp *q, pid_t pid, struct qemu_ram *r, char *why, size_t why_len)
{
	struct find f = { .q = q, .pid = pid, .r = r, .why = why, .why_len = why_len };
	int err;

	memset(r, 0, sizeof(*r));
	ram_init(&r->ram);
	if (pid <= 0)
		return fail(&f, -ESRCH,
			    "%s: QEMU is not on this machine, so its RAM cannot be read",
			    qmp_name(q));
	err = find_backends(&f);
	if (!err)
		err = find_ranges(&f);
	for (unsigned int i = 0; i < r->nbackends && !err;) {
		err = open_backend(&f, &r->backend[i]);
		if (err == 1) {
			/* Neither used nor migrated. */
			r->backend[i] = r->backend[--r->nbackends];
			err = 0;
			continue;
		}
		i++;
	}
	if (!err)
		err = find_blocks(&f);
	if (err)
		qemu_ram_fini(r);
	return err;
}

void qemu_ram_fini(struct qemu_ram *r)
{
	for (unsigned int i = 0; i < r->ram.nblocks; i++)
		munmap(r->ram.block[i].hva, r->ram.block[i].size);
	ram_fini(&r->ram);
	for (unsigned int i = 0; i < r->nbackends; i++)
		if (r->backend[i].fd >= 0)
			close(r->backend[i].fd);
	memset(r, 0, sizeof(*r));
}
