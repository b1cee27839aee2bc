// SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only
/*
 * A node that hears next to nothing of an owner: of its messages (share_wire.h) only those
 * pass that let an importer in, or ask it for pages. Later ones wait behind what is lost, as
 * TCP has it. A classifier for the way to the node, IPv4; test only.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

/* As in share_wire.h: where and what. */
#define MAGIC  0x31574d47u
#define HELLO  1
#define ATTACH 2
#define INV    12

struct start {
	__u32 magic; /* little endian */
	__u8 version;
	__u8 op;
} __attribute__((packed));

SEC("hush")
int share_hush(struct __sk_buff *skb)
{
	struct iphdr ip;
	struct tcphdr tcp;
	struct start m;
	__u32 at = ETH_HLEN;

	if (skb->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.protocol != IPPROTO_TCP)
		return TC_ACT_OK;
	at += ip.ihl * 4;
	if (bpf_skb_load_bytes(skb, at, &tcp, sizeof(tcp)))
		return TC_ACT_OK;
	at += tcp.doff * 4;
	if (bpf_skb_load_bytes(skb, at, &m, sizeof(m)) || m.magic != MAGIC)
		return TC_ACT_OK;
	return m.op == HELLO || m.op == ATTACH || m.op == INV ? TC_ACT_OK : TC_ACT_SHOT;
}

char _license[] SEC("license") = "Dual BSD/GPL";
