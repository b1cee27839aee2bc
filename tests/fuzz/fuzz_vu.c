// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz the vhost-user protocol: the input is a stream of messages to one device, with
 * real descriptors, and after each of them the rings that run are used as a worker would.
 *
 * A message in the input: request, flags, number and kinds of descriptors (4 bytes), size
 * (2 bytes), payload. Guest memory is a memfd that the input's last bytes fill, so that
 * rings hold something.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../user/daemon/vhost/vu_proto.h"
#include "../../user/lib/log.h"

#define MEM_SIZE     0x10000 /* bytes */
#define SMALL_SIZE   0x1000
#define MAX_MESSAGES 64
#define BURST	     8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int mem_fd = -1, small_fd = -1;
static uint8_t *mem;
static bool is_quiet;

static void on_quiet(void *owner)
{
	if (is_quiet)
		abort();
	is_quiet = true;
}

static void on_go(void *owner)
{
	if (!is_quiet)
		abort();
	is_quiet = false;
}

static void on_rarp(void *owner, const uint8_t mac[6])
{
	if (!is_quiet)
		abort();
}

static const struct vu_dev_ops ops = { .quiet = on_quiet, .go = on_go, .rarp = on_rarp };

static int open_kind(unsigned int kind)
{
	switch (kind & 3) {
	case 0: return dup(mem_fd);
	case 1: return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	case 2: return dup(small_fd);
	default: return open("/dev/null", O_RDWR | O_CLOEXEC);
	}
}

/* Take, write, give back: chains of any shape. */
static void use_ring(struct vring *v)
{
	struct iovec iov[VRING_MAX_IOV];
	uint64_t gpa[VRING_MAX_IOV];
	struct vring_vec vec = { 0, VRING_MAX_IOV, iov, gpa };

	for (int i = 0; i < BURST; i++) {
		struct vring_chain c;

		vec.n = 0;
		if (vring_take(v, &vec, &c) <= 0)
			break;
		for (unsigned int k = 0; k < c.nin; k++) {
			struct iovec *e = &iov[c.first + c.nout + k];

			memset(e->iov_base, 0x5a, e->iov_len < 64 ? e->iov_len : 64);
		}
		vring_put(v, &vec, &c, c.in_len);
	}
	vring_publish(v);
	vring_should_notify(v);
	vring_set_wakeup(v, true);
}

static void use_rings(struct vu_dev *d)
{
	for (unsigned int i = 0; i < VU_MAX_RINGS; i++)
		if (d->ring[i].vring && vu_ring_enabled(d, &d->ring[i]))
			use_ring(d->ring[i].vring);
	vu_dev_broken(d);
}

/* One message at @p. Return: bytes used, 0: no more */
static size_t message(struct vu_dev *d, const uint8_t *p, size_t size, bool *ended)
{
	struct vu_msg m;
	struct vu_reply r;
	uint32_t hdr[3];
	uint8_t raw[VU_HDR_SIZE];

	if (size < 6)
		return 0;
	hdr[0] = p[0];
	hdr[1] = p[1] ^ VU_VERSION;
	hdr[2] = (uint32_t)(p[4] | p[5] << 8);
	memcpy(raw, hdr, sizeof(raw));
	/* Not a byte more than what came is there to be read. */
	memset(&m, 0xa5, sizeof(m));
	m.nfds = 0;
	if (vu_msg_header(d, &m, raw) || hdr[2] > size - 6) {
		*ended = true;
		return 6;
	}
	memcpy(m.payload, p + 6, hdr[2]);
	for (unsigned int i = 0; i < (p[2] & 15U) && i < VU_MAX_FDS; i++)
		m.fd[m.nfds++] = open_kind(p[3] >> (i % 4 * 2));
	if (vu_handle(d, &m, &r)) {
		if (!d->why[0] || r.len || r.fd >= 0)
			abort();
		*ended = true;
	} else if (is_quiet ||
		   (r.len && (r.len < VU_HDR_SIZE || r.len > sizeof(r.buf)))) {
		abort();
	}
	if (r.fd >= 0)
		close(r.fd);
	return 6 + hdr[2];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vu_dev d; /* must not move while it has memory */
	size_t tail = size < 2048 ? size : 2048;
	int lowest, after;
	bool ended = false;

	if (mem_fd < 0) {
		log_set_level(LOG_LVL_ERROR);
		mem_fd = memfd_create("guest", MFD_CLOEXEC);
		small_fd = memfd_create("small", MFD_CLOEXEC);
		if (vu_mem_guard() || ftruncate(mem_fd, MEM_SIZE) ||
		    ftruncate(small_fd, SMALL_SIZE))
			abort();
		mem = mmap(NULL, MEM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, mem_fd, 0);
		if (mem == MAP_FAILED)
			abort();
	}
	memset(mem, 0, MEM_SIZE);
	memcpy(mem, data + size - tail, tail);
	lowest = dup(mem_fd);
	close(lowest);
	vu_dev_init(&d, &ops, NULL, (const uint8_t[6]){ 2, 0, 0, 0, 0, 1 }, 1500);
	for (int i = 0; size && i < MAX_MESSAGES; i++) {
		size_t n = message(&d, data, size, &ended);

		if (!n)
			break;
		if (ended) {
			vu_dev_reset(&d);
			is_quiet = ended = false;
			if (d.features || d.mem.nregions)
				abort();
		} else {
			use_rings(&d);
		}
		data += n;
		size -= n;
	}
	is_quiet = false;
	vu_dev_fini(&d);
	/* Every descriptor was closed: the lowest free one is as before. */
	after = dup(mem_fd);
	close(after);
	if (after != lowest)
		abort();
	return 0;
}
