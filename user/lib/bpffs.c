// SPDX-License-Identifier: BSD-2-Clause
/*
 * bpffs: find or mount the file system of pinned maps. See bpffs.h.
 *
 * Paths are tried by statfs(): the magic number is the only thing that tells a
 * mounted bpffs from an empty directory on sysfs.
 */
#include <dirent.h>
#include <errno.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "bpffs.h"

bool bpffs_is(const char *path)
{
	struct statfs st;
	struct stat sb;

	if (stat(path, &sb) || !S_ISDIR(sb.st_mode))
		return false;
	return statfs(path, &st) == 0 && st.f_type == BPF_FS_MAGIC;
}

static int put(char *buf, size_t size, const char *path)
{
	size_t len = strlen(path);

	while (len > 1 && path[len - 1] == '/')
		len--;
	if (len >= size || len >= BPFFS_MAX)
		return -ENAMETOOLONG;
	memmove(buf, path, len);
	buf[len] = '\0';
	return 0;
}

/* Pins that an attach left while BPFFS_SYSTEM was not mounted stay findable
 * after somebody mounted it. */
static bool own_in_use(void)
{
	struct dirent *e;
	bool used = false;
	DIR *d;

	if (!bpffs_is(BPFFS_OWN))
		return false;
	d = opendir(BPFFS_OWN "/ghostnic");
	if (!d)
		return false;
	while (!used && (e = readdir(d)))
		used = e->d_name[0] != '.';
	closedir(d);
	return used;
}

static int mount_own(void)
{
	if (mkdir("/run/ghostnic", 0755) && errno != EEXIST)
		return -errno;
	if (mkdir(BPFFS_OWN, 0700) && errno != EEXIST)
		return -errno;
	if (bpffs_is(BPFFS_OWN))
		return 0;
	if (mount("bpffs", BPFFS_OWN, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC,
		  "mode=0700"))
		return -errno;
	return 0;
}

int bpffs_dir(const char *override, char *buf, size_t size)
{
	const char *named = override && *override ? override : getenv(BPFFS_ENV);
	int err;

	if (named && *named)
		return bpffs_is(named) ? put(buf, size, named) : -EINVAL;
	if (own_in_use())
		return put(buf, size, BPFFS_OWN);
	if (bpffs_is(BPFFS_SYSTEM))
		return put(buf, size, BPFFS_SYSTEM);
	err = mount_own();
	return err ? err : put(buf, size, BPFFS_OWN);
}

const char *bpffs_remedy(int err)
{
	switch (err) {
	case -EINVAL:
		return "--bpffs or " BPFFS_ENV " names no bpffs; "
		       "mount one there: mount -t bpf bpf DIRECTORY";
	case -EPERM:
	case -EACCES:
		return "no bpffs is mounted and mounting one needs CAP_SYS_ADMIN; "
		       "run as root, or: sudo mount -t bpf bpf " BPFFS_SYSTEM;
	case -ENODEV: return "the kernel has no bpffs; it needs CONFIG_BPF_SYSCALL";
	case -ENAMETOOLONG:
		return "the path of the bpffs is too long; choose a shorter one";
	default:
		return "cannot mount a bpffs on " BPFFS_OWN "; "
		       "mount one and name it with --bpffs or " BPFFS_ENV;
	}
}

int bpffs_pin_path(char *buf, size_t size, const char *bpffs, const char *ifname,
		   const char *map)
{
	char path[2 * BPFFS_MAX];
	int n;

	if (!*ifname || strchr(ifname, '/') || !strcmp(ifname, ".") ||
	    !strcmp(ifname, ".."))
		return -EINVAL;
	n = snprintf(path, sizeof(path), "%s/ghostnic/%s%s%s", bpffs, ifname,
		     map ? "/" : "", map ? map : "");
	if (n < 0 || (size_t)n >= sizeof(path) || (size_t)n >= size)
		return -ENAMETOOLONG;
	memcpy(buf, path, (size_t)n + 1);
	return 0;
}
