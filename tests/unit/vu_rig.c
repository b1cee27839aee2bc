// SPDX-License-Identifier: BSD-2-Clause
/* vu_rig: see vu_rig.h. */
#include <dirent.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "vu_rig.h"

struct vu_rig vt;
const uint8_t vt_mac[6] = { 2, 0, 0, 0, 0, 0x11 };

static void on_quiet(void *owner)
{
	assert_ptr_equal(owner, &vt);
	assert_int_equal(vt.quiet, vt.go);
	vt.quiet++;
}

static void on_go(void *owner)
{
	vt.go++;
	assert_int_equal(vt.quiet, vt.go);
}

static void on_rarp(void *owner, const uint8_t mac[6])
{
	assert_int_equal(vt.quiet, vt.go + 1);
	memcpy(vt.rarp, mac, 6);
	vt.rarps++;
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

int vt_setup(void **state)
{
	const struct vring_conf c = { .size = VT_RING_SIZE };

	memset(&vt, 0, sizeof(vt));
	assert_int_equal(vu_mem_guard(), 0);
	fds_before = open_fds();
	guest_init(&vt.guest, false);
	driver_init(&vt.driver, &vt.guest, &c);
	vu_dev_init(&vt.dev, &ops, &vt, vt_mac, VT_MTU);
	return 0;
}

int vt_teardown(void **state)
{
	vu_dev_fini(&vt.dev);
	driver_fini(&vt.driver);
	guest_fini(&vt.guest);
	assert_int_equal(open_fds(), fds_before);
	return 0;
}

/* ---- sending ------------------------------------------------------------------------
 */

int vt_handle(uint32_t request, uint32_t flags, const void *payload, uint32_t size,
	      const int *fd, unsigned int nfds)
{
	const uint32_t hdr[3] = { request, VU_VERSION | flags, size };
	struct vu_msg m = { .nfds = nfds };
	uint8_t raw[VU_HDR_SIZE];

	memcpy(raw, hdr, sizeof(raw));
	memset(&vt.reply, 0xee, sizeof(vt.reply));
	assert_int_equal(vu_msg_header(&vt.dev, &m, raw), 0);
	if (size)
		memcpy(m.payload, payload, size);
	for (unsigned int i = 0; i < nfds; i++)
		m.fd[i] = fd[i];
	return vu_handle(&vt.dev, &m, &vt.reply);
}

int vt_send_u64(uint32_t request, uint64_t v)
{
	return vt_handle(request, 0, &v, sizeof(v), NULL, 0);
}

int vt_send_state(uint32_t request, uint32_t index, uint32_t num)
{
	const struct vhost_vring_state s = { index, num };

	return vt_handle(request, 0, &s, sizeof(s), NULL, 0);
}

int vt_send_fd(uint32_t request, uint64_t v, int fd)
{
	return vt_handle(request, 0, &v, sizeof(v), &fd, fd >= 0);
}

int vt_event(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	assert_true(fd >= 0);
	return fd;
}

/* The reply is this payload, with a correct header. */
void vt_check_reply(uint32_t request, const void *payload, uint32_t size)
{
	const uint32_t hdr[3] = { request, VU_VERSION | VU_REPLY, size };

	assert_int_equal(vt.reply.len, VU_HDR_SIZE + size);
	assert_memory_equal(vt.reply.buf, hdr, sizeof(hdr));
	if (size)
		assert_memory_equal(vt.reply.buf + VU_HDR_SIZE, payload, size);
}

void vt_check_u64(uint32_t request, uint64_t v)
{
	vt_check_reply(request, &v, sizeof(v));
}

/* Ask, without payload, for a number. */
uint64_t vt_ask(uint32_t request)
{
	uint64_t v;

	assert_int_equal(vt_handle(request, 0, NULL, 0, NULL, 0), 0);
	memcpy(&v, vt.reply.buf + VU_HDR_SIZE, sizeof(v));
	vt_check_u64(request, v);
	return v;
}

/* ---- a device on its way up -----------------------------------------------------------
 */

void vt_negotiate(uint64_t features, uint64_t protocol)
{
	assert_int_equal(vt_send_u64(VU_SET_PROTOCOL_FEATURES, protocol), 0);
	assert_int_equal(vt_send_u64(VU_SET_FEATURES, features), 0);
	assert_int_equal(vt.reply.len, 0);
}

struct vu_mem_region vt_region_of(unsigned int i)
{
	const struct guest_region *r = &vt.guest.region[i];

	return (struct vu_mem_region){ r->gpa, r->size, GUEST_UVA + r->gpa, 0 };
}

int vt_send_table(unsigned int n, unsigned int nfds)
{
	struct vt_table tab = { .n = n };
	int fd[VU_MAX_FDS];

	for (unsigned int i = 0; i < n && i < GUEST_REGIONS; i++)
		tab.region[i] = vt_region_of(i);
	for (unsigned int i = 0; i < nfds; i++)
		fd[i] = dup(vt.guest.region[i % GUEST_REGIONS].fd);
	return vt_handle(VU_SET_MEM_TABLE, 0, &tab,
			 8 + n * (uint32_t)sizeof(tab.region[0]), fd, nfds);
}

int vt_send_addr(uint32_t index, uint32_t flags, uint64_t log_gpa, uint64_t shift)
{
	const struct vring_conf c = driver_conf(&vt.driver);
	const struct vhost_vring_addr a = {
		.index = index,
		.flags = flags,
		.desc_user_addr = c.desc_uva + shift,
		.used_user_addr = c.used_uva + shift,
		.avail_user_addr = c.avail_uva + shift,
		.log_guest_addr = log_gpa,
	};

	return vt_handle(VU_SET_VRING_ADDR, 0, &a, sizeof(a), NULL, 0);
}

void vt_start_ring(uint32_t index)
{
	assert_int_equal(vt_send_state(VU_SET_VRING_NUM, index, VT_RING_SIZE), 0);
	assert_int_equal(vt_send_state(VU_SET_VRING_BASE, index, 0), 0);
	assert_int_equal(vt_send_addr(index, 0, 0, 0), 0);
	assert_null(vt.dev.ring[index].vring);
	assert_int_equal(vt_send_fd(VU_SET_VRING_KICK, index, vt_event()), 0);
	assert_non_null(vt.dev.ring[index].vring);
}

void vt_bring_up(void)
{
	vt_negotiate(VT_F_PROTOCOL | BIT(VIRTIO_F_VERSION_1), VT_ALL_PROTOCOL);
	assert_int_equal(vt_send_table(GUEST_REGIONS, GUEST_REGIONS), 0);
	vt_start_ring(0);
}
