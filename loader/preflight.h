/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * preflight: can XDP be attached here, and what must change first?
 *
 * preflight_check() is a pure function of what was gathered, so that every rule is
 * tested without the hardware that breaks it.
 */
#ifndef GN_LOADER_PREFLIGHT_H
#define GN_LOADER_PREFLIGHT_H

#include "cmd.h"
#include "link.h"
#include "xdp.h"

#define KERNEL_FRAGS 0x0512 /* 5.18: XDP programs for frames of several buffers */

/* Longest MTU of a program without frags: a 4 KiB page less 256 bytes of headroom,
 * 320 of skb_shared_info and 22 of Ethernet header with two VLAN tags. */
#define MTU_ONE_PAGE 3498U

struct facts {
	struct link_info link;
	struct xdp_state xdp;
	enum attach_mode mode;
	uint32_t kernel;	     /* major << 8 | minor */
	bool cap_bpf, cap_net_admin; /* CAP_SYS_ADMIN stands for CAP_BPF */
	uint32_t features_on;	     /* masks of enum link_feature */
	uint32_t features_fixed;
	int peer_txvlan; /* veth: 1 on, 0 off, below 0: unknown */
};

struct verdict {
	char error[512];     /* "": go on */
	uint32_t switch_off; /* features to switch off, a mask */
	char note[6][256];
	unsigned int nnotes;
};

/** preflight_gather() - fill @f for @ifname; mode is the caller's. Return: 0, -errno */
int preflight_gather(const char *ifname, struct facts *f);

/** preflight_caps() - which capabilities are missing, "" if none; a static string */
const char *preflight_caps(const struct facts *f);

/** preflight_check() - judge @f */
void preflight_check(const struct facts *f, struct verdict *v);

/**
 * preflight_explain() - why attaching failed, and the remedy
 * @err:	of xdp_attach()
 * @kernel_msg:	what the kernel said, or ""
 * @buf:	filled, @size bytes
 */
void preflight_explain(const struct facts *f, int err, const char *kernel_msg, char *buf,
		       size_t size);

#endif
