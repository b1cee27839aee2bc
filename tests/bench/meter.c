// SPDX-License-Identifier: BSD-2-Clause
/* Counting behind a port, see meter.h. */
#include "meter.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <netinet/in.h>

#define HDR_LEN	  54	   /* of the generator's frames, bytes */
#define GEN_PORT  5001	   /* destination port of its segments */
#define STAMP_LEN 16	   /* at the payload's begin */
#define QUIET_NS  50000000 /* nothing for so long: all has arrived */

static volatile sig_atomic_t wanted;

static void on_usr1(int sig)
{
	wanted = 1;
}

int meter_init(struct meter *m, const char *subject)
{
	struct sigaction sa = { .sa_handler = on_usr1 };

	memset(m, 0, sizeof(*m));
	m->subject = subject;
	sigaction(SIGUSR1, &sa, NULL);
	bench_signals();
	return bench_lat_init(&m->lat);
}

void meter_fini(struct meter *m)
{
	free(m->lat.ns);
}

bool meter_wanted(void)
{
	return wanted;
}

bool meter_idle(struct meter *m)
{
	struct bench_window win = { .begin = m->first_ns, .end = m->last_ns };

	if (!wanted || bench_now() - m->last_ns < QUIET_NS)
		return false;
	wanted = 0;
	win.begun = m->res.packets;
	win.end += win.end == win.begin;
	bench_print(m->subject, &win, &m->res, &m->lat);
	fflush(stdout);
	memset(&m->res, 0, sizeof(m->res));
	m->lat.n = 0;
	m->first_ns = 0;
	m->last_ns = 0;
	return true;
}

/* The stamp of the segment at @off, wherever pieces end. */
static void read_stamp(struct bench_lat *lat, const struct iovec **iov,
		       const struct iovec *end, size_t *begin, size_t off, size_t len,
		       uint64_t now_ns)
{
	uint8_t stamp[STAMP_LEN];
	const struct iovec *v;
	size_t have = 0, skip;

	if (len < STAMP_LEN)
		return;
	while (*iov < end && off - *begin >= (*iov)->iov_len) {
		*begin += (*iov)->iov_len;
		(*iov)++;
	}
	skip = off - *begin;
	for (v = *iov; v < end && have < STAMP_LEN; v++, skip = 0) {
		size_t n = v->iov_len - skip;

		if (n > STAMP_LEN - have)
			n = STAMP_LEN - have;
		memcpy(stamp + have, (const uint8_t *)v->iov_base + skip, n);
		have += n;
	}
	if (have == STAMP_LEN)
		bench_lat_add(lat, stamp, STAMP_LEN, now_ns);
}

unsigned int frame_count(const struct iovec *iov, unsigned int niov, uint32_t gso_size,
			 struct bench_result *res, struct bench_lat *lat, uint64_t now_ns)
{
	const struct iovec *at = iov, *end = iov + niov;
	size_t have = 0, begin = 0;
	uint32_t payload, seg, n;
	const uint8_t *f;

	for (unsigned int i = 0; i < niov; i++)
		have += iov[i].iov_len;
	if (!niov || iov->iov_len < HDR_LEN)
		goto bad;
	f = iov->iov_base;
	if (f[12] != 8 || f[13] || f[14] != 0x45 || f[23] != IPPROTO_TCP ||
	    (f[36] << 8 | f[37]) != GEN_PORT || (f[46] >> 4) != 5)
		goto bad;
	payload = (uint32_t)(f[16] << 8 | f[17]);
	if (payload < 40 || payload + 14 > have)
		goto bad;
	payload -= 40;
	seg = gso_size ? gso_size : payload;
	n = seg ? (payload + seg - 1) / seg : 1;
	for (uint32_t i = 0; lat && i < n; i++)
		read_stamp(lat, &at, end, &begin, HDR_LEN + (size_t)i * seg,
			   payload - i * seg, now_ns);
	res->packets += n;
	res->frames++;
	res->frame_bytes += payload + n * HDR_LEN;
	return n;
bad:
	res->bad++;
	return 0;
}
