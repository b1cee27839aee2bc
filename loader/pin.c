// SPDX-License-Identifier: BSD-2-Clause
/*
 * pin: pins of one interface. See pin.h.
 */
#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pin.h"

#define PIN_PATH_MAX (BPFFS_MAX + 64)

int pin_lock(const char *bpffs, int *fd)
{
	char path[PIN_PATH_MAX];
	int f, err;

	snprintf(path, sizeof(path), "%s/ghostnic", bpffs);
	if (mkdir(path, 0700) && errno != EEXIST)
		return -errno;
	f = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (f < 0)
		return -errno;
	while (flock(f, LOCK_EX)) {
		if (errno == EINTR)
			continue;
		err = -errno;
		close(f);
		return err;
	}
	*fd = f;
	return 0;
}

bool pin_exists(const char *bpffs, const char *ifname)
{
	char path[PIN_PATH_MAX];
	struct stat st;

	return !bpffs_pin_path(path, sizeof(path), bpffs, ifname, NULL) &&
	       !stat(path, &st) && S_ISDIR(st.st_mode);
}

int pin_create(const char *bpffs, const char *ifname, const struct pin_state *st)
{
	char path[PIN_PATH_MAX];
	uint32_t key = 0;
	int fd, err;

	err = bpffs_pin_path(path, sizeof(path), bpffs, ifname, NULL);
	if (err)
		return err;
	fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, "ghostnic_state", sizeof(key),
			    sizeof(*st), 1, NULL);
	if (fd < 0)
		return fd;
	err = bpf_map_update_elem(fd, &key, st, BPF_ANY);
	if (!err && mkdir(path, 0700))
		err = -errno;
	if (!err)
		err = bpffs_pin_path(path, sizeof(path), bpffs, ifname, PIN_STATE);
	if (!err)
		err = bpf_obj_pin(fd, path);
	close(fd);
	return err;
}

int pin_open(const char *bpffs, const char *ifname, const char *map)
{
	char path[PIN_PATH_MAX];
	int err = bpffs_pin_path(path, sizeof(path), bpffs, ifname, map);

	return err ? err : bpf_obj_get(path);
}

int pin_read_state(const char *bpffs, const char *ifname, struct pin_state *st)
{
	int fd = pin_open(bpffs, ifname, PIN_STATE), err;

	if (fd < 0)
		return fd;
	err = pin_state_read(fd, st);
	close(fd);
	return err;
}

int pin_write_state(const char *bpffs, const char *ifname, const struct pin_state *st)
{
	int fd = pin_open(bpffs, ifname, PIN_STATE), err;
	uint32_t key = 0;

	if (fd < 0)
		return fd;
	err = bpf_map_update_elem(fd, &key, st, BPF_ANY);
	close(fd);
	return err;
}

static uint32_t map_id(const char *bpffs, const char *ifname, const char *map)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);
	int fd = pin_open(bpffs, ifname, map);

	if (fd < 0)
		return 0;
	if (bpf_obj_get_info_by_fd(fd, &info, &len))
		info.id = 0;
	close(fd);
	return info.id;
}

void pin_read_ids(const char *bpffs, const char *ifname, struct pin_ids *ids)
{
	ids->xsks = map_id(bpffs, ifname, BPFFS_XSKS);
	ids->instances = map_id(bpffs, ifname, BPFFS_INSTANCES);
	ids->counters = map_id(bpffs, ifname, BPFFS_COUNTERS);
	ids->config = map_id(bpffs, ifname, BPFFS_CONFIG);
	ids->stream = map_id(bpffs, ifname, BPFFS_STREAM);
}

bool pin_complete(const struct pin_ids *ids)
{
	return ids->xsks && ids->instances && ids->counters && ids->config && ids->stream;
}

int pin_remove(const char *bpffs, const char *ifname)
{
	char path[PIN_PATH_MAX];
	struct dirent *e;
	int err, fd;
	DIR *d;

	err = bpffs_pin_path(path, sizeof(path), bpffs, ifname, NULL);
	if (err)
		return err;
	d = opendir(path);
	if (!d)
		return errno == ENOENT ? 0 : -errno;
	fd = dirfd(d);
	while ((e = readdir(d)))
		if (e->d_name[0] != '.' && strcmp(e->d_name, PIN_STATE) &&
		    unlinkat(fd, e->d_name, 0) && errno != ENOENT)
			err = -errno;
	if (!err && unlinkat(fd, PIN_STATE, 0) && errno != ENOENT)
		err = -errno;
	closedir(d);
	if (!err && rmdir(path) && errno != ENOENT)
		err = -errno;
	return err;
}

int pin_rename(const char *bpffs, const char *from, const char *to)
{
	char old[PIN_PATH_MAX], new[PIN_PATH_MAX];
	int err;

	err = bpffs_pin_path(old, sizeof(old), bpffs, from, NULL);
	if (!err)
		err = bpffs_pin_path(new, sizeof(new), bpffs, to, NULL);
	if (!err && renameat2(AT_FDCWD, old, AT_FDCWD, new, RENAME_EXCHANGE) &&
	    (errno != ENOENT || rename(old, new)))
		err = -errno;
	return err;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int pin_list(const char *bpffs, char ***names)
{
	char path[PIN_PATH_MAX], **list = calloc(1, sizeof(*list)), **l;
	struct dirent *e;
	int n = 0;
	DIR *d;

	if (!list)
		return -ENOMEM;
	snprintf(path, sizeof(path), "%s/ghostnic", bpffs);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		l = realloc(list, ((size_t)n + 2) * sizeof(*list));
		if (l)
			list = l;
		if (!l || !(list[n] = strdup(e->d_name))) {
			closedir(d);
			pin_list_free(list);
			return -ENOMEM;
		}
		list[++n] = NULL;
	}
	if (d)
		closedir(d);
	qsort(list, (size_t)n, sizeof(*list), by_name);
	*names = list;
	return n;
}

void pin_list_free(char **names)
{
	char **n;

	for (n = names; n && *n; n++)
		free(*n);
	free(names);
}
