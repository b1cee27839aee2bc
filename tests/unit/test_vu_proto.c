// SPDX-License-Identifier: BSD-2-Clause
/*
 * vu_proto: each message as it should be, and every way in which it should not: size,
 * descriptors, order, features. Descriptors are real ones; after each test as many are
 * open as before it.
 */
#include <dirent.h>
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

#include "../../user/daemon/vu_proto.h"
#include "driver.h"

#define BIT(n)	   (1ULL << (n))
#define F_PROTOCOL BIT(30)
#define MTU	   1500
#define RING_SIZE  64

/* The device under test, and what it asked of its owner. */
static struct {
	struct vu_dev dev;
	struct guest guest;
	struct driver driver;
	unsigned int quiet, go, rarps;
	uint8_t rarp[6];
	struct vu_reply reply;
} t;

static void on_quiet(void *owner)
{
	assert_ptr_equal(owner, &t);
	assert_int_equal(t.quiet, t.go);
	t.quiet++;
}

static void on_go(void *owner)
{
	t.go++;
	assert_int_equal(t.quiet, t.go);
}

static void on_rarp(void *owner, const uint8_t mac[6])
{
	assert_int_equal(t.quiet, t.go + 1);
	memcpy(t.rarp, mac, 6);
	t.rarps++;
}

static const struct vu_dev_ops ops = { .quiet = on_quiet, .go = on_go, .rarp = on_rarp };

static unsigned int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static unsigned int fds_before;

static int setup(void **state)
{
	const struct vring_conf c = { .size = RING_SIZE };

	memset(&t, 0, sizeof(t));
	assert_int_equal(vu_mem_guard(), 0);
	fds_before = open_fds();
	guest_init(&t.guest, false);
	driver_init(&t.driver, &t.guest, &c);
	vu_dev_init(&t.dev, &ops, &t, MTU);
	return 0;
}

static int teardown(void **state)
{
	vu_dev_fini(&t.dev);
	driver_fini(&t.driver);
	guest_fini(&t.guest);
	assert_int_equal(open_fds(), fds_before);
	return 0;
}

/* ---- sending ------------------------------------------------------------------------
 */

static int handle(uint32_t request, uint32_t flags, const void *payload, uint32_t size,
		  const int *fd, unsigned int nfds)
{
	const uint32_t hdr[3] = { request, VU_VERSION | flags, size };
	struct vu_msg m = { .nfds = nfds };
	uint8_t raw[VU_HDR_SIZE];

	memcpy(raw, hdr, sizeof(raw));
	memset(&t.reply, 0xee, sizeof(t.reply));
	assert_int_equal(vu_msg_header(&t.dev, &m, raw), 0);
	if (size)
		memcpy(m.payload, payload, size);
	for (unsigned int i = 0; i < nfds; i++)
		m.fd[i] = fd[i];
	return vu_handle(&t.dev, &m, &t.reply);
}

static int send_u64(uint32_t request, uint64_t v)
{
	return handle(request, 0, &v, sizeof(v), NULL, 0);
}

static int send_state(uint32_t request, uint32_t index, uint32_t num)
{
	const struct vhost_vring_state s = { index, num };

	return handle(request, 0, &s, sizeof(s), NULL, 0);
}

static int send_fd(uint32_t request, uint64_t v, int fd)
{
	return handle(request, 0, &v, sizeof(v), &fd, fd >= 0);
}

static int event(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	assert_true(fd >= 0);
	return fd;
}

/* The reply is this payload, with a correct header. */
static void check_reply(uint32_t request, const void *payload, uint32_t size)
{
	const uint32_t hdr[3] = { request, VU_VERSION | VU_REPLY, size };

	assert_int_equal(t.reply.len, VU_HDR_SIZE + size);
	assert_memory_equal(t.reply.buf, hdr, sizeof(hdr));
	if (size)
		assert_memory_equal(t.reply.buf + VU_HDR_SIZE, payload, size);
}

static void check_u64(uint32_t request, uint64_t v)
{
	check_reply(request, &v, sizeof(v));
}

/* Ask, without payload, for a number. */
static uint64_t ask(uint32_t request)
{
	uint64_t v;

	assert_int_equal(handle(request, 0, NULL, 0, NULL, 0), 0);
	memcpy(&v, t.reply.buf + VU_HDR_SIZE, sizeof(v));
	check_u64(request, v);
	return v;
}

/* ---- a device on its way up -----------------------------------------------------------
 */

static void negotiate(uint64_t features, uint64_t protocol)
{
	assert_int_equal(send_u64(VU_SET_PROTOCOL_FEATURES, protocol), 0);
	assert_int_equal(send_u64(VU_SET_FEATURES, features), 0);
	assert_int_equal(t.reply.len, 0);
}

#define ALL_PROTOCOL                                                                     \
	(BIT(VU_P_MQ) | BIT(VU_P_LOG_SHMFD) | BIT(VU_P_RARP) | BIT(VU_P_REPLY_ACK) |     \
	 BIT(VU_P_NET_MTU) | BIT(VU_P_CONFIGURE_MEM_SLOTS) | BIT(VU_P_STATUS))

struct table {
	uint32_t n, pad;
	struct vu_mem_region region[VU_MAX_FDS];
};

static struct vu_mem_region region_of(unsigned int i)
{
	const struct guest_region *r = &t.guest.region[i];

	return (struct vu_mem_region){ r->gpa, r->size, GUEST_UVA + r->gpa, 0 };
}

static int send_table(unsigned int n, unsigned int nfds)
{
	struct table tab = { .n = n };
	int fd[VU_MAX_FDS];

	for (unsigned int i = 0; i < n && i < GUEST_REGIONS; i++)
		tab.region[i] = region_of(i);
	for (unsigned int i = 0; i < nfds; i++)
		fd[i] = dup(t.guest.region[i % GUEST_REGIONS].fd);
	return handle(VU_SET_MEM_TABLE, 0, &tab, 8 + n * (uint32_t)sizeof(tab.region[0]),
		      fd, nfds);
}

static int send_addr(uint32_t index, uint32_t flags, uint64_t log_gpa, uint64_t shift)
{
	const struct vring_conf c = driver_conf(&t.driver);
	const struct vhost_vring_addr a = {
		.index = index,
		.flags = flags,
		.desc_user_addr = c.desc_uva + shift,
		.used_user_addr = c.used_uva + shift,
		.avail_user_addr = c.avail_uva + shift,
		.log_guest_addr = log_gpa,
	};

	return handle(VU_SET_VRING_ADDR, 0, &a, sizeof(a), NULL, 0);
}

static void start_ring(uint32_t index)
{
	assert_int_equal(send_state(VU_SET_VRING_NUM, index, RING_SIZE), 0);
	assert_int_equal(send_state(VU_SET_VRING_BASE, index, 0), 0);
	assert_int_equal(send_addr(index, 0, 0, 0), 0);
	assert_null(t.dev.ring[index].vring);
	assert_int_equal(send_fd(VU_SET_VRING_KICK, index, event()), 0);
	assert_non_null(t.dev.ring[index].vring);
}

static void bring_up(void)
{
	negotiate(F_PROTOCOL | BIT(VIRTIO_F_VERSION_1), ALL_PROTOCOL);
	assert_int_equal(send_table(GUEST_REGIONS, GUEST_REGIONS), 0);
	start_ring(0);
}

/* The next message must be refused and end the device. */
#define REFUSED(call)                                                                    \
	do {                                                                             \
		assert_true((call) < 0);                                                 \
		assert_int_equal(t.reply.len, 0);                                        \
		assert_true(t.dev.why[0]);                                               \
		vu_dev_reset(&t.dev);                                                    \
		t.quiet = t.go = 0;                                                      \
	} while (0)

/* ---- tests
 * ------------------------------------------------------------------------------ */

static void test_features(void **state)
{
	uint64_t f = ask(VU_GET_FEATURES);

	assert_int_equal(f, vu_features());
	/* Without these QEMU does not migrate, or has no way to say how. */
	assert_true(f & BIT(VHOST_F_LOG_ALL) && f & F_PROTOCOL);
	assert_true(f & BIT(VIRTIO_F_VERSION_1) && f & BIT(VIRTIO_F_RING_PACKED));
	assert_int_equal(ask(VU_GET_PROTOCOL_FEATURES), ALL_PROTOCOL);
	assert_int_equal(ask(VU_GET_QUEUE_NUM), VU_MAX_PAIRS);
	negotiate(f & ~BIT(VHOST_F_LOG_ALL), ALL_PROTOCOL);
	assert_int_equal(t.dev.features, f & ~BIT(VHOST_F_LOG_ALL));
	assert_int_equal(ask(VU_GET_MAX_MEM_SLOTS), VU_MEM_MAX_REGIONS);
	/* The same to every front end. */
	vu_dev_reset(&t.dev);
	assert_int_equal(t.dev.features, 0);
	assert_int_equal(ask(VU_GET_FEATURES), f);
	REFUSED(send_u64(VU_SET_FEATURES, BIT(VIRTIO_NET_F_CTRL_VQ)));
	REFUSED(send_u64(VU_SET_FEATURES, BIT(63)));
	REFUSED(send_u64(VU_SET_PROTOCOL_FEATURES, BIT(9)));
	assert_int_equal(handle(VU_SET_OWNER, 0, NULL, 0, NULL, 0), 0);
}

static void test_features_of_running_ring(void **state)
{
	bring_up();
	assert_int_equal(send_u64(VU_SET_FEATURES, t.dev.features), 0);
	assert_int_equal(send_u64(VU_SET_FEATURES, t.dev.features | BIT(VHOST_F_LOG_ALL)),
			 0);
	REFUSED(send_u64(VU_SET_FEATURES, t.dev.features | BIT(VIRTIO_F_RING_PACKED)));
}

static void refuse_size(uint32_t request, uint32_t size, bool with_fd)
{
	static const uint8_t zero[VU_MAX_PAYLOAD];
	int fd = with_fd ? event() : -1;

	t.dev.protocol = ALL_PROTOCOL;
	REFUSED(handle(request, 0, zero, size, &fd, with_fd));
}

/* Sizes and numbers of descriptors that each request must refuse, whatever they hold. */
static void test_forms(void **state)
{
	static const struct {
		uint32_t request;
		uint16_t min, max;
		uint8_t fds; /* the most */
		bool must;   /* have one */
	} forms[] = {
		{ VU_GET_FEATURES, 0, 0, 0, false },
		{ VU_SET_FEATURES, 8, 8, 0, false },
		{ VU_SET_OWNER, 0, 0, 0, false },
		{ VU_RESET_OWNER, 0, 0, 0, false },
		{ VU_SET_MEM_TABLE, 8, VU_MAX_PAYLOAD, 8, false },
		{ VU_SET_LOG_BASE, 16, 16, 1, true },
		{ VU_SET_LOG_FD, 0, 8, 1, false },
		{ VU_SET_VRING_NUM, 8, 8, 0, false },
		{ VU_SET_VRING_ADDR, 40, 40, 0, false },
		{ VU_SET_VRING_BASE, 8, 8, 0, false },
		{ VU_GET_VRING_BASE, 8, 8, 0, false },
		{ VU_SET_VRING_KICK, 8, 8, 1, true },
		{ VU_SET_VRING_CALL, 8, 8, 1, true },
		{ VU_SET_VRING_ERR, 8, 8, 1, true },
		{ VU_GET_PROTOCOL_FEATURES, 0, 0, 0, false },
		{ VU_SET_PROTOCOL_FEATURES, 8, 8, 0, false },
		{ VU_GET_QUEUE_NUM, 0, 0, 0, false },
		{ VU_SET_VRING_ENABLE, 8, 8, 0, false },
		{ VU_SEND_RARP, 8, 8, 0, false },
		{ VU_NET_SET_MTU, 8, 8, 0, false },
		{ VU_SET_BACKEND_REQ_FD, 0, 8, 1, true },
		{ VU_GET_MAX_MEM_SLOTS, 0, 0, 0, false },
		{ VU_ADD_MEM_REG, 40, 40, 1, true },
		{ VU_REM_MEM_REG, 40, 40, 1, false },
		{ VU_SET_STATUS, 8, 8, 0, false },
		{ VU_GET_STATUS, 0, 0, 0, false },
	};
	static const uint8_t zero[VU_MAX_PAYLOAD];
	unsigned int known = 0;

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		uint32_t req = forms[i].request;
		int fd[VU_MAX_FDS];

		for (unsigned int n = 0; n <= VU_MAX_FDS; n++) {
			bool ok = n <= forms[i].fds && (n || !forms[i].must);
			uint32_t size = forms[i].min;

			if (ok)
				continue;
			for (unsigned int k = 0; k < n; k++)
				fd[k] = event();
			t.dev.protocol = ALL_PROTOCOL;
			REFUSED(handle(req, 0, zero, size, fd, n));
		}
		if (forms[i].min)
			refuse_size(req, forms[i].min - 1U, forms[i].must);
		if (forms[i].max < VU_MAX_PAYLOAD)
			refuse_size(req, forms[i].max + 1U, forms[i].must);
		known++;
	}
	/* All others are unknown. */
	for (uint32_t req = 0; req < 300; req++) {
		bool is_known = false;

		for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
			is_known |= forms[i].request == req;
		if (!is_known)
			REFUSED(handle(req, 0, NULL, 0, NULL, 0));
	}
	assert_int_equal(known, 26);
}

static void test_headers(void **state)
{
	static const struct {
		uint32_t flags, size;
		int err;
	} hdrs[] = {
		{ VU_VERSION, 0, 0 },
		{ VU_VERSION | VU_NEED_REPLY, VU_MAX_PAYLOAD, 0 },
		{ VU_VERSION, VU_MAX_PAYLOAD + 1, -EPROTO },
		{ VU_VERSION, UINT32_MAX, -EPROTO },
		{ 0, 0, -EPROTO },
		{ 2, 0, -EPROTO },
		{ VU_VERSION | VU_REPLY, 0, -EPROTO },
	};

	for (size_t i = 0; i < sizeof(hdrs) / sizeof(hdrs[0]); i++) {
		const uint32_t raw[3] = { 1, hdrs[i].flags, hdrs[i].size };
		struct vu_msg m = { 0 };

		t.dev.why[0] = '\0';
		assert_int_equal(vu_msg_header(&t.dev, &m, (const uint8_t *)raw),
				 hdrs[i].err);
		assert_int_equal(!!t.dev.why[0], !!hdrs[i].err);
	}
}

/* What needs a protocol feature is refused without it. */
static void test_needs_feature(void **state)
{
	static const struct {
		uint32_t request, size;
		bool fd;
	} needs[] = {
		{ VU_SET_LOG_BASE, 16, true }, { VU_SEND_RARP, 8, false },
		{ VU_NET_SET_MTU, 8, false },  { VU_GET_MAX_MEM_SLOTS, 0, false },
		{ VU_ADD_MEM_REG, 40, true },  { VU_REM_MEM_REG, 40, false },
		{ VU_SET_STATUS, 8, false },   { VU_GET_STATUS, 0, false },
	};
	static const uint8_t zero[40];

	for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
		int fd = needs[i].fd ? event() : -1;

		REFUSED(handle(needs[i].request, 0, zero, needs[i].size, &fd,
			       needs[i].fd));
	}
}

static void test_memory(void **state)
{
	static const uint8_t bytes[] = "written by the device";
	struct table tab = { .n = 2 };
	uint64_t len = sizeof(bytes);
	uint8_t *p;
	int fd[2];

	assert_int_equal(send_table(GUEST_REGIONS, GUEST_REGIONS), 0);
	assert_int_equal(t.dev.mem.nregions, GUEST_REGIONS);
	p = vu_mem_gpa(&t.dev.mem, GUEST_DATA, &len);
	assert_non_null(p);
	memcpy(p, bytes, sizeof(bytes));
	assert_memory_equal(guest_ptr(&t.guest, GUEST_DATA, sizeof(bytes)), bytes,
			    sizeof(bytes));
	/* Again replaces; none is fine while nothing runs. */
	assert_int_equal(send_table(1, 1), 0);
	assert_int_equal(t.dev.mem.nregions, 1);
	assert_int_equal(send_table(0, 0), 0);
	assert_int_equal(t.dev.mem.nregions, 0);
	REFUSED(send_table(2, 1));
	REFUSED(send_table(1, 2));
	/* More regions than there are bytes for. */
	tab.region[0] = region_of(0);
	fd[0] = dup(t.guest.region[0].fd);
	fd[1] = dup(t.guest.region[1].fd);
	REFUSED(handle(VU_SET_MEM_TABLE, 0, &tab, 8 + sizeof(tab.region[0]), fd, 2));
	/* Two that overlap; an event for memory. */
	tab.region[1] = region_of(0);
	fd[0] = dup(t.guest.region[0].fd);
	fd[1] = dup(t.guest.region[0].fd);
	REFUSED(handle(VU_SET_MEM_TABLE, 0, &tab, 8 + 2 * sizeof(tab.region[0]), fd, 2));
	assert_int_equal(t.dev.mem.nregions, 0);
	tab.n = 1;
	fd[0] = event();
	REFUSED(handle(VU_SET_MEM_TABLE, 0, &tab, 8 + sizeof(tab.region[0]), fd, 1));
	tab.n = UINT32_MAX;
	REFUSED(handle(VU_SET_MEM_TABLE, 0, &tab, 8, NULL, 0));
}

struct slot_msg {
	uint64_t pad;
	struct vu_mem_region region;
};

static int send_slot(uint32_t request, unsigned int i, bool with_fd)
{
	const struct slot_msg s = { .region = region_of(i) };
	int fd = with_fd ? dup(t.guest.region[i].fd) : -1;

	return handle(request, 0, &s, sizeof(s), &fd, with_fd);
}

static void test_memory_slots(void **state)
{
	struct slot_msg other = { .region = region_of(0) };
	int fd;

	negotiate(F_PROTOCOL, ALL_PROTOCOL);
	for (unsigned int i = 0; i < GUEST_REGIONS; i++)
		assert_int_equal(send_slot(VU_ADD_MEM_REG, i, true), 0);
	start_ring(1);
	/* Regions may come and go while a ring runs, but not the ring's own. */
	assert_int_equal(send_slot(VU_REM_MEM_REG, 0, false), 0);
	assert_int_equal(send_slot(VU_REM_MEM_REG, 1, true), 0);
	assert_int_equal(t.dev.mem.nregions, GUEST_REGIONS - 2);
	assert_int_equal(send_slot(VU_ADD_MEM_REG, 0, true), 0);
	assert_non_null(t.dev.ring[1].vring);
	/* Once more each, as QEMU does for every queue pair. */
	assert_int_equal(send_slot(VU_ADD_MEM_REG, 0, true), 0);
	assert_int_equal(t.dev.mem.nregions, GUEST_REGIONS - 1);
	assert_int_equal(send_slot(VU_REM_MEM_REG, 1, false), 0);
	assert_int_equal(t.dev.mem.nregions, GUEST_REGIONS - 1);
	other.region.uva++; /* overlaps, and is not the same */
	fd = dup(t.guest.region[0].fd);
	REFUSED(handle(VU_ADD_MEM_REG, 0, &other, sizeof(other), &fd, 1));
}

/* A ring's own memory does not go from under it. */
static void test_ring_keeps_slot(void **state)
{
	negotiate(F_PROTOCOL, ALL_PROTOCOL);
	for (unsigned int i = 0; i < GUEST_REGIONS; i++)
		assert_int_equal(send_slot(VU_ADD_MEM_REG, i, true), 0);
	start_ring(1);
	REFUSED(send_slot(VU_REM_MEM_REG, 3, false));
}

static void test_memory_moves_under_ring(void **state)
{
	bring_up();
	assert_int_equal(send_table(GUEST_REGIONS, GUEST_REGIONS), 0);
	assert_non_null(t.dev.ring[0].vring);
	assert_null(vu_dev_broken(&t.dev));
	REFUSED(send_table(3, 3)); /* the ring is in the fourth */
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
	bring_up();
	assert_false(vu_ring_enabled(&t.dev, &t.dev.ring[0]));
	assert_int_equal(send_state(VU_SET_VRING_ENABLE, 0, 1), 0);
	assert_true(vu_ring_enabled(&t.dev, &t.dev.ring[0]));
	assert_int_equal(driver_add(&t.driver, &buf, 1, 0, 0, 7), 0);
	assert_int_equal(vring_take(t.dev.ring[0].vring, &vec, &c), 1);
	vring_put(t.dev.ring[0].vring, &vec, &c, 0);
	vring_publish(t.dev.ring[0].vring);
	/* It stops where it is, and its kick is gone. */
	assert_int_equal(send_state(VU_GET_VRING_BASE, 0, 0), 0);
	check_reply(VU_GET_VRING_BASE, &base, sizeof(base));
	assert_null(t.dev.ring[0].vring);
	assert_int_equal(t.dev.ring[0].kick, -1);
	/* Asked again; and for one that never ran. */
	assert_int_equal(send_state(VU_GET_VRING_BASE, 0, 0), 0);
	check_reply(VU_GET_VRING_BASE, &base, sizeof(base));
	base = (struct vhost_vring_state){ 5, 0 };
	assert_int_equal(send_state(VU_GET_VRING_BASE, 5, 0), 0);
	check_reply(VU_GET_VRING_BASE, &base, sizeof(base));
	/* And starts again, still enabled. */
	assert_int_equal(send_state(VU_SET_VRING_BASE, 0, 1), 0);
	assert_int_equal(send_fd(VU_SET_VRING_KICK, 0, event()), 0);
	assert_non_null(t.dev.ring[0].vring);
	assert_int_equal(send_state(VU_SET_VRING_ENABLE, 0, 0), 0);
	assert_false(vu_ring_enabled(&t.dev, &t.dev.ring[0]));
}

static void test_ring_without_protocol_features(void **state)
{
	assert_int_equal(send_u64(VU_SET_FEATURES, 0), 0);
	assert_int_equal(send_table(GUEST_REGIONS, GUEST_REGIONS), 0);
	start_ring(0);
	assert_true(vu_ring_enabled(&t.dev, &t.dev.ring[0]));
	assert_int_equal(handle(VU_RESET_OWNER, 0, NULL, 0, NULL, 0), 0);
	assert_null(t.dev.ring[0].vring);
}

static void test_reset_owner_disables(void **state)
{
	bring_up();
	assert_int_equal(send_state(VU_SET_VRING_ENABLE, 0, 1), 0);
	assert_int_equal(handle(VU_RESET_OWNER, 0, NULL, 0, NULL, 0), 0);
	assert_non_null(t.dev.ring[0].vring);
	assert_false(vu_ring_enabled(&t.dev, &t.dev.ring[0]));
}

static void test_ring_order(void **state)
{
	negotiate(F_PROTOCOL, ALL_PROTOCOL);
	REFUSED(send_fd(VU_SET_VRING_KICK, 0, event())); /* nothing is known of it */
	assert_int_equal(send_state(VU_SET_VRING_NUM, 0, RING_SIZE), 0);
	REFUSED(send_fd(VU_SET_VRING_KICK, 0, event()));
	assert_int_equal(send_state(VU_SET_VRING_NUM, 0, RING_SIZE), 0);
	assert_int_equal(send_addr(0, 0, 0, 0), 0);
	REFUSED(send_fd(VU_SET_VRING_KICK, 0, event())); /* no memory */
	bring_up();
	REFUSED(send_state(VU_SET_VRING_NUM, 0, RING_SIZE));
	bring_up();
	REFUSED(send_state(VU_SET_VRING_BASE, 0, 0));
	bring_up();
	REFUSED(send_addr(0, 0, 0, 1ULL << 40)); /* moves away while it runs */
	REFUSED(send_state(VU_SET_VRING_NUM, 0, 0));
	REFUSED(send_state(VU_SET_VRING_NUM, 0, VRING_MAX_SIZE + 1));
	REFUSED(send_state(VU_SET_VRING_ENABLE, 0, 2));
}

static void test_ring_numbers(void **state)
{
	static const uint32_t with_state[] = { VU_SET_VRING_NUM, VU_SET_VRING_BASE,
					       VU_GET_VRING_BASE, VU_SET_VRING_ENABLE };
	static const uint32_t with_fd[] = { VU_SET_VRING_KICK, VU_SET_VRING_CALL,
					    VU_SET_VRING_ERR };

	for (size_t i = 0; i < sizeof(with_state) / sizeof(with_state[0]); i++) {
		REFUSED(send_state(with_state[i], VU_MAX_RINGS, 1));
		REFUSED(send_state(with_state[i], UINT32_MAX, 1));
		assert_int_equal(send_state(with_state[i], VU_MAX_RINGS - 1, 1), 0);
	}
	for (size_t i = 0; i < sizeof(with_fd) / sizeof(with_fd[0]); i++) {
		REFUSED(send_fd(with_fd[i], VU_MAX_RINGS, event()));
		/* Without one although it says so, with one although it says not, and
		 * bits that mean nothing. */
		REFUSED(send_fd(with_fd[i], 0, -1));
		REFUSED(send_fd(with_fd[i], VU_VRING_NOFD, event()));
		REFUSED(send_fd(with_fd[i], 1U << 9, event()));
	}
	REFUSED(send_addr(VU_MAX_RINGS, 0, 0, 0));
}

/* Descriptors on which a worker could block. */
static void test_kinds_of_descriptors(void **state)
{
	int p[2], s[2];

	assert_int_equal(pipe(p), 0);
	REFUSED(send_fd(VU_SET_VRING_CALL, 0, p[1]));
	close(p[0]);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	REFUSED(send_fd(VU_SET_VRING_CALL, 0, s[1]));
	close(s[0]);
	REFUSED(send_fd(VU_SET_VRING_KICK, 0, memfd_create("kick", 0)));
	REFUSED(send_fd(VU_SET_VRING_ERR, 0, open("/dev/null", O_RDWR)));
	REFUSED(send_fd(VU_SET_VRING_KICK, 0, open("/", O_PATH)));
}

static void test_call(void **state)
{
	int fd = eventfd(0, EFD_CLOEXEC), first;

	bring_up();
	t.dev.ring[0].signal = false;
	assert_int_equal(send_fd(VU_SET_VRING_CALL, 0, fd), 0);
	assert_true(t.dev.ring[0].signal);
	assert_int_equal(t.dev.ring[0].call, fd);
	/* A worker must not sleep in it. */
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	first = fd;
	fd = event();
	assert_int_equal(send_fd(VU_SET_VRING_CALL, 0, fd), 0);
	assert_true(fcntl(first, F_GETFD) < 0);
	/* The guest polls. */
	assert_int_equal(send_fd(VU_SET_VRING_CALL, VU_VRING_NOFD, -1), 0);
	assert_int_equal(t.dev.ring[0].call, -1);
	fd = event();
	assert_int_equal(send_fd(VU_SET_VRING_ERR, 0, fd), 0);
	assert_int_equal(t.dev.ring[0].err, fd);
	/* We do not. */
	REFUSED(send_fd(VU_SET_VRING_KICK, VU_VRING_NOFD, -1));
}

static void test_acknowledgements(void **state)
{
	const uint64_t good = MTU, big = MTU + 1, small = 67;

	/* Asked for but not negotiated. */
	assert_int_equal(handle(VU_SET_OWNER, VU_NEED_REPLY, NULL, 0, NULL, 0), 0);
	assert_int_equal(t.reply.len, 0);
	negotiate(F_PROTOCOL, ALL_PROTOCOL);
	assert_int_equal(handle(VU_SET_OWNER, VU_NEED_REPLY, NULL, 0, NULL, 0), 0);
	check_u64(VU_SET_OWNER, 0);
	assert_int_equal(handle(VU_SET_OWNER, 0, NULL, 0, NULL, 0), 0);
	assert_int_equal(t.reply.len, 0);
	/* A reply with content is not followed by another. */
	assert_int_equal(handle(VU_GET_FEATURES, VU_NEED_REPLY, NULL, 0, NULL, 0), 0);
	check_u64(VU_GET_FEATURES, vu_features());
	assert_int_equal(handle(VU_NET_SET_MTU, VU_NEED_REPLY, &good, 8, NULL, 0), 0);
	check_u64(VU_NET_SET_MTU, 0);
	assert_int_equal(t.dev.why[0], '\0');
	assert_int_equal(handle(VU_NET_SET_MTU, VU_NEED_REPLY, &big, 8, NULL, 0), 0);
	check_u64(VU_NET_SET_MTU, 1);
	assert_non_null(strstr(t.dev.why, "NET_SET_MTU: MTU 1501"));
	assert_int_equal(handle(VU_NET_SET_MTU, VU_NEED_REPLY, &small, 8, NULL, 0), 0);
	check_u64(VU_NET_SET_MTU, 1);
}

static int send_log(int fd, uint64_t size, uint64_t offset, uint32_t flags)
{
	const uint64_t log[2] = { size, offset };

	return handle(VU_SET_LOG_BASE, flags, log, sizeof(log), &fd, 1);
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
	bring_up();
	/* The reply: empty, or the acknowledgement that was asked for. */
	assert_int_equal(send_log(dup(fd), 0x2000, 0x1000, 0), 0);
	check_reply(VU_SET_LOG_BASE, NULL, 0);
	assert_int_equal(send_log(dup(fd), 0x2000, 0x1000, VU_NEED_REPLY), 0);
	check_u64(VU_SET_LOG_BASE, 0);
	/* Used only when LOG_ALL asks for it; page 9 is bit 1 of byte 1. */
	dma_log_mark(&t.dev.log, 0x9000, 1);
	assert_int_equal(map[0x1001], 0);
	assert_int_equal(send_u64(VU_SET_FEATURES, t.dev.features | BIT(VHOST_F_LOG_ALL)),
			 0);
	dma_log_mark(&t.dev.log, 0x9000, 1);
	assert_int_equal(map[0x1001], 2);
	/* Another one while it is written; the old one is left alone. */
	assert_int_equal(send_log(dup(other), 0x8000, 0, 0), 0);
	dma_log_mark(&t.dev.log, 0xa000, 1);
	assert_int_equal(map[0x1001], 2);
	assert_int_equal(map2[1], 4);
	/* Off, and on again. */
	assert_int_equal(
		send_u64(VU_SET_FEATURES, t.dev.features & ~BIT(VHOST_F_LOG_ALL)), 0);
	dma_log_mark(&t.dev.log, 0xb000, 1);
	assert_int_equal(map2[1], 4);
	assert_int_equal(send_u64(VU_SET_FEATURES, t.dev.features | BIT(VHOST_F_LOG_ALL)),
			 0);
	dma_log_mark(&t.dev.log, 0xb000, 1);
	assert_int_equal(map2[1], 12);
	REFUSED(send_log(dup(fd), 0, 0, 0));
	t.dev.protocol = ALL_PROTOCOL;
	REFUSED(send_log(dup(fd), 0x1000, UINT64_MAX, 0));
	t.dev.protocol = ALL_PROTOCOL;
	REFUSED(send_log(event(), 0x1000, 0, 0));
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
	bring_up();
	assert_int_equal(send_log(dup(fd), 0x1000, 0, 0), 0);
	assert_int_equal(send_u64(VU_SET_FEATURES, t.dev.features | BIT(VHOST_F_LOG_ALL)),
			 0);
	assert_int_equal(send_addr(0, 1U << VHOST_VRING_F_LOG, 0x50000, 0), 0);
	assert_int_equal(driver_add(&t.driver, &buf, 0, 1, 0, 7), 0);
	assert_int_equal(vring_take(t.dev.ring[0].vring, &vec, &c), 1);
	vring_put(t.dev.ring[0].vring, &vec, &c, 10);
	vring_publish(t.dev.ring[0].vring);
	assert_int_equal(map[0x50 / 8], 1 << (0x50 % 8));
	assert_int_equal(map[0x10 / 8], 1 << (0x10 % 8)); /* the data */
	munmap(map, 0x1000);
	close(fd);
}

static void test_rest(void **state)
{
	static const uint8_t mac[8] = { 2, 0, 0, 0, 0, 9 };
	int fd = event();
	uint64_t v;

	bring_up();
	memcpy(&v, mac, sizeof(v));
	assert_int_equal(send_u64(VU_SEND_RARP, v), 0);
	assert_int_equal(t.rarps, 1);
	assert_memory_equal(t.rarp, mac, 6);
	/* Taken and closed. */
	assert_int_equal(handle(VU_SET_LOG_FD, 0, NULL, 0, &fd, 1), 0);
	assert_true(fcntl(fd, F_GETFD) < 0);
	fd = event();
	assert_int_equal(handle(VU_SET_BACKEND_REQ_FD, 0, NULL, 0, &fd, 1), 0);
	assert_true(fcntl(fd, F_GETFD) < 0);
	assert_int_equal(send_u64(VU_SET_STATUS, 15), 0);
	assert_int_equal(ask(VU_GET_STATUS), 15);
	assert_non_null(t.dev.ring[0].vring);
	assert_int_equal(send_u64(VU_SET_STATUS, 0), 0);
	assert_null(t.dev.ring[0].vring);
	assert_int_equal(ask(VU_GET_STATUS), 0);
}

/* What a worker may see is changed only while workers are quiet, and a failure leaves
 * them so. */
static void test_quiet(void **state)
{
	unsigned int n;

	bring_up();
	assert_true(t.quiet > 0 && t.quiet == t.go);
	n = t.quiet;
	ask(VU_GET_FEATURES);
	assert_int_equal(t.quiet, n);
	assert_int_equal(send_fd(VU_SET_VRING_CALL, 0, event()), 0);
	assert_int_equal(t.quiet, n + 1);
	assert_true(send_table(3, 3) < 0);
	assert_int_equal(t.quiet, n + 2);
	assert_int_equal(t.go, n + 1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_features),
		TEST(test_features_of_running_ring),
		TEST(test_forms),
		TEST(test_headers),
		TEST(test_needs_feature),
		TEST(test_memory),
		TEST(test_memory_slots),
		TEST(test_ring_keeps_slot),
		TEST(test_memory_moves_under_ring),
		TEST(test_ring),
		TEST(test_ring_without_protocol_features),
		TEST(test_reset_owner_disables),
		TEST(test_ring_order),
		TEST(test_ring_numbers),
		TEST(test_kinds_of_descriptors),
		TEST(test_call),
		TEST(test_acknowledgements),
		TEST(test_log),
		TEST(test_used_log),
		TEST(test_rest),
		TEST(test_quiet),
	};

	return cmocka_run_group_tests_name("vu_proto", tests, NULL, NULL);
}
