// SPDX-License-Identifier: BSD-2-Clause
/*
 * preflight: each rule, on interfaces that this machine need not have.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../loader/preflight.h"

/* A NIC without anything to complain about. */
static struct facts good(void)
{
	return (struct facts){
		.link = { .name = "eth0",
			  .ifindex = 3,
			  .mtu = 1500,
			  .up = true,
			  .rx_queues = 4,
			  .tx_queues = 4 },
		.kernel = 0x0601,
		.cap_bpf = true,
		.cap_net_admin = true,
		.peer_txvlan = -1,
	};
}

static struct facts veth(void)
{
	struct facts f = good();

	strcpy(f.link.name, "v0");
	strcpy(f.link.kind, "veth");
	strcpy(f.link.peer, "v1");
	f.link.peer_ifindex = 9;
	f.link.rx_queues = 1;
	f.link.peer_tx_queues = 1;
	f.peer_txvlan = 0;
	return f;
}

static void refused(const struct facts *f, const char *why)
{
	struct verdict v;

	preflight_check(f, &v);
	if (!strstr(v.error, why))
		fail_msg("\"%s\" is not in \"%s\"", why, v.error);
}

static void accepted(const struct facts *f, uint32_t switch_off, const char *note)
{
	struct verdict v;

	preflight_check(f, &v);
	assert_string_equal(v.error, "");
	assert_int_equal(v.switch_off, switch_off);
	assert_int_equal(v.nnotes, note ? 1 : 0);
	if (note && !strstr(v.note[0], note))
		fail_msg("\"%s\" is not in \"%s\"", note, v.note[0]);
}

static void test_plain(void **state)
{
	struct facts f = good();

	accepted(&f, 0, NULL);
	f = veth();
	accepted(&f, 0, NULL);
}

static void test_caps(void **state)
{
	struct facts f = good();

	assert_string_equal(preflight_caps(&f), "");
	f.cap_bpf = false;
	assert_string_equal(preflight_caps(&f), "CAP_BPF");
	f.cap_net_admin = false;
	assert_string_equal(preflight_caps(&f), "CAP_BPF and CAP_NET_ADMIN");
	f.cap_bpf = true;
	assert_string_equal(preflight_caps(&f), "CAP_NET_ADMIN");
}

static void test_mtu(void **state)
{
	struct facts f = good();

	f.link.mtu = 9000;
	accepted(&f, 0, NULL);
	f.kernel = 0x0511;
	refused(&f, "MTU of eth0, 9000, is too large");
	refused(&f, "ip link set dev eth0 mtu 1500");
	f.mode = MODE_GENERIC;
	accepted(&f, 0, NULL);
	f.mode = MODE_NATIVE;
	f.link.mtu = MTU_ONE_PAGE;
	accepted(&f, 0, NULL);
	f.link.mtu++;
	refused(&f, "too large");
}

static void test_features(void **state)
{
	const uint32_t all = (1U << LINK_FEAT_MAX) - 1;
	struct facts f = good();

	f.features_on = all;
	accepted(&f, all, NULL);
	f.features_on = 1U << LINK_FEAT_LRO;
	f.features_fixed = all;
	refused(&f, "has lro on and cannot switch it off");
	/* Fixed and off is as good as off. */
	f.features_on = 0;
	accepted(&f, 0, NULL);
	/* Hidden tags lose VLAN instances, not everything. */
	f.features_on = 1U << LINK_FEAT_RXVLAN;
	accepted(&f, 0, "cannot switch off rxvlan");
	f = veth();
	f.features_on = 1U << LINK_FEAT_RXVLAN | 1U << LINK_FEAT_UDP_FWD;
	accepted(&f, 1U << LINK_FEAT_UDP_FWD, NULL);
}

static void test_veth(void **state)
{
	struct facts f = veth();

	f.peer_txvlan = 1;
	accepted(&f, 0, "ethtool -K v1 txvlan off");
	f.peer_txvlan = -1;
	f.link.peer[0] = '\0';
	accepted(&f, 0, "ethtool -K PEER txvlan off");
	f = veth();
	f.link.peer_tx_queues = 4;
	refused(&f, "ethtool -L v0 rx 4");
	f.mode = MODE_GENERIC;
	accepted(&f, 0, NULL);
	f = good();
	f.link.peer_tx_queues = 8; /* no veth: means nothing */
	accepted(&f, 0, NULL);
}

static void test_link(void **state)
{
	struct facts f = good();

	f.link.up = false;
	accepted(&f, 0, "ip link set dev eth0 up");
	f = good();
	f.link.rx_queues = GN_MAX_QUEUES;
	accepted(&f, 0, NULL);
	f.link.rx_queues++;
	accepted(&f, 0, "ethtool -L eth0 combined 64");
}

static void test_busy(void **state)
{
	struct facts f = good();

	f.xdp = (struct xdp_state){ .found = XDP_FOUND_FOREIGN,
				    .mode = XDP_MODE_NATIVE,
				    .main_id = 7,
				    .name = "other" };
	refused(&f, "eth0 is busy: XDP program \"other\" (id 7)");
	refused(&f, "ip link set dev eth0 xdp off");
	f.xdp.mode = XDP_MODE_SKB;
	refused(&f, "ip link set dev eth0 xdpgeneric off");
	f.xdp.found = XDP_FOUND_HIDDEN;
	refused(&f, "on another bpffs");
	/* Programs that can be joined, and our own debris, are no obstacle. */
	f.xdp.found = XDP_FOUND_NONE;
	accepted(&f, 0, NULL);
	f.xdp.found = XDP_FOUND_ORPHAN;
	accepted(&f, 0, NULL);
}

static void explained(const struct facts *f, int err, const char *kernel,
		      const char *want)
{
	char buf[700];

	preflight_explain(f, err, kernel, buf, sizeof(buf));
	if (!strstr(buf, want))
		fail_msg("\"%s\" is not in \"%s\"", want, buf);
}

static void test_explain(void **state)
{
	struct facts f = veth();

	explained(&f, -EPERM, "", "run as root");
	explained(&f, -EOPNOTSUPP, "", "--mode generic");
	explained(&f, -EBUSY, "", "ip link set dev v0 xdp off");
	explained(&f, -ENOSPC, "veth: too few",
		  "ethtool -L v0 rx N; the kernel says: veth: too few");
	f.link.peer_mtu = 9000;
	explained(&f, -ERANGE, "", "(it is 9000)");
	explained(&f, -EINVAL, "", "Invalid argument; try --verbose");
	f.link.mtu = 9000;
	explained(&f, -EINVAL, "", "at an MTU of 9000");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain), cmocka_unit_test(test_caps),
		cmocka_unit_test(test_mtu),   cmocka_unit_test(test_features),
		cmocka_unit_test(test_veth),  cmocka_unit_test(test_link),
		cmocka_unit_test(test_busy),  cmocka_unit_test(test_explain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
