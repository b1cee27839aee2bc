// SPDX-License-Identifier: BSD-2-Clause
/*
 * The vhost-user port's front ends: how they come and go, and what breaks ends one of
 * them only.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/daemon/vhost/port_vhost.h"
#include "../../user/lib/log.h"
#include "vhost_rig.h"

/* ---- what breaks ------------------------------------------------------------------ */

/* The port has hung up, said so in its counter, and takes the next front end. */
static void check_recovers(void)
{
	char c;

	front_pump(&vh.f);
	assert_int_equal(front_reply(&vh.f, &c, 1), 0);
	assert_int_equal(VH_STAT(faults), 1);
	assert_int_equal(vh.port->gso, 0);
	front_disconnect(&vh.f);
	front_rings(&vh.f, VH_MRG);
	assert_int_equal(front_connect(&vh.f, vh.path), 0);
	front_up(&vh.f, VH_MRG);
	vh_post(VH_NBUFS, 1);
	vh_push_segment(100, PKT_CSUM_GOOD, false);
	vh_deliver();
	assert_true(vh_receive(&vh_got, 1, NULL));
	assert_int_equal(VH_STAT(faults), 1);
}

static void test_receive_ring_breaks(void **state)
{
	const struct driver_buf nowhere = { 0x7777777000ULL, 100 };

	vh_up(VH_MRG | VH_TSO);
	assert_int_equal(driver_add(&vh.f.rx, &nowhere, 0, 1, 0, 0), 0);
	vh_push_segment(100, PKT_CSUM_GOOD, false);
	vh_deliver();
	assert_int_equal(VH_STAT(rx_dropped), 1);
	check_recovers();
}

static void test_transmit_ring_breaks(void **state)
{
	const struct driver_buf nowhere = { 0x7777777000ULL, 100 };
	struct gso_frame f;

	vh_up(VH_MRG);
	assert_int_equal(driver_add(&vh.f.tx, &nowhere, 1, 0, 0, 0), 0);
	assert_int_equal(vh_fetch(&f), 0);
	check_recovers();
}

/* A receive buffer with nothing to write into, or too small for the header. */
static void test_useless_buffers(void **state)
{
	const struct driver_buf small = { GUEST_DATA, VH_HDR - 1 };

	vh_up(VH_MRG);
	assert_int_equal(driver_add(&vh.f.rx, &small, 0, 1, 0, 0), 0);
	vh_push_segment(100, PKT_CSUM_GOOD, false);
	vh_deliver();
	check_recovers();
}

static void test_memory_goes_away(void **state)
{
	int fd;

	vh_up(VH_MRG);
	vh_post(VH_NBUFS, 1);
	fd = vh.f.guest.region[0].fd;
	assert_int_equal(ftruncate(fd, 0), 0);
	vh_push_segment(100, PKT_CSUM_GOOD, false);
	vh_deliver();
	assert_int_equal(ftruncate(fd, (off_t)vh.f.guest.region[0].size), 0);
	check_recovers();
}

static void test_bad_messages(void **state)
{
	static const struct {
		uint32_t hdr[3];
		unsigned int nfds;
	} bad[] = {
		{ { 99, VU_VERSION, 0 }, 0 },
		{ { VU_GET_FEATURES, 3, 0 }, 0 },
		{ { VU_SET_MEM_TABLE, VU_VERSION, 100000 }, 0 },
		{ { VU_SET_OWNER, VU_VERSION, 0 }, 1 },
		{ { VU_SET_MEM_TABLE, VU_VERSION, 8 }, 12 },
	};

	assert_int_equal(vh_open_port(1, false), 0);
	front_init(&vh.f, vh.loop, VH_MRG);
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int fd[12];
		char c;

		for (unsigned int k = 0; k < 12; k++)
			fd[k] = vh.f.tick;
		assert_int_equal(front_connect(&vh.f, vh.path), 0);
		if (bad[i].nfds)
			front_send(&vh.f, bad[i].hdr[0], bad, bad[i].hdr[2], fd,
				   bad[i].nfds);
		else
			assert_int_equal(send(vh.f.sock, bad[i].hdr, 12, MSG_NOSIGNAL),
					 12);
		front_pump(&vh.f);
		assert_int_equal(front_reply(&vh.f, &c, 1), 0);
		assert_int_equal(VH_STAT(faults), i + 1);
		front_disconnect(&vh.f);
	}
}

/* Byte by byte, and two at once. */
static void test_partial_messages(void **state)
{
	const uint32_t ask[6] = { VU_GET_FEATURES,  VU_VERSION, 0,
				  VU_GET_QUEUE_NUM, VU_VERSION, 0 };
	uint32_t reply[10];

	assert_int_equal(vh_open_port(1, false), 0);
	front_init(&vh.f, vh.loop, VH_MRG);
	assert_int_equal(front_connect(&vh.f, vh.path), 0);
	for (size_t i = 0; i < 12; i++) {
		assert_int_equal(front_reply(&vh.f, reply, sizeof(reply)), -EAGAIN);
		assert_int_equal(send(vh.f.sock, (const char *)ask + i, 1, MSG_NOSIGNAL),
				 1);
		front_pump(&vh.f);
	}
	assert_int_equal(front_reply(&vh.f, reply, sizeof(reply)), 20);
	assert_int_equal(send(vh.f.sock, ask, sizeof(ask), MSG_NOSIGNAL), sizeof(ask));
	front_pump(&vh.f);
	assert_int_equal(front_reply(&vh.f, reply, sizeof(reply)), 40);
	assert_int_equal(VH_STAT(faults), 0);
}

/* Half a message with a descriptor, and then nothing more. */
static void test_leaves_half_way(void **state)
{
	const uint64_t number = 0;
	int fds = 0;
	DIR *d;

	assert_int_equal(vh_open_port(1, false), 0);
	front_init(&vh.f, vh.loop, VH_MRG);
	for (int i = 0; i < 20; i++) {
		DIR *before = i ? NULL : opendir("/proc/self/fd");

		while (before && readdir(before))
			fds++;
		if (before)
			closedir(before);
		assert_int_equal(front_connect(&vh.f, vh.path), 0);
		/* The size promises more than there is. */
		front_send(&vh.f, VU_GET_FEATURES, &number, 0, NULL, 0);
		front_send(&vh.f, VU_SET_VRING_CALL, &number, 8, &vh.f.call[0], 1);
		front_disconnect(&vh.f);
		front_pump(&vh.f);
	}
	d = opendir("/proc/self/fd");
	while (readdir(d))
		fds--;
	closedir(d);
	assert_int_equal(fds, 0);
	assert_int_equal(VH_STAT(faults), 0);
}

/* ---- sockets ---------------------------------------------------------------------- */

static void test_socket_file(void **state)
{
	struct port *first;
	struct stat st;

	assert_int_equal(vh_open_port(1, false), 0);
	front_init(&vh.f, vh.loop, VH_MRG);
	assert_int_equal(stat(vh.path, &st), 0);
	assert_int_equal(st.st_mode, S_IFSOCK | 0600);
	first = vh.port;
	assert_int_equal(vh_open_port(1, false), -EADDRINUSE);
	vh.port = first;
	vh.port->ops->close(vh.port);
	assert_int_equal(stat(vh.path, &st), -1);
	vh.port = NULL;
	/* A file that is no socket stays. */
	close(open(vh.path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
	assert_int_equal(vh_open_port(1, false), -EEXIST);
	vh.port = NULL;
	assert_int_equal(unlink(vh.path), 0);
}

static int listen_at(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	strncpy(sun.sun_path, path, sizeof(sun.sun_path) - 1);
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static void test_stale_socket(void **state)
{
	front_init(&vh.f, vh.loop, VH_MRG);
	close(listen_at(vh.path));
	assert_int_equal(vh_open_port(1, false), 0);
	assert_int_equal(front_connect(&vh.f, vh.path), 0);
	front_up(&vh.f, VH_MRG);
}

/* A front end's socket that may not be written to is said once, and tried on. */
static void test_client_refused(void **state)
{
	int lfd = listen_at(vh.path), said = memfd_create("log", MFD_CLOEXEC);
	int stderr_fd = dup(STDERR_FILENO);
	const struct vhost_port *vp;
	char text[4096] = "";

	if (geteuid())
		skip();
	assert_int_equal(chmod(vh.path, 0600), 0);
	assert_int_equal(vh_open_port(1, true), 0);
	vp = (const struct vhost_port *)vh.port;
	front_init(&vh.f, vh.loop, VH_MRG);
	log_set_level(LOG_LVL_WARN);
	dup2(said, STDERR_FILENO);
	/* Without capabilities, as after the daemon's start */
	assert_int_equal(seteuid(65534), 0);
	while (vp->retry_ms < 400)
		front_pump(&vh.f);
	assert_int_equal(seteuid(0), 0);
	dup2(stderr_fd, STDERR_FILENO);
	log_set_level(LOG_LVL_ERROR);
	assert_true(pread(said, text, sizeof(text) - 1, 0) > 0);
	assert_non_null(strstr(text, "Permission denied"));
	assert_ptr_equal(strchr(text, '\n'), strrchr(text, '\n'));
	do {
		front_pump(&vh.f);
		vh.f.sock = accept4(lfd, NULL, NULL, SOCK_CLOEXEC);
	} while (vh.f.sock < 0);
	close(lfd);
	close(said);
	close(stderr_fd);
	unlink(vh.path);
}

/* A front end that listens: it is found when it comes, and again after it left. */
static void test_client(void **state)
{
	struct timespec now, end;
	int lfd;

	assert_int_equal(vh_open_port(1, true), 0);
	front_init(&vh.f, vh.loop, VH_MRG);
	front_pump(&vh.f);
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += 20;
	for (int round = 0; round < 2; round++) {
		lfd = listen_at(vh.path);
		do {
			front_pump(&vh.f);
			vh.f.sock = accept4(lfd, NULL, NULL, SOCK_CLOEXEC);
			clock_gettime(CLOCK_MONOTONIC, &now);
			assert_true(now.tv_sec < end.tv_sec);
		} while (vh.f.sock < 0);
		front_rings(&vh.f, VH_MRG);
		front_up(&vh.f, VH_MRG);
		vh_post(VH_NBUFS, 1);
		vh_push_segment(100, PKT_CSUM_GOOD, false);
		vh_deliver();
		assert_true(vh_receive(&vh_got, 1, NULL));
		close(lfd);
		unlink(vh.path);
		front_disconnect(&vh.f);
		front_pump(&vh.f);
	}
	assert_int_equal(VH_STAT(faults), 0);
}

/* The next one waits until the first is gone. */
static void test_second_front_end(void **state)
{
	uint32_t reply[10];
	int first;

	vh_up(VH_MRG);
	first = vh.f.sock;
	assert_int_equal(front_connect(&vh.f, vh.path), 0);
	front_send(&vh.f, VU_GET_FEATURES, NULL, 0, NULL, 0);
	assert_int_equal(front_reply(&vh.f, reply, sizeof(reply)), -EAGAIN);
	close(first);
	front_pump(&vh.f); /* gone */
	front_pump(&vh.f); /* accepted */
	front_pump(&vh.f);
	assert_int_equal(front_reply(&vh.f, reply, sizeof(reply)), 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VH_TEST(test_receive_ring_breaks), VH_TEST(test_transmit_ring_breaks),
		VH_TEST(test_useless_buffers),	   VH_TEST(test_memory_goes_away),
		VH_TEST(test_bad_messages),	   VH_TEST(test_partial_messages),
		VH_TEST(test_leaves_half_way),	   VH_TEST(test_socket_file),
		VH_TEST(test_stale_socket),	   VH_TEST(test_client),
		VH_TEST(test_second_front_end),	   VH_TEST(test_client_refused),
	};

	log_set_level(LOG_LVL_ERROR);
	return cmocka_run_group_tests_name("port_vhost_faults", tests, NULL, NULL);
}
