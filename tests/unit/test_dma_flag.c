// SPDX-License-Identifier: BSD-2-Clause
/*
 * The DMA log's flag in XDP's map of instances: it is there before the first write is
 * marked and until after the last, whoever turned the log on; and packets that came
 * without it are marked all the same, and counted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <linux/vhost_types.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../../user/daemon/dma_log.h"
#include "../../user/daemon/vhost/vu_proto.h"
#include "../../user/lib/log.h"
#include "dma_rig.h"

#define BIT(n)	     (1ULL << (n))
#define CMD(c, rest) "{\"cmd\":\"dma-log-" c "\",\"instance\":\"vm1\"" rest "}"

static struct dma_log *log_of(const struct dma_rig *r)
{
	uint64_t pages;

	return r->in->port->ops->dma_log(r->in->port, &pages);
}

static void ask(struct dma_rig *r, const char *line)
{
	struct ctl_fds fds;

	json_decref(dma_ask_ok(r, line, &fds));
	ctl_fds_close(&fds);
}

/* XDP was told @logged, once, while the log was on or not. */
static void told(struct dma_rig *r, bool logged, bool was_on)
{
	assert_int_equal(r->changes, 1);
	assert_int_equal(r->said_logged, logged);
	assert_int_equal(r->was_on, was_on);
	r->changes = 0;
}

static void counts(struct dma_rig *r, uint64_t flagged, uint64_t unflagged)
{
	struct ctl_fds fds;
	json_t *o = dma_ask_ok(r, CMD("show", ""), &fds);

	assert_int_equal(dma_number(o, "flagged"), flagged);
	assert_int_equal(dma_number(o, "unflagged"), unflagged);
	json_decref(o);
}

static void test_commands(void **state)
{
	struct dma_rig *r = *state;

	dma_connect(r, false);
	assert_int_equal(r->changes, 0);
	ask(r, CMD("start", ",\"owner\":\"me\""));
	told(r, true, false);
	/* What is refused changes nothing. */
	dma_refused(r, CMD("start", ""), "on already");
	dma_refused(r, CMD("stop", ",\"owner\":\"you\""), "belongs to");
	ask(r, CMD("swap", ",\"owner\":\"me\""));
	assert_int_equal(r->changes, 0);
	assert_true(r->in->port->logged);
	ask(r, CMD("stop", ",\"owner\":\"me\""));
	told(r, false, false);
}

/* Nothing to mark in: the flag goes again. */
static void test_failed_start(void **state)
{
	struct dma_rig *r = *state;
	struct rlimit all, none;
	int fd;

	dma_connect(r, false);
	assert_return_code(getrlimit(RLIMIT_NOFILE, &all), errno);
	none = all;
	fd = dup(0);
	assert_return_code(fd, errno);
	none.rlim_cur = (rlim_t)fd;
	close(fd);
	assert_return_code(setrlimit(RLIMIT_NOFILE, &none), errno);
	dma_refused(r, CMD("start", ""), "bitmaps");
	assert_return_code(setrlimit(RLIMIT_NOFILE, &all), errno);
	assert_int_equal(r->changes, 2);
	assert_false(r->said_logged);
	assert_false(dma_log_on(log_of(r)));
}

/* ---- the front end's log ------------------------------------------------------- */

static void want_log(struct dma_rig *r, bool on)
{
	const uint64_t features = BIT(VIRTIO_F_VERSION_1) | BIT(VIRTIO_NET_F_MRG_RXBUF) |
				  BIT(VIRTIO_NET_F_GUEST_CSUM) |
				  (on ? BIT(VHOST_F_LOG_ALL) : 0);

	dma_send(r, VU_SET_FEATURES, &features, sizeof(features), NULL, 0);
	dma_sync(r);
}

static void set_log_base(struct dma_rig *r)
{
	const uint64_t protocol = BIT(VU_P_LOG_SHMFD);
	const uint64_t log[2] = { (GUEST_RING + GUEST_RING_LEN) / 4096 / 8, 0 };
	int fd = memfd_create("log", MFD_CLOEXEC);
	uint8_t reply[VU_HDR_SIZE];

	assert_return_code(fd, errno);
	assert_return_code(ftruncate(fd, (off_t)((log[0] + 4095) & ~4095ULL)), errno);
	dma_send(r, VU_SET_PROTOCOL_FEATURES, &protocol, sizeof(protocol), NULL, 0);
	dma_send(r, VU_SET_LOG_BASE, log, sizeof(log), &fd, 1);
	dma_answer(r, reply, sizeof(reply));
	close(fd);
}

static void test_front_end(void **state)
{
	struct dma_rig *r = *state;

	dma_connect(r, false);
	set_log_base(r);
	assert_int_equal(r->changes, 0);
	/* No worker writes until it is told that all is as it should be: on is fine. */
	want_log(r, true);
	told(r, true, true);
	/* A second reader, and the first one leaves: it stays. */
	ask(r, CMD("start", ""));
	want_log(r, false);
	assert_int_equal(r->changes, 0);
	want_log(r, true);
	ask(r, CMD("stop", ""));
	assert_int_equal(r->changes, 0);
	assert_true(r->in->port->logged);
	want_log(r, false);
	told(r, false, false);
	/* It leaves without a word. */
	want_log(r, true);
	told(r, true, true);
	dma_hang_up(r);
	told(r, false, false);
}

/* ---- packets -------------------------------------------------------------------- */

static void test_packets(void **state)
{
	struct dma_rig *r = *state;

	dma_connect(r, false);
	dma_refill(r, 0);
	/* Off: nobody counts. */
	r->frame_flags = GN_F_LOGGED;
	dma_deliver(r, 0, 500, 1);
	ask(r, CMD("start", ""));
	counts(r, 0, 0);
	/* On its way before: marked like the next one. */
	ask(r, CMD("swap", ""));
	r->frame_flags = 0;
	dma_deliver(r, 0, 500, 2);
	counts(r, 0, 1);
	assert_true(dma_log_dirty(log_of(r), 1) > 0);
	ask(r, CMD("swap", ""));
	r->frame_flags = GN_F_LOGGED;
	dma_deliver(r, 1, 500, 3);
	dma_deliver(r, 0, 500, 4);
	counts(r, 2, 1);
	assert_true(dma_log_dirty(log_of(r), 0) > 0);
	/* A local instance's has no metadata. */
	dma_inject(r, 0, 500, 5);
	counts(r, 2, 1);
	ask(r, CMD("stop", ""));
	dma_deliver(r, 0, 500, 6);
	counts(r, 2, 1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, dma_setup, dma_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_commands),
		TEST(test_failed_start),
		TEST(test_front_end),
		TEST(test_packets),
	};

	log_set_level(LOG_LVL_ERROR);
	return cmocka_run_group_tests_name("dma_flag", tests, NULL, NULL);
}
