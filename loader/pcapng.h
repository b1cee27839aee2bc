/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * pcapng: one section, one Ethernet interface, its packets. To any stdio stream, also one
 * that cannot seek. IETF draft-ietf-opsawg-pcapng; byte order is this machine's, as the
 * format allows. One thread.
 */
#ifndef GN_LOADER_PCAPNG_H
#define GN_LOADER_PCAPNG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/uio.h>

/**
 * pcapng_begin() - section and interface
 * @name:	of the interface
 * @about:	its description
 * @snaplen:	most bytes of a packet, 0: no limit
 *
 * Return: 0, -EIO: the stream has an error (as of all functions here)
 */
int pcapng_begin(FILE *f, const char *name, const char *about, uint32_t snaplen);

struct pcapng_packet {
	uint64_t time_ns; /* since 1970 */
	const struct iovec *iov;
	unsigned int niov;
	uint32_t len;	   /* bytes in iov */
	uint32_t wire_len; /* bytes it had */
	bool out;	   /* sent by the interface; else received */
};

/** pcapng_packet() - append one */
int pcapng_packet(FILE *f, const struct pcapng_packet *p);

/** pcapng_end() - the interface's statistics: packets written and lost, at @time_ns */
int pcapng_end(FILE *f, uint64_t time_ns, uint64_t packets, uint64_t lost);

#endif
