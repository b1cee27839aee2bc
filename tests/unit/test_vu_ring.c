// SPDX-License-Identifier: BSD-2-Clause
/*
 * vu_proto: messages about the guest's memory, its rings and its dirty log, in order and
 * out of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "vu_rig.h"

static void test_memory(void **state)
{
	static const uint8_t bytes[] = "written by the device";
	struct vt_table tab = { .n = 2 };
	uint64_t len = sizeof(bytes);
	uint8_t *p;
	int fd[2];

	assert_int_equal(vt_send_table(GUEST_REGIONS, GUEST_REGIONS), 0);
	assert_int_equal(vt.dev.mem.nregions, GUEST_REGIONS);
	p = vu_mem_gpa(&vt.dev.mem, GUEST_DATA, &len);
	assert_non_null(p);
	memcpy(p, bytes, sizeof(bytes));
	assert_memory_equal(guest_ptr(&vt.guest, GUEST_DATA, sizeof(bytes)), bytes,
			    sizeof(bytes));
	/* Again replaces; none is fine while nothing runs. */
	assert_int_equal(vt_send_table(1, 1), 0);
	assert_int_equal(vt.dev.mem.nregions, 1);
	assert_int_equal(vt_send_table(0, 0), 0);
	assert_int_equal(vt.dev.mem.nregions, 0);
	VT_REFUSED(vt_send_table(2, 1));
	VT_REFUSED(vt_send_table(1, 2));
	/* More regions than there are bytes for. */
	tab.region[0] = vt_region_of(0);
	fd[0] = dup(vt.guest.region[0].fd);
	fd[1] = dup(vt.guest.region[1].fd);
	VT_REFUSED(
		vt_handle(VU_SET_MEM_TABLE, 0, &tab, 8 + sizeof(tab.region[0]), fd, 2));
	/* Two that overlap; an event for memory. */
	tab.region[1] = vt_region_of(0);
	fd[0] = dup(vt.guest.region[0].fd);
	fd[1] = dup(vt.guest.region[0].fd);
	VT_REFUSED(vt_handle(VU_SET_MEM_TABLE, 0, &tab, 8 + 2 * sizeof(tab.region[0]), fd,
			     2));
	assert_int_equal(vt.dev.mem.nregions, 0);
	tab.n = 1;
	fd[0] = vt_event();
	VT_REFUSED(
		vt_handle(VU_SET_MEM_TABLE, 0, &tab, 8 + sizeof(tab.region[0]), fd, 1));
	tab.n = UINT32_MAX;
	VT_REFUSED(vt_handle(VU_SET_MEM_TABLE, 0, &tab, 8, NULL, 0));
}

struct slot_msg {
	uint64_t pad;
	struct vu_mem_region region;
};

static int send_slot(uint32_t request, unsigned int i, bool with_fd)
{
	const struct slot_msg s = { .region = vt_region_of(i) };
	int fd = with_fd ? dup(vt.guest.region[i].fd) : -1;

	return vt_handle(request, 0, &s, sizeof(s), &fd, with_fd);
}

static void test_memory_slots(void **state)
{
	struct slot_msg other = { .region = vt_region_of(0) };
	int fd;

	vt_negotiate(VT_F_PROTOCOL, VT_ALL_PROTOCOL);
	for (unsigned int i = 0; i < GUEST_REGIONS; i++)
		assert_int_equal(send_slot(VU_ADD_MEM_REG, i, true), 0);
	vt_start_ring(1);
	/* Regions may come and go while a ring runs, but not the ring's own. */
	assert_int_equal(send_slot(VU_REM_MEM_REG, 0, false), 0);
	assert_int_equal(send_slot(VU_REM_MEM_REG, 1, true), 0);
	assert_int_equal(vt.dev.mem.nregions, GUEST_REGIONS - 2);
	assert_int_equal(send_slot(VU_ADD_MEM_REG, 0, true), 0);
	assert_non_null(vt.dev.ring[1].vring);
	/* Once more each, as QEMU does for every queue pair. */
	assert_int_equal(send_slot(VU_ADD_MEM_REG, 0, true), 0);
	assert_int_equal(vt.dev.mem.nregions, GUEST_REGIONS - 1);
	assert_int_equal(send_slot(VU_REM_MEM_REG, 1, false), 0);
	assert_int_equal(vt.dev.mem.nregions, GUEST_REGIONS - 1);
	other.region.uva++; /* overlaps, and is not the same */
	fd = dup(vt.guest.region[0].fd);
	VT_REFUSED(vt_handle(VU_ADD_MEM_REG, 0, &other, sizeof(other), &fd, 1));
}

/* A ring's own memory does not go from under it. */
static void test_ring_keeps_slot(void **state)
{
	vt_negotiate(VT_F_PROTOCOL, VT_ALL_PROTOCOL);
	for (unsigned int i = 0; i < GUEST_REGIONS; i++)
		assert_int_equal(send_slot(VU_ADD_MEM_REG, i, true), 0);
	vt_start_ring(1);
	VT_REFUSED(send_slot(VU_REM_MEM_REG, 3, false));
}

static void test_memory_moves_under_ring(void **state)
{
	vt_bring_up();
	assert_int_equal(vt_send_table(GUEST_REGIONS, GUEST_REGIONS), 0);
	assert_non_null(vt.dev.ring[0].vring);
	assert_null(vu_dev_broken(&vt.dev));
	VT_REFUSED(vt_send_table(3, 3)); /* the ring is in the fourth */
}

static void test_ring(void **state)
{
	struct vring_chain c;
	struct vring_vec vec = { 0, VRING_MAX_IOV, NULL, NULL };
	const struct driver_buf buf = { GUEST_DATA, 100 };
	struct iovec iov[VRING_MAX_IOV];
	uint64_t gpa[VRING_MAX_IOV];
	struct vhost_vring_state base = { 0, 1 };

	vec.iov = iov;
	vec.gpa = gpa;
	vt_bring_up();
	assert_false(vu_ring_enabled(&vt.dev, &vt.dev.ring[0]));
	assert_int_equal(vt_send_state(VU_SET_VRING_ENABLE, 0, 1), 0);
	assert_true(vu_ring_enabled(&vt.dev, &vt.dev.ring[0]));
	assert_int_equal(driver_add(&vt.driver, &buf, 1, 0, 0, 7), 0);
	assert_int_equal(vring_take(vt.dev.ring[0].vring, &vec, &c), 1);
	vring_put(vt.dev.ring[0].vring, &vec, &c, 0);
	vring_publish(vt.dev.ring[0].vring);
	/* It stops where it is, and its kick is gone. */
	assert_int_equal(vt_send_state(VU_GET_VRING_BASE, 0, 0), 0);
	vt_check_reply(VU_GET_VRING_BASE, &base, sizeof(base));
	assert_null(vt.dev.ring[0].vring);
	assert_int_equal(vt.dev.ring[0].kick, -1);
	/* Asked again; and for one that never ran. */
	assert_int_equal(vt_send_state(VU_GET_VRING_BASE, 0, 0), 0);
	vt_check_reply(VU_GET_VRING_BASE, &base, sizeof(base));
	base = (struct vhost_vring_state){ 5, 0 };
	assert_int_equal(vt_send_state(VU_GET_VRING_BASE, 5, 0), 0);
	vt_check_reply(VU_GET_VRING_BASE, &base, sizeof(base));
	/* And starts again, still enabled. */
	assert_int_equal(vt_send_state(VU_SET_VRING_BASE, 0, 1), 0);
	assert_int_equal(vt_send_fd(VU_SET_VRING_KICK, 0, vt_event()), 0);
	assert_non_null(vt.dev.ring[0].vring);
	assert_int_equal(vt_send_state(VU_SET_VRING_ENABLE, 0, 0), 0);
	assert_false(vu_ring_enabled(&vt.dev, &vt.dev.ring[0]));
}

static void test_ring_without_protocol_features(void **state)
{
	assert_int_equal(vt_send_u64(VU_SET_FEATURES, 0), 0);
	assert_int_equal(vt_send_table(GUEST_REGIONS, GUEST_REGIONS), 0);
	vt_start_ring(0);
	assert_true(vu_ring_enabled(&vt.dev, &vt.dev.ring[0]));
	assert_int_equal(vt_handle(VU_RESET_OWNER, 0, NULL, 0, NULL, 0), 0);
	assert_null(vt.dev.ring[0].vring);
}

static void test_reset_owner_disables(void **state)
{
	vt_bring_up();
	assert_int_equal(vt_send_state(VU_SET_VRING_ENABLE, 0, 1), 0);
	assert_int_equal(vt_handle(VU_RESET_OWNER, 0, NULL, 0, NULL, 0), 0);
	assert_non_null(vt.dev.ring[0].vring);
	assert_false(vu_ring_enabled(&vt.dev, &vt.dev.ring[0]));
}

static void test_ring_order(void **state)
{
	vt_negotiate(VT_F_PROTOCOL, VT_ALL_PROTOCOL);
	VT_REFUSED(vt_send_fd(VU_SET_VRING_KICK, 0,
			      vt_event())); /* nothing is known of it */
	assert_int_equal(vt_send_state(VU_SET_VRING_NUM, 0, VT_RING_SIZE), 0);
	VT_REFUSED(vt_send_fd(VU_SET_VRING_KICK, 0, vt_event()));
	assert_int_equal(vt_send_state(VU_SET_VRING_NUM, 0, VT_RING_SIZE), 0);
	assert_int_equal(vt_send_addr(0, 0, 0, 0), 0);
	VT_REFUSED(vt_send_fd(VU_SET_VRING_KICK, 0, vt_event())); /* no memory */
	vt_bring_up();
	VT_REFUSED(vt_send_state(VU_SET_VRING_NUM, 0, VT_RING_SIZE));
	vt_bring_up();
	VT_REFUSED(vt_send_state(VU_SET_VRING_BASE, 0, 0));
	vt_bring_up();
	VT_REFUSED(vt_send_addr(0, 0, 0, 1ULL << 40)); /* moves away while it runs */
	VT_REFUSED(vt_send_state(VU_SET_VRING_NUM, 0, 0));
	VT_REFUSED(vt_send_state(VU_SET_VRING_NUM, 0, VRING_MAX_SIZE + 1));
	VT_REFUSED(vt_send_state(VU_SET_VRING_ENABLE, 0, 2));
}

static void test_ring_numbers(void **state)
{
	static const uint32_t with_state[] = { VU_SET_VRING_NUM, VU_SET_VRING_BASE,
					       VU_GET_VRING_BASE, VU_SET_VRING_ENABLE };
	static const uint32_t with_fd[] = { VU_SET_VRING_KICK, VU_SET_VRING_CALL,
					    VU_SET_VRING_ERR };

	for (size_t i = 0; i < sizeof(with_state) / sizeof(with_state[0]); i++) {
		VT_REFUSED(vt_send_state(with_state[i], VU_MAX_RINGS, 1));
		VT_REFUSED(vt_send_state(with_state[i], UINT32_MAX, 1));
		assert_int_equal(vt_send_state(with_state[i], VU_MAX_RINGS - 1, 1), 0);
	}
	for (size_t i = 0; i < sizeof(with_fd) / sizeof(with_fd[0]); i++) {
		VT_REFUSED(vt_send_fd(with_fd[i], VU_MAX_RINGS, vt_event()));
		/* Without one although it says so, with one although it says not, and
		 * bits that mean nothing. */
		VT_REFUSED(vt_send_fd(with_fd[i], 0, -1));
		VT_REFUSED(vt_send_fd(with_fd[i], VU_VRING_NOFD, vt_event()));
		VT_REFUSED(vt_send_fd(with_fd[i], 1U << 9, vt_event()));
	}
	VT_REFUSED(vt_send_addr(VU_MAX_RINGS, 0, 0, 0));
}

/* Descriptors on which a worker could block. */
static void test_kinds_of_descriptors(void **state)
{
	int p[2], s[2];

	assert_int_equal(pipe(p), 0);
	VT_REFUSED(vt_send_fd(VU_SET_VRING_CALL, 0, p[1]));
	close(p[0]);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	VT_REFUSED(vt_send_fd(VU_SET_VRING_CALL, 0, s[1]));
	close(s[0]);
	VT_REFUSED(vt_send_fd(VU_SET_VRING_KICK, 0, memfd_create("kick", 0)));
	VT_REFUSED(vt_send_fd(VU_SET_VRING_ERR, 0, open("/dev/null", O_RDWR)));
	VT_REFUSED(vt_send_fd(VU_SET_VRING_KICK, 0, open("/", O_PATH)));
}

static void test_call(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC), first;

	vt_bring_up();
	vt.dev.ring[0].signal = false;
	assert_int_equal(vt_send_fd(VU_SET_VRING_CALL, 0, fd), 0);
	assert_true(vt.dev.ring[0].signal);
	assert_int_equal(vt.dev.ring[0].call, fd);
	/* A worker must not sleep in it. */
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	first = fd;
	fd = vt_event();
	assert_int_equal(vt_send_fd(VU_SET_VRING_CALL, 0, fd), 0);
	assert_true(fcntl(first, F_GETFD) < 0);
	/* The guest polls. */
	assert_int_equal(vt_send_fd(VU_SET_VRING_CALL, VU_VRING_NOFD, -1), 0);
	assert_int_equal(vt.dev.ring[0].call, -1);
	fd = vt_event();
	assert_int_equal(vt_send_fd(VU_SET_VRING_ERR, 0, fd), 0);
	assert_int_equal(vt.dev.ring[0].err, fd);
	/* We do not. */
	VT_REFUSED(vt_send_fd(VU_SET_VRING_KICK, VU_VRING_NOFD, -1));
}

static int send_log(int fd, uint64_t size, uint64_t offset, uint32_t flags)
{
	const uint64_t log[2] = { size, offset };

	return vt_handle(VU_SET_LOG_BASE, flags, log, sizeof(log), &fd, 1);
}

static void test_log(void **state)
{
	int fd = memfd_create("log", MFD_CLOEXEC), other = memfd_create("log2", 0);
	uint8_t *map, *map2;

	assert_int_equal(ftruncate(fd, 0x3000), 0);
	assert_int_equal(ftruncate(other, 0x8000), 0);
	map = mmap(NULL, 0x3000, PROT_READ, MAP_SHARED, fd, 0);
	map2 = mmap(NULL, 0x8000, PROT_READ, MAP_SHARED, other, 0);
	assert_true(map != MAP_FAILED && map2 != MAP_FAILED);
	vt_bring_up();
	/* The reply: empty, or the acknowledgement that was asked for. */
	assert_int_equal(send_log(dup(fd), 0x2000, 0x1000, 0), 0);
	vt_check_reply(VU_SET_LOG_BASE, NULL, 0);
	assert_int_equal(send_log(dup(fd), 0x2000, 0x1000, VU_NEED_REPLY), 0);
	vt_check_u64(VU_SET_LOG_BASE, 0);
	/* Used only when LOG_ALL asks for it; page 9 is bit 1 of byte 1. */
	dma_log_mark(&vt.dev.log, 0x9000, 1);
	assert_int_equal(map[0x1001], 0);
	assert_int_equal(
		vt_send_u64(VU_SET_FEATURES, vt.dev.features | BIT(VHOST_F_LOG_ALL)), 0);
	dma_log_mark(&vt.dev.log, 0x9000, 1);
	assert_int_equal(map[0x1001], 2);
	/* Another one while it is written; the old one is left alone. */
	assert_int_equal(send_log(dup(other), 0x8000, 0, 0), 0);
	dma_log_mark(&vt.dev.log, 0xa000, 1);
	assert_int_equal(map[0x1001], 2);
	assert_int_equal(map2[1], 4);
	/* Off, and on again. */
	assert_int_equal(
		vt_send_u64(VU_SET_FEATURES, vt.dev.features & ~BIT(VHOST_F_LOG_ALL)), 0);
	dma_log_mark(&vt.dev.log, 0xb000, 1);
	assert_int_equal(map2[1], 4);
	assert_int_equal(
		vt_send_u64(VU_SET_FEATURES, vt.dev.features | BIT(VHOST_F_LOG_ALL)), 0);
	dma_log_mark(&vt.dev.log, 0xb000, 1);
	assert_int_equal(map2[1], 12);
	VT_REFUSED(send_log(dup(fd), 0, 0, 0));
	vt.dev.protocol = VT_ALL_PROTOCOL;
	VT_REFUSED(send_log(dup(fd), 0x1000, UINT64_MAX, 0));
	vt.dev.protocol = VT_ALL_PROTOCOL;
	VT_REFUSED(send_log(vt_event(), 0x1000, 0, 0));
	munmap(map, 0x3000);
	munmap(map2, 0x8000);
	close(fd);
	close(other);
}

/* The used ring's writes are logged where SET_VRING_ADDR says, also from mid-run on. */
static void test_used_log(void **state)
{
	struct iovec iov[VRING_MAX_IOV];
	uint64_t gpa[VRING_MAX_IOV];
	struct vring_vec vec = { 0, VRING_MAX_IOV, iov, gpa };
	const struct driver_buf buf = { GUEST_DATA, 100 };
	int fd = memfd_create("log", MFD_CLOEXEC);
	struct vring_chain c;
	uint8_t *map;

	assert_int_equal(ftruncate(fd, 0x1000), 0);
	map = mmap(NULL, 0x1000, PROT_READ, MAP_SHARED, fd, 0);
	assert_true(map != MAP_FAILED);
	vt_bring_up();
	assert_int_equal(send_log(dup(fd), 0x1000, 0, 0), 0);
	assert_int_equal(
		vt_send_u64(VU_SET_FEATURES, vt.dev.features | BIT(VHOST_F_LOG_ALL)), 0);
	assert_int_equal(vt_send_addr(0, 1U << VHOST_VRING_F_LOG, 0x50000, 0), 0);
	assert_int_equal(driver_add(&vt.driver, &buf, 0, 1, 0, 7), 0);
	assert_int_equal(vring_take(vt.dev.ring[0].vring, &vec, &c), 1);
	vring_put(vt.dev.ring[0].vring, &vec, &c, 10);
	vring_publish(vt.dev.ring[0].vring);
	assert_int_equal(map[0x50 / 8], 1 << (0x50 % 8));
	assert_int_equal(map[0x10 / 8], 1 << (0x10 % 8)); /* the data */
	munmap(map, 0x1000);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		VT_TEST(test_memory),
		VT_TEST(test_memory_slots),
		VT_TEST(test_ring_keeps_slot),
		VT_TEST(test_memory_moves_under_ring),
		VT_TEST(test_ring),
		VT_TEST(test_ring_without_protocol_features),
		VT_TEST(test_reset_owner_disables),
		VT_TEST(test_ring_order),
		VT_TEST(test_ring_numbers),
		VT_TEST(test_kinds_of_descriptors),
		VT_TEST(test_call),
		VT_TEST(test_log),
		VT_TEST(test_used_log),
	};

	return cmocka_run_group_tests_name("vu_ring", tests, NULL, NULL);
}
