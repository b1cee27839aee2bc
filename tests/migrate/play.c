// SPDX-License-Identifier: BSD-2-Clause
/* play: see play.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "play.h"

#define PATIENCE_MS 30000
#define SLICE_MS    50

static int say(struct play *p, enum wire_type type, uint64_t arg, const void *payload,
	       uint32_t len)
{
	struct wire_head h;
	struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)(uintptr_t)payload, len } };

	wire_head_init(&h, type, arg, 0);
	wire_seal(&h, p->out_seq++, len, wire_sum(payload, len));
	return chan_write(p->chan, iov, 2);
}

static bool quits(const struct play *p)
{
	return __atomic_load_n(&p->quit, __ATOMIC_ACQUIRE);
}

/* Until the source closes or play_stop() is called */
static void listen_on(struct play *p)
{
	char byte;

	chan_set_read_timeout(p->chan, SLICE_MS);
	while (!quits(p)) {
		int err = chan_read(p->chan, &byte, 1);

		if (err && err != -ETIMEDOUT)
			break;
	}
}

static int handed_over(struct play *p)
{
	static const char why[] = "as the test wants it";

	p->handed_over = true;
	if (p->at_handover)
		p->at_handover(p->arg);
	switch (p->act) {
	case PLAY_RUNNING: say(p, WIRE_RUNNING, 0, NULL, 0); break;
	case PLAY_SILENT: listen_on(p); break;
	case PLAY_ERROR: say(p, WIRE_ERROR, 0, why, sizeof(why) - 1); break;
	case PLAY_CANCEL: say(p, WIRE_CANCEL, 0, NULL, 0); break;
	case PLAY_TEAR: chan_shutdown(p->chan); break;
	default: break;
	}
	return 1;
}

static int control(void *arg, const struct wire_head *h, const void *payload)
{
	struct play *p = arg;
	struct wire_digest d;

	if (h->type == WIRE_HANDOVER)
		return handed_over(p);
	if (h->type != WIRE_DIGEST || p->act == PLAY_NO_VERIFIED)
		return 0;
	d.digest = receiver_digest(p->r, &d.pages);
	if (p->act == PLAY_WRONG_DIGEST)
		d.digest++;
	return say(p, WIRE_VERIFIED, 0, &d, sizeof(d));
}

static int synced(void *arg, uint64_t n)
{
	return say(arg, WIRE_SYNC, n, NULL, 0);
}

/* RAM of the shape that HELLO describes */
static int take_shape(struct play *p, const struct wire_hello *hello)
{
	int err = hello->streams == 1 ? 0 : -EINVAL;

	for (uint32_t i = 0; i < hello->nblocks && !err; i++)
		err = ram_add(&p->ram, hello->block[i].gpa, hello->block[i].size, 0);
	return err ? err : digest_init(&p->digest, p->ram.pages);
}

static int receive(struct play *p)
{
	struct receiver_conf conf = {
		.ram = &p->ram,
		.digest = &p->digest,
		.chan = &p->chan,
		.seq = &p->seq,
		.streams = 1,
		.control = control,
		.synced = synced,
		.arg = p,
	};
	int err = receiver_create(&conf, &p->r);

	if (err)
		return err;
	err = say(p, WIRE_READY, 0, NULL, 0);
	if (!err)
		err = receiver_run(p->r);
	receiver_destroy(p->r);
	return err;
}

static int serve(struct play *p)
{
	const char *why;
	struct wire_head h;
	void *payload;
	int err;

	for (p->seq = 0; p->seq < 2; p->seq++) { /* HELLO, CONFIG */
		err = receiver_head(p->chan, p->seq,
				    WIRE_BIT(p->seq ? WIRE_CONFIG : WIRE_HELLO), &h,
				    &payload, &why);
		if (!err && h.type == WIRE_HELLO)
			err = take_shape(p, payload);
		if (err)
			return err;
		free(payload);
	}
	if (p->act != PLAY_NO_READY)
		return receive(p);
	listen_on(p);
	return 0;
}

static void *play_main(void *arg)
{
	struct play *p = arg;
	int waited = 0;

	do
		p->err = chan_accept(p->l, SLICE_MS, &p->chan);
	while (p->err == -ETIMEDOUT && !quits(p) && (waited += SLICE_MS) < PATIENCE_MS);
	if (!p->err)
		p->err = serve(p);
	chan_close(p->chan);
	return NULL;
}

int play_start(struct play *p, const char *uri, const struct chan_tls *tls)
{
	int err;

	ram_init(&p->ram);
	err = chan_listen(uri, tls, &p->l);
	if (err)
		return err;
	err = -pthread_create(&p->thread, NULL, play_main, p);
	if (err)
		chan_listener_close(p->l);
	return err;
}

const char *play_uri(const struct play *p)
{
	return chan_listener_uri(p->l);
}

void play_wait(struct play *p)
{
	pthread_join(p->thread, NULL);
	chan_listener_close(p->l);
	ram_fini(&p->ram);
	digest_fini(&p->digest);
}

void play_stop(struct play *p)
{
	__atomic_store_n(&p->quit, true, __ATOMIC_RELEASE);
	play_wait(p);
}
