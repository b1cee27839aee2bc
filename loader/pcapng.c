// SPDX-License-Identifier: BSD-2-Clause
/* pcapng: blocks and options, each padded to 32 bits. See pcapng.h. */
#include <errno.h>
#include <string.h>

#include "pcapng.h"

#define BLOCK_SECTION	0x0a0d0d0aU
#define BLOCK_INTERFACE 1U
#define BLOCK_STATS	5U
#define BLOCK_PACKET	6U

#define BYTE_ORDER_MAGIC  0x1a2b3c4dU
#define LINKTYPE_ETHERNET 1

/* Options; numbers are per block type. */
#define OPT_END	       0
#define SHB_USERAPPL   4
#define IF_NAME	       2
#define IF_DESCRIPTION 3
#define IF_TSRESOL     9
#define EPB_FLAGS      2
#define EPB_INBOUND    1U
#define EPB_OUTBOUND   2U
#define ISB_IFRECV     4
#define ISB_IFDROP     5
#define NANOSECONDS    9 /* if_tsresol: negative power of ten */

#define APPLICATION "ghostnic " GN_VERSION

static uint32_t padded(size_t n)
{
	return (uint32_t)((n + 3) & ~(size_t)3);
}

static void put32(FILE *f, uint32_t v)
{
	fwrite(&v, sizeof(v), 1, f);
}

static void put16(FILE *f, uint16_t v)
{
	fwrite(&v, sizeof(v), 1, f);
}

static void put_pad(FILE *f, size_t n)
{
	static const char zero[3];

	fwrite(zero, padded(n) - n, 1, f);
}

static uint32_t option_size(size_t n)
{
	return 4 + padded(n);
}

static void put_option(FILE *f, uint16_t code, const void *value, size_t n)
{
	put16(f, code);
	put16(f, (uint16_t)n);
	if (n)
		fwrite(value, n, 1, f);
	put_pad(f, n);
}

/* Time stamps are two halves, the upper one first, in any byte order. */
static void put_time(FILE *f, uint64_t ns)
{
	put32(f, (uint32_t)(ns >> 32));
	put32(f, (uint32_t)ns);
}

static int state(FILE *f)
{
	return ferror(f) ? -EIO : 0;
}

int pcapng_begin(FILE *f, const char *name, const char *about, uint32_t snaplen)
{
	const uint8_t resolution = NANOSECONDS;
	uint32_t size = 28 + option_size(strlen(APPLICATION)) + option_size(0);

	put32(f, BLOCK_SECTION);
	put32(f, size);
	put32(f, BYTE_ORDER_MAGIC);
	put16(f, 1); /* version 1.0 */
	put16(f, 0);
	put32(f, UINT32_MAX); /* length of the section: not known */
	put32(f, UINT32_MAX);
	put_option(f, SHB_USERAPPL, APPLICATION, strlen(APPLICATION));
	put_option(f, OPT_END, NULL, 0);
	put32(f, size);

	size = 20 + option_size(strlen(name)) + option_size(strlen(about)) +
	       option_size(sizeof(resolution)) + option_size(0);
	put32(f, BLOCK_INTERFACE);
	put32(f, size);
	put16(f, LINKTYPE_ETHERNET);
	put16(f, 0);
	put32(f, snaplen);
	put_option(f, IF_NAME, name, strlen(name));
	put_option(f, IF_DESCRIPTION, about, strlen(about));
	put_option(f, IF_TSRESOL, &resolution, sizeof(resolution));
	put_option(f, OPT_END, NULL, 0);
	put32(f, size);
	return state(f);
}

int pcapng_packet(FILE *f, const struct pcapng_packet *p)
{
	const uint32_t flags = p->out ? EPB_OUTBOUND : EPB_INBOUND;
	uint32_t size = 32 + padded(p->len) + option_size(sizeof(flags)) + option_size(0);

	put32(f, BLOCK_PACKET);
	put32(f, size);
	put32(f, 0); /* the interface */
	put_time(f, p->time_ns);
	put32(f, p->len);
	put32(f, p->wire_len);
	for (unsigned int i = 0; i < p->niov; i++)
		fwrite(p->iov[i].iov_base, p->iov[i].iov_len, 1, f);
	put_pad(f, p->len);
	put_option(f, EPB_FLAGS, &flags, sizeof(flags));
	put_option(f, OPT_END, NULL, 0);
	put32(f, size);
	return state(f);
}

int pcapng_end(FILE *f, uint64_t time_ns, uint64_t packets, uint64_t lost)
{
	uint32_t size = 24 + 2 * option_size(sizeof(uint64_t)) + option_size(0);
	uint64_t seen = packets + lost;

	put32(f, BLOCK_STATS);
	put32(f, size);
	put32(f, 0);
	put_time(f, time_ns);
	put_option(f, ISB_IFRECV, &seen, sizeof(seen));
	put_option(f, ISB_IFDROP, &lost, sizeof(lost));
	put_option(f, OPT_END, NULL, 0);
	put32(f, size);
	fflush(f);
	return state(f);
}
