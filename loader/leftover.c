// SPDX-License-Identifier: BSD-2-Clause
/*
 * leftover: dispatchers of libxdp that nothing runs any more.
 *
 * libxdp pins each dispatcher's links and programs in BPFFS/xdp/dispatch-IFINDEX-ID
 * before it attaches the dispatcher, and unpins the old one afterwards. A process
 * killed between, or an interface that vanished, leaves such a directory, and with
 * it our program and its maps, in memory.
 *
 * Interface numbers repeat in every network namespace, so a directory whose number
 * is not in use here may be in use elsewhere. Only those are removed which hold a
 * program that uses a map of the pins at hand: this attach, and no other, made it.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "xdp.h"

#define MAX_MAPS 16

static bool same_map(uint32_t id, const struct pin_ids *ids)
{
	return id && (id == ids->xsks || id == ids->instances || id == ids->counters ||
		      id == ids->config || id == ids->stream);
}

static bool prog_uses(int fd, const struct pin_ids *ids)
{
	uint32_t map[MAX_MAPS] = { 0 }, i;
	struct bpf_prog_info info = {
		.nr_map_ids = MAX_MAPS,
		.map_ids = (uint64_t)(uintptr_t)map,
	};
	uint32_t len = sizeof(info);

	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		return false;
	for (i = 0; i < info.nr_map_ids && i < MAX_MAPS; i++)
		if (same_map(map[i], ids))
			return true;
	return false;
}

bool xdp_maps_used(const struct pin_ids *ids)
{
	uint32_t id = 0;
	bool uses;
	int fd, err;

	while (!(err = bpf_prog_get_next_id(id, &id))) {
		fd = bpf_prog_get_fd_by_id(id);
		if (fd < 0)
			continue;
		uses = prog_uses(fd, ids);
		close(fd);
		if (uses)
			return true;
	}
	return err != -ENOENT;
}

/* A pin in a dispatcher's directory: a program, or a link to one. */
static bool pin_uses(const char *path, const struct pin_ids *ids)
{
	struct bpf_link_info info = { 0 };
	uint32_t len = sizeof(info);
	bool uses = false;
	int fd, prog;

	fd = bpf_obj_get(path);
	if (fd < 0)
		return false;
	if (strstr(path, "-link")) {
		if (!bpf_obj_get_info_by_fd(fd, &info, &len)) {
			prog = bpf_prog_get_fd_by_id(info.prog_id);
			if (prog >= 0) {
				uses = prog_uses(prog, ids);
				close(prog);
			}
		}
	} else {
		uses = prog_uses(fd, ids);
	}
	close(fd);
	return uses;
}

static bool dir_uses(const char *dir, const struct pin_ids *ids, bool *empty)
{
	char path[BPFFS_MAX + 128];
	struct dirent *e;
	bool uses = false;
	DIR *d = opendir(dir);

	*empty = true;
	while (d && !uses && (e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		*empty = false;
		if (snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) <
		    (int)sizeof(path))
			uses = pin_uses(path, ids);
	}
	if (d)
		closedir(d);
	return uses;
}

static bool prog_exists(uint32_t id)
{
	int fd = bpf_prog_get_fd_by_id(id);

	if (fd >= 0)
		close(fd);
	return fd != -ENOENT;
}

static int remove_dir(const char *dir)
{
	struct dirent *e;
	DIR *d = opendir(dir);

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd(d), e->d_name, 0);
	if (d)
		closedir(d);
	return rmdir(dir) ? -errno : 0;
}

int xdp_clean_leftovers(const char *bpffs, const struct pin_ids *ids,
			unsigned int ifindex)
{
	const char *root = getenv(XDP_BPFFS_ENVVAR);
	char base[BPFFS_MAX], dir[BPFFS_MAX + 64];
	unsigned int nr, id;
	LIBBPF_OPTS(bpf_xdp_query_opts, q);
	struct dirent *e;
	int n = 0;
	DIR *d;

	if (snprintf(base, sizeof(base), "%s/xdp", root ? root : bpffs) >=
	    (int)sizeof(base))
		return 0;
	d = opendir(base);
	if (!d)
		return 0;
	/* libxdp's own lock: a tool may be building a dispatcher just now. */
	while (flock(dirfd(d), LOCK_EX) && errno == EINTR)
		;
	if (ifindex && bpf_xdp_query((int)ifindex, 0, &q))
		goto out;
	while ((e = readdir(d))) {
		bool empty;

		/* libxdp pins this and unpins it, to see that it can, under its lock. */
		if (!strncmp(e->d_name, "prog-test-link-", 15)) {
			n += !unlinkat(dirfd(d), e->d_name, 0);
			continue;
		}
		if (sscanf(e->d_name, "dispatch-%u-%u", &nr, &id) != 2 ||
		    id == q.drv_prog_id || id == q.skb_prog_id || id == q.hw_prog_id ||
		    snprintf(dir, sizeof(dir), "%s/%s", base, e->d_name) >=
			    (int)sizeof(dir))
			continue;
		if (!dir_uses(dir, ids, &empty) && !(empty && !prog_exists(id)))
			continue;
		if (!remove_dir(dir))
			n++;
	}
out:
	closedir(d);
	return n;
}
