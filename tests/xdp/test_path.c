// SPDX-License-Identifier: BSD-2-Clause
/*
 * Where frames go: to the host untouched, or to AF_XDP with metadata before or inside
 * them; and what it takes to load the program. Needs root.
 */
#include "check.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <cap-ng.h>
#include <linux/if_link.h>

/* Where nothing is remembered, no entry is like a frame, also one of zeros whose lengths and
 * checksums are right. Before others: the entry has to be a new one. */
static void test_zeros(void **state)
{
	uint8_t f[118] = { 0 }, *ip = f + 18;
	uint32_t generation = nic.conf.generation;

	ip[3] = 100;   /* length */
	ip[10] = 0xff; /* checksum */
	ip[11] = (uint8_t)~ip[3];
	nic_generation(&nic, 0);
	check_pass("zeros", f, sizeof(f), GN_CNT_PASS_OTHER);
	nic_generation(&nic, generation);
	check_pass("zeros, remembering", f, sizeof(f), GN_CNT_PASS_OTHER);
	fixtures += 2;
}

static void test_not_ours(void **state)
{
	static uint8_t f[FRAME_MAX];
	struct frame_spec s = { .dst = mac_other, .payload = 100 };
	unsigned int len = frame_build(&s, f);

	check_pass("other address", f, len, GN_CNT_PASS_OTHER);
	s = (struct frame_spec){ .ntags = 1, .tci = { 101 }, .payload = 100 };
	len = frame_build(&s, f);
	check_pass("our address on another VLAN", f, len, GN_CNT_PASS_OTHER);
	s = (struct frame_spec){
		.dst = mac_plain, .ntags = 1, .tci = { 100 }, .payload = 100
	};
	len = frame_build(&s, f);
	check_pass("untagged instance's address on a VLAN", f, len, GN_CNT_PASS_OTHER);
	s = (struct frame_spec){ .ntags = 2, .tci = { 55, 100 }, .payload = 100 };
	len = frame_build(&s, f);
	check_pass("inner tag does not count", f, len, GN_CNT_PASS_OTHER);

	s = (struct frame_spec){ .payload = 100 };
	len = frame_build(&s, f);
	memset(f, 0xff, 6);
	check_pass("broadcast", f, len, GN_CNT_PASS_MULTICAST);
	memcpy(f, "\x33\x33\x00\x00\x00\x01", 6);
	check_pass("multicast", f, len, GN_CNT_PASS_MULTICAST);
	memcpy(f, "\x01\x00\x5e\x00\x00\x01", 6);
	check_pass("multicast, ip4", f, 14, GN_CNT_PASS_MULTICAST);

	/* Another program's metadata is not ours to take away from the host. */
	frame_build(&s, f);
	memcpy(f, mac_other, 6);
	run.foreign = 8;
	check_pass("foreign metadata", f, len, GN_CNT_PASS_OTHER);
	run.foreign = 0;
	fixtures += 8;
}

static void test_oversize(void **state)
{
	static uint8_t f[FRAME_MAX];
	struct frame_spec s = { .payload = 1000 };
	unsigned int len = frame_build(&s, f);

	nic_config(&nic, len, 0, secret);
	check_redirect("just fits", f, len, &in_all, IN_FRONT);
	nic_config(&nic, len - 1, 0, secret);
	check_pass("one byte too long", f, len, GN_CNT_PASS_OVERSIZE);
	memcpy(f, mac_other, 6);
	check_pass("too long, not ours", f, len, GN_CNT_PASS_OTHER);
	s.payload = 9000;
	len = frame_build(&s, f);
	nic_config(&nic, 1522, 0, secret);
	check_pass("several buffers", f, len, GN_CNT_PASS_OVERSIZE);
	nic_config(&nic, MAX_FRAME, 0, secret);
	fixtures += 4;
}

static void test_no_socket(void **state)
{
	static uint8_t f[FRAME_MAX];

	nic_socket(&nic, false);
	for (size_t i = 0; i < table_len; i++) {
		unsigned int len = frame_build(&table[i].s, f);

		check_pass(table[i].name, f, len, GN_CNT_PASS_NO_SOCKET);
	}
	nic_config(&nic, MAX_FRAME, GN_CONFIG_INBAND, secret);
	check_pass("in-band", f, frame_build(&table[0].s, f), GN_CNT_PASS_NO_SOCKET);
	nic_config(&nic, MAX_FRAME, 0, secret);
	nic_socket(&nic, true);
	run_spec("socket again", &table[0].s);
	fixtures += 3;
}

static void test_instances(void **state)
{
	struct gn_instance in = { .id = 0xfc05, .flags = GN_INSTANCE_TSO6 };
	struct frame_spec s = { .dst = mac_other, .payload = 10 };
	static uint8_t f[FRAME_MAX];
	unsigned int len;
	uint32_t flow;

	/* each offload lets its own kind merge */
	for (unsigned int flags = 0; flags < 8; flags++) {
		in.flags = (uint16_t)flags;
		nic_instance(&nic, mac_other, 0, &in);
		for (unsigned int kind = 0; kind < 4; kind++) {
			s.v6 = kind & 1;
			s.proto = kind & 2 ? 17 : 6;
			len = frame_build(&s, f);
			check_redirect("offload flags", f, len, &in, IN_FRONT);
		}
	}
	/* same tuple, other instance: another flow */
	s.v6 = false;
	s.proto = 6;
	len = frame_build(&s, f);
	flow = check_redirect("id", f, len, &in, IN_FRONT).flow;
	in.id++;
	nic_instance(&nic, mac_other, 0, &in);
	assert_int_not_equal(check_redirect("id + 1", f, len, &in, IN_FRONT).flow, flow);
	in.id += 0x400;
	nic_instance(&nic, mac_other, 0, &in);
	assert_int_not_equal(check_redirect("generation", f, len, &in, IN_FRONT).flow,
			     flow);

	nic_instance(&nic, mac_other, 0, NULL);
	check_pass("removed", f, len, GN_CNT_PASS_OTHER);
	fixtures += 4;
}

/* A DMA log is switched on for an instance, and off: its very next frame says so, whatever
 * it is and wherever the metadata stands; nothing else about it changes. */
static void test_logged(void **state)
{
	static const uint32_t conf[] = { 0, GN_CONFIG_INBAND, GN_CONFIG_STREAM };
	static const enum place place[] = { IN_FRONT, IN_FRAME, IN_STREAM };
	static uint8_t f[FRAME_MAX];
	struct gn_instance on = in_all, in_both[2];
	unsigned int len;

	on.flags |= GN_INSTANCE_LOGGED;
	for (size_t p = 0; p < sizeof(conf) / sizeof(conf[0]); p++) {
		nic_config(&nic, MAX_FRAME, conf[p], secret);
		nic.stream->cons = nic.stream->prod;
		nic_instance(&nic, frame_mac, 0, &on);
		for (size_t i = 0; i < table_len; i++) {
			const struct gn_instance *in = instance_of(&table[i].s);

			len = frame_build(&table[i].s, f);
			check_redirect(table[i].name, f, len, in == &in_all ? &on : in,
				       place[p]);
		}
		nic_instance(&nic, frame_mac, 0, &in_all);
		for (size_t i = 0; i < table_len; i++) {
			len = frame_build(&table[i].s, f);
			check_redirect(table[i].name, f, len, instance_of(&table[i].s),
				       place[p]);
		}
	}

	/* In the middle of a connection, with map entries remembered and not. Where
	 * records say only what is new, this is; it breaks no run. */
	in_both[0] = in_all;
	in_both[1] = on;
	for (uint32_t generation = 0; generation < 2; generation++) {
		struct frame_spec s = {
			.opt_len = 12, .payload = 1448, .sport = 777, .seq = 1
		};
		uint64_t key = 0;

		nic_generation(&nic, generation * 1000);
		for (unsigned int i = 0; i < 24; i++) {
			const struct gn_instance *in = &in_both[i / 3 % 2];
			uint32_t seq = nic.stream->prod;
			struct gn_meta m;

			if (i % 3 == 0)
				nic_instance(&nic, frame_mac, 0, in);
			len = frame_build(&s, f);
			m = check_redirect("in a row", f, len, in, IN_STREAM);
			s.seq += s.payload;
			assert_int_equal(!!(m.flags & GN_F_LOGGED), i / 3 % 2);
			assert_true(!i || m.key == key);
			if (i && seq % GN_STREAM_EVERY)
				assert_int_not_equal(
					nic.stream->next[seq % GN_STREAM_SIZE].class,
					GN_NEXT_WHOLE);
			key = m.key;
		}
	}
	nic_generation(&nic, 1);
	nic_instance(&nic, frame_mac, 0, &in_all);
	nic_config(&nic, MAX_FRAME, 0, secret);
	fixtures += 8;
}

/* ---- metadata's place ----------------------------------------------------- */

static void test_inband(void **state)
{
	static uint8_t f[FRAME_MAX];
	uint64_t key;
	unsigned int len;

	key = run_spec("metadata", &table[0].s).key;
	nic_config(&nic, MAX_FRAME, GN_CONFIG_INBAND, secret);
	len = frame_build(&table[0].s, f);
	assert_true(check_redirect("in-band", f, len, &in_all, IN_FRAME).key == key);
	for (size_t i = 0; i < table_len; i++) {
		len = frame_build(&table[i].s, f);
		check_redirect(table[i].name, f, len, instance_of(&table[i].s), IN_FRAME);
		fixtures++;
	}
	len = frame_build(&table[0].s, f);
	memcpy(f, mac_other, 6);
	check_pass("not ours", f, len, GN_CNT_PASS_OTHER);
	nic_config(&nic, MAX_FRAME, 0, secret);
}

/* Another program's metadata keeps its place; ours goes into the frame. When there is
 * no headroom for that, the frame is lost, and counted. */
static void test_foreign_meta(void **state)
{
	static uint8_t f[FRAME_MAX];
	unsigned int len = frame_build(&table[0].s, f);

	run.foreign = 8;
	check_redirect("foreign metadata", f, len, &in_all, IN_FRAME);
	for (unsigned int i = 0; i < run.foreign; i++)
		assert_int_equal(run.meta[i], 0xee);
	run.foreign = 200;
	if (nic_run(&nic, f, len, &run)) {
		run.foreign = 0;
		printf("metadata limited to 32 bytes: no way to use up the headroom\n");
		skip();
	}
	assert_int_equal(run.verdict, XDP_DROP);
	counted("no headroom", GN_CNT_DROP_META, 1U, -1);
	run.foreign = 0;
	fixtures += 2;
}

/* ---- outside BPF_PROG_TEST_RUN --------------------------------------------- */

/*
 * A frame through the driver and a real socket. TAP devices have a metadata area
 * on newer kernels; without one the frame arrives as with GN_CONFIG_INBAND.
 */
static void deliver(bool inband)
{
	static uint8_t f[FRAME_MAX];
	struct frame_spec s = { .opt_len = 12, .payload = 500 };
	unsigned int len = frame_build(&s, f);
	struct pollfd p = { .fd = xsk_socket__fd(nic.xsk), .events = POLLIN };
	struct gn_meta want = check_redirect("test run", f, len, &in_all,
					     inband ? IN_FRAME : IN_FRONT),
		       m;
	const struct xdp_desc *d;
	uint32_t idx = 0;
	uint8_t *got;

	assert_int_equal(write(nic.tap, f, len), (ssize_t)len);
	assert_int_equal(poll(&p, 1, 30000), 1);
	assert_int_equal(xsk_ring_cons__peek(&nic.rx, 1, &idx), 1);
	d = xsk_ring_cons__rx_desc(&nic.rx, idx);
	got = (uint8_t *)nic.umem_area + d->addr;
	if (!inband && d->len == len) {
		memcpy(&m, got - GN_META_SIZE, sizeof(m));
	} else {
		assert_int_equal(d->len, len + GN_META_SIZE);
		want.magic = GN_META_MAGIC_INBAND;
		memcpy(&m, got, sizeof(m));
		got += GN_META_SIZE;
	}
	assert_memory_equal(&m, &want, sizeof(m));
	assert_memory_equal(got, f, len);
	xsk_ring_cons__release(&nic.rx, 1);
	nic.frames++;
	fixtures++;
}

static void test_driver(void **state)
{
	assert_int_equal(bpf_xdp_attach(nic.ifindex, nic.prog, XDP_FLAGS_DRV_MODE, NULL),
			 0);
	deliver(false);
	nic_config(&nic, MAX_FRAME, GN_CONFIG_INBAND, secret);
	deliver(true);
	nic_config(&nic, MAX_FRAME, 0, secret);
	assert_int_equal(bpf_xdp_detach(nic.ifindex, XDP_FLAGS_DRV_MODE, NULL), 0);
}

/* What `ghostnic attach` has to hold, and no more. */
static void test_capabilities(void **state)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		struct ghostnic_bpf *skel;

		capng_clear(CAPNG_SELECT_BOTH);
		capng_updatev(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_BPF,
			      CAP_NET_ADMIN, CAP_PERFMON, -1);
		if (capng_apply(CAPNG_SELECT_CAPS))
			_exit(2);
		skel = ghostnic_bpf__open_and_load();
		ghostnic_bpf__destroy(skel);
		_exit(skel ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	fixtures++;
}

/* The verifier gives up after a million instructions, and 6.1's needs more than later
 * ones: what it takes here has to leave it room. */
static void test_margin(void **state)
{
	struct bpf_prog_info info = { 0 };
	uint32_t size = sizeof(info);

	assert_int_equal(bpf_obj_get_info_by_fd(nic.prog, &info, &size), 0);
	print_message("# the verifier went through %u instructions\n",
		      info.verified_insns);
	assert_in_range(info.verified_insns, 1, 250000);
	fixtures++;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_zeros),	  cmocka_unit_test(test_not_ours),
		cmocka_unit_test(test_oversize),  cmocka_unit_test(test_no_socket),
		cmocka_unit_test(test_instances), cmocka_unit_test(test_logged),
		cmocka_unit_test(test_inband),	  cmocka_unit_test(test_foreign_meta),
		cmocka_unit_test(test_driver),	  cmocka_unit_test(test_capabilities),
		cmocka_unit_test(test_margin),
	};

	return check_main("xdp path", tests, sizeof(tests) / sizeof(tests[0]));
}
