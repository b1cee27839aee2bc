// SPDX-License-Identifier: BSD-2-Clause
/* One line, one kind of frame, and the class it must get. */
#include "check.h"

static const uint8_t ext_hop[8] = { 0, 0, 1, 4 };
const uint8_t ext_hop_dst[16] = { 60, 0, 1, 4, 0, 0, 0, 0, 0, 0, 1, 4 };
static const uint8_t ext_rt_done[24] = { 0, 2, 4, 0 };
static const uint8_t ext_rt_left[24] = { 0, 2, 4, 1 };
static const uint8_t ext_dst16[16] = { 0, 1, 1, 12 };
static const uint8_t ext_home[24] = { 0, 2, 1, 2, 0, 0, 201, 16 };
const uint8_t ext_hop64[64] = { 0, 7, 1, 60 };
static const uint8_t ext_hop72[72] = { 0, 8, 1, 60 };
static const uint8_t ext_four[32] = { [0] = 60, [8] = 60, [16] = 60 };
static const uint8_t ext_five[40] = { [0] = 60, [8] = 60, [16] = 60, [24] = 60 };
static const uint8_t ext_frag0[8] = { 0, 0, 0, 1, 1, 2, 3, 4 };
static const uint8_t ext_frag_atomic[8] = { 0, 0, 0, 0, 1, 2, 3, 4 };
static const uint8_t ext_frag8[8] = { 0, 0, 0, 8, 1, 2, 3, 4 };
static const uint8_t ext_hop_frag[16] = { 44, 0, 1, 4, 0, 0, 0, 0, 0, 0, 0, 1 };
static const uint8_t ext_mixed[48] = { [0] = 43, [8] = 60, [9] = 2, [32] = 0, [33] = 1 };

/* A line each. */
/* clang-format off */
const struct table_row table[] = {
#define CONT	GN_CLASS_CONTINUE
#define CLOSE	GN_CLASS_CLOSE
#define START	GN_CLASS_START
#define ALONE	GN_CLASS_ALONE
	{ "tcp4", { .payload = 1448 }, CONT, 0 },
	{ "tcp4 one byte", { .payload = 1 }, CONT, 0 },
	{ "tcp4 timestamps", { .opt_len = 12, .payload = 1448 }, CONT, 0 },
	{ "tcp4 one byte, padded", { .payload = 1, .pad = 5 }, CONT, 0 },
	{ "tcp4 ack, padded to 60", { .pad = 6 }, ALONE, GN_CNT_ALONE_TCP_EMPTY },
	{ "tcp4 ack with options", { .opt_len = 12 }, ALONE, GN_CNT_ALONE_TCP_EMPTY },
	{ "tcp4 psh", { .tcp_flags = T_ACK | T_PSH, .payload = 9 }, CLOSE, 0 },
	{ "tcp4 fin", { .tcp_flags = T_ACK | T_FIN, .payload = 9 }, CLOSE, 0 },
	{ "tcp4 fin, empty", { .tcp_flags = T_ACK | T_FIN }, ALONE, GN_CNT_ALONE_TCP_EMPTY },
	{ "tcp4 cwr", { .tcp_flags = T_ACK | T_CWR, .payload = 9 }, START, 0 },
	{ "tcp4 cwr, empty", { .tcp_flags = T_ACK | T_CWR }, ALONE, GN_CNT_ALONE_TCP_EMPTY },
	{ "tcp4 cwr psh", { .tcp_flags = T_ACK | T_CWR | T_PSH, .payload = 9 }, ALONE, GN_CNT_ALONE_TCP_FLAGS },
	{ "tcp4 cwr fin", { .tcp_flags = T_ACK | T_CWR | T_FIN, .payload = 9 }, ALONE, GN_CNT_ALONE_TCP_FLAGS },
	{ "tcp4 ece", { .tcp_flags = T_ACK | T_ECE, .payload = 9 }, CONT, 0 },
	{ "tcp4 syn", { .tcp_flags = T_SYN, .opt_len = 20 }, ALONE, GN_CNT_ALONE_TCP_FLAGS },
	{ "tcp4 syn with data", { .tcp_flags = T_SYN, .opt_len = 40, .payload = 100 }, ALONE, GN_CNT_ALONE_TCP_FLAGS },
	{ "tcp4 rst", { .tcp_flags = T_RST }, ALONE, GN_CNT_ALONE_TCP_FLAGS },
	{ "tcp4 urg", { .tcp_flags = T_ACK | T_URG, .urg = 3, .payload = 9 }, ALONE, GN_CNT_ALONE_TCP_FLAGS },
	{ "tcp4 urgent pointer without urg", { .urg = 3, .payload = 9 }, CONT, 0 },
	{ "tcp4 40 bytes of options", { .opt_len = 40, .payload = 1400 }, CONT, 0 },
	{ "tcp4 bad checksum", { .csum = CSUM_BAD, .payload = 100 }, CONT, 0 },
	{ "tcp4 partial checksum", { .csum = CSUM_PARTIAL, .payload = 1000 }, CONT, 0 },
	{ "tcp4 partial ack", { .csum = CSUM_PARTIAL, .opt_len = 12 }, ALONE, GN_CNT_ALONE_TCP_EMPTY },
	{ "tcp4 checksum field 0", { .csum = CSUM_ZERO, .payload = 10 }, CONT, 0 },
	{ "tcp4 to an instance without offloads", { .dst = mac_plain, .payload = 100 }, ALONE, 0 },
	{ "tcp4 no flags at all but ece", { .tcp_flags = T_ECE, .payload = 5 }, CONT, 0 },
	{ "ip4 options", { .ip_opt_len = 4, .payload = 100 }, ALONE, GN_CNT_ALONE_IP_OPTIONS },
	{ "ip4 40 bytes of options", { .ip_opt_len = 40, .opt_len = 40, .payload = 100 }, ALONE, GN_CNT_ALONE_IP_OPTIONS },
	{ "ip4 options, syn", { .ip_opt_len = 8, .tcp_flags = T_SYN }, ALONE, GN_CNT_ALONE_IP_OPTIONS },
	{ "ip4 first fragment", { .frag = 0x2000, .payload = 100 }, ALONE, GN_CNT_ALONE_FRAGMENT },
	{ "ip4 middle fragment", { .frag = 0x2010, .payload = 100 }, ALONE, GN_CNT_ALONE_FRAGMENT },
	{ "ip4 last fragment", { .frag = 0x0010, .payload = 100 }, ALONE, GN_CNT_ALONE_FRAGMENT },
	{ "ip4 first fragment, options", { .frag = 0x2000, .ip_opt_len = 8, .payload = 9 }, ALONE, GN_CNT_ALONE_FRAGMENT },
	{ "ip4 first fragment, udp", { .frag = 0x2000, .proto = 17, .payload = 9 }, ALONE, GN_CNT_ALONE_FRAGMENT },
	{ "ip4 without df", { .frag = 0x8000, .payload = 100 }, CONT, 0 },
	{ "ip4 bad header checksum", { .bad_ip_csum = true, .payload = 100 }, ALONE, GN_CNT_ALONE_IP_CSUM },
	{ "ip4 icmp", { .proto = 1, .payload = 56 }, ALONE, 0 },
	{ "ip4 gre", { .proto = 47, .payload = 56 }, ALONE, 0 },
	{ "ip4 nothing in it", { .proto = 99 }, ALONE, 0 },
	{ "udp4", { .proto = 17, .payload = 1200 }, CONT, 0 },
	{ "udp4 empty", { .proto = 17 }, ALONE, 0 },
	{ "udp4 padded", { .proto = 17, .payload = 3, .pad = 15 }, CONT, 0 },
	{ "udp4 without checksum", { .proto = 17, .csum = CSUM_ZERO, .payload = 100 }, CONT, 0 },
	{ "udp4 partial checksum", { .proto = 17, .csum = CSUM_PARTIAL, .payload = 100 }, CONT, 0 },
	{ "udp4 bad checksum", { .proto = 17, .csum = CSUM_BAD, .payload = 100 }, CONT, 0 },
	{ "udp4 to an instance without offloads", { .dst = mac_plain, .proto = 17, .payload = 9 }, ALONE, 0 },
	{ "tcp6", { .v6 = true, .payload = 1428 }, CONT, 0 },
	{ "tcp6 timestamps", { .v6 = true, .opt_len = 12, .payload = 1428 }, CONT, 0 },
	{ "tcp6 ack", { .v6 = true, .opt_len = 12 }, ALONE, GN_CNT_ALONE_TCP_EMPTY },
	{ "tcp6 psh", { .v6 = true, .tcp_flags = T_ACK | T_PSH, .payload = 7 }, CLOSE, 0 },
	{ "tcp6 cwr", { .v6 = true, .tcp_flags = T_ACK | T_CWR, .payload = 7 }, START, 0 },
	{ "tcp6 syn", { .v6 = true, .tcp_flags = T_SYN, .opt_len = 20 }, ALONE, GN_CNT_ALONE_TCP_FLAGS },
	{ "tcp6 partial checksum", { .v6 = true, .csum = CSUM_PARTIAL, .payload = 70 }, CONT, 0 },
	{ "tcp6 padded", { .v6 = true, .payload = 7, .pad = 9 }, CONT, 0 },
	{ "tcp6 to an instance without offloads", { .dst = mac_plain, .v6 = true, .payload = 9 }, ALONE, 0 },
	{ "udp6", { .v6 = true, .proto = 17, .payload = 700 }, CONT, 0 },
	{ "udp6 without checksum", { .v6 = true, .proto = 17, .csum = CSUM_ZERO, .payload = 70 }, ALONE, GN_CNT_ALONE_MALFORMED },
	{ "udp6 partial checksum", { .v6 = true, .proto = 17, .csum = CSUM_PARTIAL, .payload = 70 }, CONT, 0 },
	{ "icmp6", { .v6 = true, .proto = 58, .payload = 64 }, ALONE, 0 },
	{ "ip6 no next header", { .v6 = true, .proto = 59, .payload = 4 }, ALONE, 0 },
	{ "ip6 payload length 0", { .v6 = true, .proto = 59, .pad = 40 }, ALONE, 0 },
	{ "ip6 hop-by-hop", { EXT(ext_hop, 0), .payload = 99 }, CONT, 0 },
	{ "ip6 hop-by-hop, udp", { EXT(ext_hop, 0), .proto = 17, .payload = 99 }, CONT, 0 },
	{ "ip6 hop-by-hop, destination", { EXT(ext_hop_dst, 0), .payload = 99 }, CONT, 0 },
	{ "ip6 routing, done", { EXT(ext_rt_done, 43), .payload = 99 }, CONT, 0 },
	{ "ip6 routing, segments left", { EXT(ext_rt_left, 43), .payload = 99 }, ALONE, GN_CNT_ALONE_IP_OPTIONS },
	{ "ip6 destination options", { EXT(ext_dst16, 60), .payload = 99 }, CONT, 0 },
	{ "ip6 home address", { EXT(ext_home, 60), .payload = 99 }, ALONE, GN_CNT_ALONE_IP_OPTIONS },
	{ "ip6 64 bytes of extension", { EXT(ext_hop64, 0), .opt_len = 40, .payload = 99 }, CONT, 0 },
	{ "ip6 72 bytes of extension", { EXT(ext_hop72, 0), .payload = 99 }, ALONE, GN_CNT_ALONE_IP_OPTIONS },
	{ "ip6 four extensions", { EXT(ext_four, 0), .payload = 99 }, CONT, 0 },
	{ "ip6 five extensions", { EXT(ext_five, 0), .payload = 99 }, ALONE, GN_CNT_ALONE_IP_OPTIONS },
	{ "ip6 first fragment", { EXT(ext_frag0, 44), .payload = 99 }, ALONE, GN_CNT_ALONE_FRAGMENT },
	{ "ip6 atomic fragment", { EXT(ext_frag_atomic, 44), .payload = 99 }, ALONE, GN_CNT_ALONE_FRAGMENT },
	{ "ip6 later fragment", { EXT(ext_frag8, 44), .payload = 99 }, ALONE, GN_CNT_ALONE_FRAGMENT },
	{ "ip6 fragment behind hop-by-hop", { EXT(ext_hop_frag, 0), .payload = 99 }, ALONE, GN_CNT_ALONE_FRAGMENT },
	{ "ip6 three kinds of extension", { EXT(ext_mixed, 0), .payload = 99 }, CONT, 0 },
	{ "vlan tcp4", { .ntags = 1, .tci = { 100 }, .opt_len = 12, .payload = 1000 }, CONT, 0 },
	{ "vlan with priority and dei", { .ntags = 1, .tci = { 0xf064 }, .payload = 1000 }, CONT, 0 },
	{ "vlan tcp6", { .ntags = 1, .tci = { 100 }, .v6 = true, .payload = 1000 }, CONT, 0 },
	{ "service tag", { .ntags = 1, .tpid = { 0x88a8 }, .tci = { 100 }, .payload = 10 }, CONT, 0 },
	{ "priority tag", { .ntags = 1, .tci = { 0xe000 }, .payload = 1000 }, CONT, 0 },
	{ "qinq tcp4", { .ntags = 2, .tpid = { 0x88a8, 0x8100 }, .tci = { 100, 55 }, .payload = 1000 }, CONT, 0 },
	{ "qinq tcp6, 64 bytes of extension", { .ntags = 2, .tci = { 7, 55 }, EXT(ext_hop64, 0), .payload = 10 }, CONT, 0 },
	{ "qinq udp4", { .ntags = 2, .tci = { 7, 55 }, .proto = 17, .payload = 10 }, CONT, 0 },
	{ "qinq, ip options", { .ntags = 2, .tci = { 7, 55 }, .ip_opt_len = 40, .payload = 10 }, ALONE, GN_CNT_ALONE_IP_OPTIONS },
	{ "vlan fragment", { .ntags = 1, .tci = { 100 }, .frag = 0x2000, .payload = 10 }, ALONE, GN_CNT_ALONE_FRAGMENT },
	{ "three tags", { .ntags = 2, .tci = { 100, 1 }, .ethertype = 0x8100, .payload = 10 }, ALONE, 0 },
	{ "arp", { .ethertype = 0x0806, .payload = 8 }, ALONE, 0 },
	{ "vlan arp", { .ntags = 1, .tci = { 100 }, .ethertype = 0x0806, .payload = 8 }, ALONE, 0 },
	{ "802.3 length", { .ethertype = 0x0040, .payload = 8 }, ALONE, 0 },
	{ "ip6 ethertype, ip4 header", { .ethertype = 0x86dd, .payload = 99 }, ALONE, GN_CNT_ALONE_MALFORMED },
	{ "ip4 ethertype, ip6 header", { .v6 = true, .ethertype = 0x0800, .payload = 99 }, ALONE, GN_CNT_ALONE_MALFORMED },
	{ "tcp4 jumbo", { .payload = 8948 }, CONT, 0 },
	{ "tcp6 jumbo, options", { .v6 = true, .opt_len = 12, .payload = 8900 }, CONT, 0 },
};
/* clang-format on */

const size_t table_len = sizeof(table) / sizeof(table[0]);
