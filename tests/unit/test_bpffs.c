// SPDX-License-Identifier: BSD-2-Clause
/*
 * bpffs: which directory is chosen, and when one is mounted. With real mounts, in a
 * mount namespace of this process alone, and without root in a user namespace.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/lib/bpffs.h"

static bool can_mount;
static char buf[BPFFS_MAX];

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

static bool own_mounts(void)
{
	unsigned int uid = getuid();
	char map[32];

	if (unshare(CLONE_NEWNS | (uid ? CLONE_NEWUSER : 0)))
		return false;
	if (uid) {
		snprintf(map, sizeof(map), "0 %u 1", uid);
		if (!write_file("/proc/self/setgroups", "deny") ||
		    !write_file("/proc/self/uid_map", map))
			return false;
	}
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return false;
	/* Not every kernel lets a user namespace have a bpffs. */
	return !mount("bpf", "/tmp", "bpf", 0, NULL) && !umount("/tmp");
}

/* Neither of the two places has a bpffs; names are unset. */
static int bare(void **state)
{
	unsetenv(BPFFS_ENV);
	memset(buf, 'x', sizeof(buf));
	if (!can_mount)
		return 0;
	return mount("tmpfs", "/run", "tmpfs", 0, NULL) ||
	       mount("tmpfs", BPFFS_SYSTEM, "tmpfs", 0, NULL);
}

static int undo(void **state)
{
	if (can_mount) {
		umount2("/run", MNT_DETACH);
		umount2(BPFFS_SYSTEM, MNT_DETACH);
	}
	return 0;
}

static void need_mounts(void)
{
	if (!can_mount) {
		print_message("may not mount a bpffs here\n");
		skip();
	}
}

static void test_mounts_own(void **state)
{
	struct stat st;

	need_mounts();
	assert_false(bpffs_is(BPFFS_OWN));
	assert_int_equal(bpffs_dir(NULL, buf, sizeof(buf)), 0);
	assert_string_equal(buf, BPFFS_OWN);
	assert_true(bpffs_is(BPFFS_OWN));
	assert_int_equal(stat(BPFFS_OWN, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	/* A second call finds it and mounts nothing over it. */
	assert_int_equal(mkdir(BPFFS_OWN "/mark", 0700), 0);
	assert_int_equal(bpffs_dir("", buf, sizeof(buf)), 0);
	assert_string_equal(buf, BPFFS_OWN);
	assert_int_equal(access(BPFFS_OWN "/mark", F_OK), 0);
}

static void test_system(void **state)
{
	need_mounts();
	assert_int_equal(mount("bpf", BPFFS_SYSTEM, "bpf", 0, NULL), 0);
	assert_int_equal(bpffs_dir(NULL, buf, sizeof(buf)), 0);
	assert_string_equal(buf, BPFFS_SYSTEM);
	assert_false(bpffs_is(BPFFS_OWN));
	umount(BPFFS_SYSTEM);
}

/* The system's bpffs appears after an attach that had to do without. */
static void test_own_stays(void **state)
{
	need_mounts();
	assert_int_equal(bpffs_dir(NULL, buf, sizeof(buf)), 0);
	assert_int_equal(mount("bpf", BPFFS_SYSTEM, "bpf", 0, NULL), 0);
	assert_int_equal(mkdir(BPFFS_OWN "/ghostnic", 0700), 0);
	assert_int_equal(bpffs_dir(NULL, buf, sizeof(buf)), 0);
	assert_string_equal(buf, BPFFS_SYSTEM);
	assert_int_equal(mkdir(BPFFS_OWN "/ghostnic/eth0", 0700), 0);
	assert_int_equal(bpffs_dir(NULL, buf, sizeof(buf)), 0);
	assert_string_equal(buf, BPFFS_OWN);
	umount(BPFFS_SYSTEM);
}

static void test_named(void **state)
{
	need_mounts();
	assert_int_equal(mkdir("/run/a", 0700), 0);
	assert_int_equal(mkdir("/run/b", 0700), 0);
	assert_int_equal(mount("bpf", "/run/a", "bpf", 0, NULL), 0);
	assert_int_equal(mount("bpf", "/run/b", "bpf", 0, NULL), 0);
	setenv(BPFFS_ENV, "/run/a//", 1);
	assert_int_equal(bpffs_dir(NULL, buf, sizeof(buf)), 0);
	assert_string_equal(buf, "/run/a");
	assert_int_equal(bpffs_dir("/run/b", buf, sizeof(buf)), 0);
	assert_string_equal(buf, "/run/b");
	assert_int_equal(bpffs_dir("/run/b", buf, 6), -ENAMETOOLONG);
	assert_int_equal(bpffs_dir("/run/b", buf, 7), 0);
}

/* What was named and is no bpffs is refused, nothing else is taken for it. */
static void test_named_wrong(void **state)
{
	assert_int_equal(bpffs_dir("/tmp", buf, sizeof(buf)), -EINVAL);
	assert_int_equal(bpffs_dir("/nowhere", buf, sizeof(buf)), -EINVAL);
	setenv(BPFFS_ENV, "/proc/self/status", 1);
	assert_int_equal(bpffs_dir(NULL, buf, sizeof(buf)), -EINVAL);
	assert_int_equal(buf[0], 'x');
	assert_non_null(strstr(bpffs_remedy(-EINVAL), "mount -t bpf"));
}

static void test_pin_path(void **state)
{
	char path[64], small[32];

	assert_int_equal(bpffs_pin_path(path, sizeof(path), "/b", "eth0", BPFFS_XSKS), 0);
	assert_string_equal(path, "/b/ghostnic/eth0/xsks");
	assert_int_equal(bpffs_pin_path(path, sizeof(path), "/b", "eth0", NULL), 0);
	assert_string_equal(path, "/b/ghostnic/eth0");
	assert_int_equal(bpffs_pin_path(path, sizeof(path), "/b", "..", NULL), -EINVAL);
	assert_int_equal(bpffs_pin_path(path, sizeof(path), "/b", ".", NULL), -EINVAL);
	assert_int_equal(bpffs_pin_path(path, sizeof(path), "/b", "a/b", NULL), -EINVAL);
	assert_int_equal(bpffs_pin_path(path, sizeof(path), "/b", "", NULL), -EINVAL);
	assert_string_equal(path, "/b/ghostnic/eth0");
	/* 16 characters and the NUL do not fit 16 bytes. */
	assert_int_equal(bpffs_pin_path(small, 16, "/b", "eth0", NULL), -ENAMETOOLONG);
	assert_int_equal(bpffs_pin_path(small, 17, "/b", "eth0", NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_mounts_own, bare, undo),
		cmocka_unit_test_setup_teardown(test_system, bare, undo),
		cmocka_unit_test_setup_teardown(test_own_stays, bare, undo),
		cmocka_unit_test_setup_teardown(test_named, bare, undo),
		cmocka_unit_test_setup_teardown(test_named_wrong, bare, undo),
		cmocka_unit_test(test_pin_path),
	};

	can_mount = own_mounts();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
