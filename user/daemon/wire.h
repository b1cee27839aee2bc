/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * wire: where header fields lie, and access to them at any alignment.
 *
 * Offsets instead of the system's structs: an IP header behind a 14-byte Ethernet header
 * is not aligned, and a pointer to such a struct would be undefined behaviour.
 */
#ifndef GN_WIRE_H
#define GN_WIRE_H

#include <arpa/inet.h>
#include <stdint.h>
#include <string.h>

#define WIRE_MACS 12 /* bytes in front of the EtherType */
#define WIRE_ETH  14 /* Ethernet header without tag, bytes */
#define WIRE_TAG  4  /* 802.1Q tag, bytes */

#define WIRE_ETYPE_IP4	0x0800
#define WIRE_ETYPE_IP6	0x86dd
#define WIRE_ETYPE_TAG	0x8100 /* 802.1Q */
#define WIRE_ETYPE_STAG 0x88a8 /* 802.1ad */

/* IPv4, RFC 791 */
#define WIRE_IP4_MIN   20
#define WIRE_IP4_LEN   2
#define WIRE_IP4_ID    4
#define WIRE_IP4_FRAG  6
#define WIRE_IP4_PROTO 9
#define WIRE_IP4_CSUM  10
#define WIRE_IP4_ADDRS 12 /* 8 bytes */

/* IPv6, RFC 8200 */
#define WIRE_IP6_MIN   40
#define WIRE_IP6_LEN   4
#define WIRE_IP6_NEXT  6
#define WIRE_IP6_ADDRS 8 /* 32 bytes */

/* TCP, RFC 9293 */
#define WIRE_TCP_MIN   20
#define WIRE_TCP_SEQ   4
#define WIRE_TCP_DOFF  12
#define WIRE_TCP_FLAGS 13
#define WIRE_TCP_CSUM  16
#define WIRE_TCP_FIN   0x01
#define WIRE_TCP_SYN   0x02
#define WIRE_TCP_RST   0x04
#define WIRE_TCP_PSH   0x08
#define WIRE_TCP_CWR   0x80

/* UDP, RFC 768 */
#define WIRE_UDP_HLEN 8
#define WIRE_UDP_LEN  4
#define WIRE_UDP_CSUM 6

/* As it lies in memory: for sums. */
static inline uint16_t wire_raw16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void wire_put_raw16(uint8_t *p, uint16_t v)
{
	memcpy(p, &v, sizeof(v));
}

/* As a number. */
static inline uint16_t wire_get16(const uint8_t *p)
{
	return ntohs(wire_raw16(p));
}

static inline void wire_put16(uint8_t *p, uint32_t v)
{
	wire_put_raw16(p, htons((uint16_t)v));
}

static inline uint32_t wire_get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return ntohl(v);
}

static inline void wire_put32(uint8_t *p, uint32_t v)
{
	v = htonl(v);
	memcpy(p, &v, sizeof(v));
}

#endif
