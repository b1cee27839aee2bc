// SPDX-License-Identifier: BSD-2-Clause
/*
 * incoming: see incoming.h.
 *
 * One migration is one call of serve(): connections, machine, RAM, state, hand-over. What
 * it made is undone at its end unless the machine was taken over. Only the thread of
 * incoming_run() works; cancel wakes it by an eventfd and by shutting its channels down.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "../../user/lib/clock.h"
#include "../../user/lib/log.h"
#include "../fault.h"
#include "incoming.h"

#define SETUP_MS 10000	       /* for all streams of a migration to come */
#define SLICE_MS 50	       /* to look whether the source is still there */
#define HEAD_NS	 5000000000ULL /* for HELLO, and for CONFIG */
#define DRAIN_MS 1000	       /* for the source to read why it failed */

struct incoming {
	struct incoming_conf conf;
	const struct incoming_vm_ops *ops;
	void *vm;
	struct chan_listener *listener;
	int wake;
	atomic_bool cancelled;

	pthread_mutex_t lock;
	struct incoming_status status;
	struct receiver *receiver;
	struct chan *chan[WIRE_MAX_STREAMS];
	struct chan *greeting; /* has not said HELLO yet */
};

/* One migration */
struct serving {
	struct incoming *in;
	unsigned int streams;
	uint32_t seq[WIRE_MAX_STREAMS], out_seq;
	uint8_t id[16];
	struct ram want;
	const struct ram *ram;
	bool prepared, started;
	struct digest digest;
	enum { AWAIT_STATE, AWAIT_DIGEST, AWAIT_HANDOVER, OVER } next;
	char why[WIRE_MAX_TEXT];
};

static int fail(struct serving *s, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
static int fail(struct serving *s, int err, const char *fmt, ...)
{
	va_list ap;

	if (!s->why[0]) {
		va_start(ap, fmt);
		vsnprintf(s->why, sizeof(s->why), fmt, ap);
		va_end(ap);
	}
	return err;
}

static void set_phase(struct incoming *in, int phase)
{
	pthread_mutex_lock(&in->lock);
	in->status.phase = phase;
	pthread_mutex_unlock(&in->lock);
}

static int say(struct serving *s, enum wire_type type, uint64_t arg, const void *payload,
	       uint32_t len)
{
	struct wire_head h;
	struct iovec iov[2] = { { &h, sizeof(h) }, { (void *)(uintptr_t)payload, len } };

	wire_head_init(&h, type, arg, 0);
	wire_seal(&h, s->out_seq++, len, wire_sum(payload, len));
	return chan_write(s->in->chan[0], iov, 2);
}

/* ---- connections ------------------------------------------------------------------- */

/* Return: 1: somebody is there, 0: timeout, -ECANCELED */
static int await_connection(struct incoming *in, int timeout_ms)
{
	struct pollfd p[2] = {
		{ .fd = chan_listener_fd(in->listener), .events = POLLIN },
		{ .fd = in->wake, .events = POLLIN },
	};
	int n;

	do
		n = poll(p, 2, timeout_ms);
	while (n < 0 && errno == EINTR);
	if (atomic_load(&in->cancelled))
		return -ECANCELED;
	return n < 0 ? -errno : n > 0;
}

/* In @slot of @in, from where a cancel shuts it down */
static void publish(struct incoming *in, struct chan **slot, struct chan *c)
{
	pthread_mutex_lock(&in->lock);
	*slot = c;
	if (c && atomic_load(&in->cancelled))
		chan_shutdown(c);
	pthread_mutex_unlock(&in->lock);
}

/* As receiver_head(), in its time */
static int head(struct chan *c, uint32_t seq, enum wire_type type, struct wire_head *h,
		void **payload, const char **why)
{
	int err;

	chan_set_read_deadline(c, clock_ns() + HEAD_NS);
	err = receiver_head(c, seq, WIRE_BIT(type), h, payload, why);
	chan_set_read_deadline(c, 0);
	return err;
}

/*
 * A connection that says HELLO. Return: 0; -EAGAIN: it said nothing at all, forget it;
 * -errno and @why. *@chan is NULL or to be closed, also after a failure.
 */
static int greet(struct incoming *in, struct chan **chan, struct wire_hello **hello,
		 char *why, size_t why_len)
{
	struct wire_head h;
	const char *text;
	int err;

	*chan = NULL;
	err = chan_accept(in->listener, 0, chan);
	if (err) {
		snprintf(why, why_len, "%s", chan_error());
		return err == -ETIMEDOUT || err == -ECONNABORTED ? -EAGAIN : err;
	}
	publish(in, &in->greeting, *chan);
	err = head(*chan, 0, WIRE_HELLO, &h, (void **)hello, &text);
	publish(in, &in->greeting, NULL);
	if (!err) {
		err = wire_hello_check(*hello, h.len, &text);
		if (err)
			free(*hello);
	}
	if (!err)
		return 0;
	snprintf(why, why_len, "%s", text);
	return err == -ENODATA ? -EAGAIN : err;
}

static int take_blocks(struct serving *s, const struct wire_hello *hello)
{
	int err = 0;

	ram_init(&s->want);
	for (uint32_t i = 0; i < hello->nblocks && !err; i++)
		err = ram_adopt(&s->want, hello->block[i].gpa, hello->block[i].size, NULL,
				-1, 0);
	return err ? fail(s, err, "impossible blocks of memory") : 0;
}

/* Return: 0; -EAGAIN: nobody; -errno */
static int first_stream(struct serving *s)
{
	struct wire_hello *hello;
	struct chan *c;
	int err = greet(s->in, &c, &hello, s->why, sizeof(s->why));

	publish(s->in, &s->in->chan[0], c);
	if (err)
		return err;
	s->seq[0] = 1;
	s->streams = hello->streams;
	memcpy(s->id, hello->id, sizeof(s->id));
	err = hello->stream ? fail(s, -EBADMSG, "stream %u came first", hello->stream)
			    : take_blocks(s, hello);
	free(hello);
	return err;
}

/* The others. Who does not belong to this migration is sent away. */
static int more_streams(struct serving *s)
{
	uint64_t deadline = clock_ns() + SETUP_MS * 1000000ULL;
	unsigned int have = 1;

	while (have < s->streams) {
		uint64_t now = clock_ns();
		struct wire_hello *hello;
		struct chan *c;
		char why[200];
		int err = now < deadline ? await_connection(s->in, SLICE_MS) : -ETIMEDOUT;

		if (err >= 0 && chan_gone(s->in->chan[0]))
			err = -ECONNRESET;
		if (err < 0)
			return fail(s, err, "%u of %u streams came", have, s->streams);
		if (!err)
			continue;
		if (greet(s->in, &c, &hello, why, sizeof(why))) {
			chan_close(c);
			continue;
		}
		if (memcmp(hello->id, s->id, sizeof(s->id)) ||
		    hello->streams != s->streams || s->in->chan[hello->stream]) {
			chan_close(c);
		} else {
			publish(s->in, &s->in->chan[hello->stream], c);
			s->seq[hello->stream] = 1;
			have++;
		}
		free(hello);
	}
	return 0;
}

/* ---- the machine ------------------------------------------------------------------- */

static bool same_shape(const struct ram *a, const struct ram *b)
{
	if (a->nblocks != b->nblocks)
		return false;
	for (unsigned int i = 0; i < a->nblocks; i++)
		if (a->block[i].gpa != b->block[i].gpa ||
		    a->block[i].size != b->block[i].size)
			return false;
	return true;
}

static int prepare(struct serving *s)
{
	struct incoming *in = s->in;
	struct wire_head h;
	const char *text;
	char *config = NULL, why[200] = "";
	int err;

	err = head(in->chan[0], s->seq[0], WIRE_CONFIG, &h, (void **)&config, &text);
	if (err)
		return fail(s, err, "%s", text);
	s->seq[0]++;
	if (strlen(config) != h.len) {
		free(config);
		return fail(s, -EBADMSG, "CONFIG is no text");
	}
	err = in->ops->prepare(in->vm, config, &s->want, &s->ram, why, sizeof(why));
	free(config);
	if (err)
		return fail(s, err, "the machine cannot be made here: %s",
			    why[0] ? why : strerror(-err));
	s->prepared = true;
	if (!same_shape(s->ram, &s->want))
		return fail(s, -EINVAL,
			    "the machine made here has another memory layout");
	err = digest_init(&s->digest, s->ram->pages);
	return err ? fail(s, err, "out of memory") : 0;
}

/* ---- the end ----------------------------------------------------------------------- */

static int on_state(struct serving *s, const struct wire_head *h, const void *payload)
{
	char why[200] = "";
	int err = s->in->ops->load(s->in->vm, payload, h->len, why, sizeof(why));

	return err ? fail(s, err, "the machine's state is refused: %s",
			  why[0] ? why : strerror(-err))
		   : 0;
}

static int on_digest(struct serving *s, const struct wire_digest *theirs)
{
	struct wire_digest ours;

	set_phase(s->in, INCOMING_VERIFY);
	ours.digest = receiver_digest(s->in->receiver, &ours.pages);
	if (memcmp(&ours, theirs, sizeof(ours)))
		return fail(s, -EBADMSG,
			    "RAM differs: digest %016llx of %llu pages, %016llx of %llu "
			    "pages were sent",
			    (unsigned long long)ours.digest,
			    (unsigned long long)ours.pages,
			    (unsigned long long)theirs->digest,
			    (unsigned long long)theirs->pages);
	if (FAULT(FAULT_EARLY_START)) {
		s->started = true;
		s->in->ops->start(s->in->vm);
	}
	return say(s, WIRE_VERIFIED, 0, &ours, sizeof(ours))
		       ? fail(s, -EPIPE, "%s", chan_error())
		       : 0;
}

/* RUNNING goes out before anything runs; if it does not, nothing runs. */
static int on_handover(struct serving *s)
{
	int err = say(s, WIRE_RUNNING, 0, NULL, 0);

	if (err)
		return fail(s, err, "%s", chan_error());
	if (!s->started)
		s->in->ops->start(s->in->vm);
	s->started = true;
	return 1;
}

static int control(void *arg, const struct wire_head *h, const void *payload)
{
	static const enum wire_type expected[] = { WIRE_STATE, WIRE_DIGEST,
						   WIRE_HANDOVER };
	struct serving *s = arg;

	if (s->next == OVER || h->type != expected[s->next])
		return fail(s, -EBADMSG, "%s at the wrong time", wire_type_name(h->type));
	switch (s->next++) {
	case AWAIT_STATE: return on_state(s, h, payload);
	case AWAIT_DIGEST: return on_digest(s, payload);
	default: return on_handover(s);
	}
}

/* On any stream's thread, but never while control() runs: say() is not called twice. */
static int synced(void *arg, uint64_t n)
{
	return say(arg, WIRE_SYNC, n, NULL, 0);
}

static int receive(struct serving *s)
{
	struct incoming *in = s->in;
	struct receiver_conf conf = {
		.ram = s->ram,
		.digest = &s->digest,
		.chan = in->chan,
		.seq = s->seq,
		.streams = s->streams,
		.control = control,
		.synced = synced,
		.arg = s,
	};
	struct receiver *r;
	int err = receiver_create(&conf, &r);

	if (err)
		return fail(s, err, "out of memory");
	pthread_mutex_lock(&in->lock);
	in->receiver = r;
	if (atomic_load(&in->cancelled))
		receiver_cancel(r);
	pthread_mutex_unlock(&in->lock);
	err = say(s, WIRE_READY, 0, NULL, 0);
	err = err ? fail(s, err, "%s", chan_error()) : receiver_run(r);
	if (err)
		fail(s, err, "%s", receiver_error(r));
	pthread_mutex_lock(&in->lock);
	receiver_stats(r, &in->status.received);
	in->receiver = NULL;
	pthread_mutex_unlock(&in->lock);
	receiver_destroy(r);
	return err;
}

/* ---- one migration ----------------------------------------------------------------- */

/*
 * Closing a socket that has unread bytes resets the connection, and what was written last
 * is lost with it: read until the source has closed, too.
 */
static void last_words(struct serving *s, int err)
{
	uint64_t deadline = clock_ns() + DRAIN_MS * 1000000ULL;
	struct chan *c = s->in->chan[0];
	char sink[4096];
	struct iovec iov = { sink, sizeof(sink) };

	chan_set_write_timeout(c, DRAIN_MS);
	chan_set_read_timeout(c, DRAIN_MS);
	if (err == -ECANCELED)
		say(s, WIRE_CANCEL, 0, NULL, 0);
	else
		say(s, WIRE_ERROR, 0, s->why, (uint32_t)strlen(s->why));
	chan_end(c);
	while (clock_ns() < deadline && chan_readv(c, &iov, 1) > 0)
		;
}

static void close_all(struct serving *s)
{
	struct chan *c;

	for (unsigned int i = 0; i < WIRE_MAX_STREAMS; i++) {
		c = s->in->chan[i];
		publish(s->in, &s->in->chan[i], NULL);
		chan_close(c);
	}
}

/* Return: 0: it runs; -EAGAIN: nobody was there; -errno */
static int serve(struct incoming *in)
{
	struct serving s = { .in = in };
	int err;

	err = first_stream(&s);
	if (!err) {
		pthread_mutex_lock(&in->lock);
		in->status.received = (struct receiver_stats){ 0 };
		in->status.phase = INCOMING_RECEIVE;
		pthread_mutex_unlock(&in->lock);
		err = more_streams(&s);
	}
	if (!err)
		err = prepare(&s);
	if (!err)
		err = receive(&s);
	if (atomic_load(&in->cancelled) && err)
		err = -ECANCELED;
	if (err && err != -EAGAIN && in->chan[0] && !atomic_load(&in->cancelled))
		last_words(&s, err);
	close_all(&s);
	if (err && s.prepared)
		in->ops->abandon(in->vm);
	digest_fini(&s.digest);
	if (err && err != -EAGAIN) {
		pthread_mutex_lock(&in->lock);
		snprintf(in->status.message, sizeof(in->status.message), "%.199s", s.why);
		/* That we were told to stop is none, whoever had connected. */
		if (!atomic_load(&in->cancelled))
			in->status.failures++;
		pthread_mutex_unlock(&in->lock);
	}
	return err;
}

/* A connection that is already there, and will not come again: fd:N. */
static bool used_up(int err)
{
	return err == -ENOTCONN;
}

int incoming_run(struct incoming *in)
{
	int err;

	for (;;) {
		set_phase(in, INCOMING_LISTEN);
		err = await_connection(in, -1);
		if (err == 1)
			err = serve(in);
		if (!err) {
			set_phase(in, INCOMING_RUNNING);
			return 0;
		}
		if (atomic_load(&in->cancelled)) {
			err = -ECANCELED;
			break;
		}
		if (used_up(err))
			break;
		if (err == -EAGAIN)
			continue;
		log_info("migration failed: %s", in->status.message);
		if (in->conf.max_failures && in->status.failures >= in->conf.max_failures)
			break;
	}
	set_phase(in, INCOMING_GAVE_UP);
	return err;
}

/* ---- life -------------------------------------------------------------------------- */

int incoming_create(const struct incoming_conf *conf, const struct incoming_vm_ops *ops,
		    void *vm, struct incoming **out)
{
	struct incoming *in = calloc(1, sizeof(*in));
	int err;

	if (!in)
		return -ENOMEM;
	in->conf = *conf;
	in->ops = ops;
	in->vm = vm;
	pthread_mutex_init(&in->lock, NULL);
	in->wake = eventfd(0, EFD_CLOEXEC);
	err = in->wake < 0 ? -errno : chan_listen(conf->uri, &conf->tls, &in->listener);
	if (err)
		incoming_destroy(in);
	else
		*out = in;
	return err;
}

const char *incoming_uri(const struct incoming *in)
{
	return chan_listener_uri(in->listener);
}

void incoming_cancel(struct incoming *in)
{
	uint64_t one = 1;

	pthread_mutex_lock(&in->lock);
	atomic_store(&in->cancelled, true);
	for (unsigned int i = 0; i < WIRE_MAX_STREAMS; i++)
		if (in->chan[i])
			chan_shutdown(in->chan[i]);
	if (in->greeting)
		chan_shutdown(in->greeting);
	if (in->receiver)
		receiver_cancel(in->receiver);
	pthread_mutex_unlock(&in->lock);
	if (write(in->wake, &one, sizeof(one)) != sizeof(one))
		log_warn("incoming migration: cannot be woken");
}

void incoming_status(struct incoming *in, struct incoming_status *st)
{
	pthread_mutex_lock(&in->lock);
	*st = in->status;
	if (in->receiver)
		receiver_stats(in->receiver, &st->received);
	pthread_mutex_unlock(&in->lock);
}

void incoming_destroy(struct incoming *in)
{
	if (!in)
		return;
	chan_listener_close(in->listener);
	if (in->wake >= 0)
		close(in->wake);
	pthread_mutex_destroy(&in->lock);
	free(in);
}
