/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * link: what the kernel says about an interface.
 *
 * By rtnetlink and the ethtool ioctl only: /sys/class/net shows the network
 * namespace that mounted /sys, which need not be ours.
 */
#ifndef GN_LOADER_LINK_H
#define GN_LOADER_LINK_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>

struct link_info {
	char name[IFNAMSIZ];
	unsigned int ifindex;
	uint32_t mtu; /* bytes */
	bool up;
	char kind[16];		       /* "veth", "bond"; "": a device */
	uint32_t rx_queues, tx_queues; /* in use, 0: unknown */
	uint32_t peer_ifindex;	       /* veth; 0: none */
	bool peer_elsewhere;	       /* the peer is in another namespace */
	char peer[IFNAMSIZ];	       /* its name, "": unknown */
	uint32_t peer_mtu;	       /* bytes, 0: unknown */
	uint32_t peer_tx_queues;       /* in use, 0: unknown */
};

/**
 * link_get() - look up @ifname in this network namespace
 * Return: 0, -ENODEV, -errno
 */
int link_get(const char *ifname, struct link_info *out);

/* Receive features that hide from XDP what was on the wire. X(bit name, kernel's
 * name, ethtool -K name, why). */
#define LINK_FEATURES(X)                                                                 \
	X(LRO, "rx-lro", "lro", "it merges packets before XDP sees them")                \
	X(GRO_HW, "rx-gro-hw", "rx-gro-hw", "it merges packets before XDP sees them")    \
	X(UDP_FWD, "rx-udp-gro-forwarding", "rx-udp-gro-forwarding",                     \
	  "it merges UDP packets that AF_XDP may get in generic mode")                   \
	X(GRO_LIST, "rx-gro-list", "rx-gro-list",                                        \
	  "it chains packets that AF_XDP may get in generic mode")                       \
	X(RXVLAN, "rx-vlan-hw-parse", "rxvlan", "it hides VLAN tags from XDP")

enum link_feature {
#define LINK_FEATURE_ENUM(id, kernel, ethtool, why) LINK_FEAT_##id,
	LINK_FEATURES(LINK_FEATURE_ENUM)
#undef LINK_FEATURE_ENUM
		LINK_FEAT_MAX
};

/* Name for ethtool -K, and the reason to switch it off. */
const char *link_feature_name(enum link_feature f);
const char *link_feature_why(enum link_feature f);

/**
 * link_features_get() - which of LINK_FEATURES are on
 * @on:		bit mask of enum link_feature
 * @fixed:	those that cannot be changed
 *
 * Return: 0, -errno (-EOPNOTSUPP: none of this device)
 */
int link_features_get(const char *ifname, uint32_t *on, uint32_t *fixed);

/** link_features_set() - switch those in @mask. Return: 0, -errno */
int link_features_set(const char *ifname, uint32_t mask, bool on);

/** link_txvlan_on() - does @ifname keep tags out of the frames it sends? 0, 1, -errno */
int link_txvlan_on(const char *ifname);

#endif
