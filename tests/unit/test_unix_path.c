// SPDX-License-Identifier: BSD-2-Clause
/* unix_path: who may connect, what is replaced, what is not. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../user/lib/unix_path.h"

static char dir[64], path[80];

static int make_dir(void **state)
{
	strcpy(dir, "/tmp/test_unix_path.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/s", dir);
	return 0;
}

static int remove_dir(void **state)
{
	unlink(path);
	return rmdir(dir);
}

static int serve(mode_t mode)
{
	return unix_listen(path, SOCK_STREAM | SOCK_NONBLOCK, mode, 1);
}

static void check_mode(mode_t asked, mode_t want)
{
	mode_t mask = umask(0);
	struct stat st, parent;
	int fd = serve(asked);

	assert_int_equal(umask(mask), 0);
	assert_true(fd >= 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode, S_IFSOCK | want);
	assert_int_equal(stat(dir, &parent), 0);
	if (parent.st_mode & S_ISGID)
		assert_int_equal(st.st_gid, parent.st_gid);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
	close(fd);
}

static void test_mode(void **state)
{
	check_mode(0660, 0660);
	check_mode(UNIX_MODE_DIR, 0600);
	/* Another group can be given by root only. */
	if (!geteuid())
		assert_int_equal(chown(dir, (uid_t)-1, 1), 0);
	check_mode(UNIX_MODE_DIR, 0600);
	assert_int_equal(chmod(dir, 02750), 0);
	check_mode(UNIX_MODE_DIR, 0660);
	check_mode(0600, 0600);
}

static void test_replaces_dead_only(void **state)
{
	char data[2] = { 0 };
	int fd = serve(0600), file;

	assert_true(fd >= 0);
	assert_int_equal(serve(0600), -EADDRINUSE);
	close(fd);
	fd = serve(0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(unlink(path), 0);
	file = open(path, O_CREAT | O_RDWR, 0600);
	assert_int_equal(write(file, "x", 1), 1);
	assert_int_equal(serve(0600), -EEXIST);
	assert_int_equal(pread(file, data, 2, 0), 1);
	assert_string_equal(data, "x");
	close(file);
}

static void test_connect(void **state)
{
	char name[200];
	int fd, far, near;

	assert_int_equal(unix_connect(path, SOCK_STREAM), -ENOENT);
	fd = serve(0600);
	assert_true(fd >= 0);
	near = unix_connect(path, SOCK_STREAM);
	assert_true(near >= 0);
	far = accept(fd, NULL, NULL);
	assert_true(far >= 0);
	assert_int_equal(write(near, "a", 1), 1);
	assert_int_equal(read(far, name, sizeof(name)), 1);
	close(near);
	close(far);
	close(fd);
	assert_int_equal(unix_connect(path, SOCK_STREAM), -ECONNREFUSED);
	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(unix_connect(name, SOCK_STREAM), -ENAMETOOLONG);
	assert_int_equal(unix_listen(name, SOCK_STREAM, 0600, 1), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_mode, make_dir, remove_dir),
		cmocka_unit_test_setup_teardown(test_replaces_dead_only, make_dir,
						remove_dir),
		cmocka_unit_test_setup_teardown(test_connect, make_dir, remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
