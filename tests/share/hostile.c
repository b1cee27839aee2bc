// SPDX-License-Identifier: BSD-2-Clause
/*
 * hostile: a node that knows the protocol and breaks one rule of it.
 *
 *	hostile ADDR BUS KEY RULE
 *
 * Prints the status of the reply to what breaks the rule ("none": there was none), then
 * "closed" or "open": does the owner still answer on this connection? KEY is that of readers for
 * the rules put, fadd, swap, cas, write, upgrade, flush and ack: what each of them asks for needs
 * the other one.
 *
 *	hostile ADDR BUS KEY patient MS
 *
 * breaks none: it gets a word again and again, until it is refused. Prints the status, or
 * "late": an answer that it had waited for MS or longer was none of refusal.
 *
 *	hostile ADDR BUS KEY writer
 *
 * breaks none: it takes two pages to write and prints "ok". For a line on standard input it gives
 * the first back, as an answer said again, and asks how far the owner has come: "done" or
 * "undone"; then the second, of its own accord, and prints the status of the reply. For another
 * line it gives the first once more, and prints the same two.
 *
 *	hostile ADDR BUS KEY hasty
 *
 * breaks none: it asks for a page to write, and detaches before it has an answer. Prints the
 * status of that.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../user/lib/clock.h"
#include "../../user/share/key.h"
#include "../../user/share/net.h"

#define WAIT_MS	   2000
#define PATIENT_MS 20000

static struct net_conn conn;
static struct gm_hdr last = { .session = 0 };
static uint8_t payload[GM_PAYLOAD_MAX];
static int wait_ms = WAIT_MS;

static int send_raw(uint8_t *raw, const void *data, size_t len)
{
	struct iovec iov[2] = { { raw, GM_HDR_SIZE }, { (void *)data, len } };

	return net_send_all(&conn, iov, len ? 2 : 1, wait_ms);
}

static int answer(struct gm_hdr *h)
{
	uint8_t raw[GM_HDR_SIZE];
	int err = net_recv_all(&conn, raw, sizeof(raw), wait_ms);

	if (!err)
		err = gm_hdr_decode(raw, h);
	return err ? err : net_recv_all(&conn, payload, h->len, wait_ms);
}

static int ask(struct gm_hdr *h, const void *data)
{
	uint8_t raw[GM_HDR_SIZE];
	int err;

	gm_hdr_encode(h, raw);
	err = send_raw(raw, data, h->len);
	return err ? err : answer(h);
}

/* Where a whole run of good messages is wanted: the next request. */
static struct gm_hdr next(uint8_t op, uint64_t bus, uint32_t size)
{
	last.op = op;
	last.bus = bus;
	last.size = size;
	last.seq++;
	return last;
}

static int enter(uint64_t bus, const char *key, uint8_t role)
{
	struct gm_hello hello = { .node = "hostile", .role = role };
	struct gm_hdr h = { .op = GM_OP_HELLO, .len = sizeof(hello), .seq = ++last.seq };
	struct gm_key k = { .len = (uint8_t)strlen(key) };
	struct gm_attach a;
	int err = ask(&h, &hello);

	if (err || h.status)
		return err ? err : h.status;
	last.session = h.session;
	memcpy(k.bytes, key, k.len);
	err = gm_key_proof(&k, payload, h.session, bus, "hostile", a.proof);
	if (err)
		return err;
	h = (struct gm_hdr){ .op = GM_OP_ATTACH,
			     .len = sizeof(a),
			     .seq = ++last.seq,
			     .session = last.session,
			     .bus = bus };
	err = ask(&h, &a);
	last.key_id = h.key_id;
	last.epoch = h.epoch;
	return err ? err : h.status;
}

/* Operations that change something. */
static const struct write {
	const char *rule;
	uint8_t op, role;
	uint16_t flags;
	uint32_t size, len;
} writes[] = {
	{ "put", GM_OP_PUT, GM_ROLE_OPS, 0, 8, 8 },
	{ "fadd", GM_OP_FADD, GM_ROLE_OPS, 0, 8, 0 },
	{ "swap", GM_OP_SWAP, GM_ROLE_OPS, 0, 8, 0 },
	{ "cas", GM_OP_CAS, GM_ROLE_OPS, 0, 8, 0 },
	{ "write", GM_OP_WRITE, GM_ROLE_PAGES, 0, GM_PAGE_SIZE, 0 },
	{ "upgrade", GM_OP_WRITE, GM_ROLE_PAGES, GM_F_UPGRADE, GM_PAGE_SIZE, 0 },
	{ "flush", GM_OP_FLUSH, GM_ROLE_PAGES, 0, GM_PAGE_SIZE, GM_PAGE_SIZE },
	{ "ack", GM_OP_ACK, GM_ROLE_PAGES, 0, GM_PAGE_SIZE, GM_PAGE_SIZE },
};

static const struct write *find_write(const char *rule)
{
	for (size_t i = 0; i < sizeof(writes) / sizeof(writes[0]); i++)
		if (!strcmp(rule, writes[i].rule))
			return &writes[i];
	return NULL;
}

static void say(int err, int status)
{
	struct gm_hdr h = next(GM_OP_PING, 0, 0);
	bool open = !ask(&h, NULL) && h.op == GM_OP_PING;

	if (err)
		printf("none");
	else
		printf("%s", status ? strerrorname_np(-status) : "ok");
	printf(" %s\n", open ? "open" : "closed");
}

static int patient(uint64_t bus, uint64_t late_ms)
{
	int err = 0;

	wait_ms = PATIENT_MS;
	while (!err) {
		struct gm_hdr h = next(GM_OP_GET, bus, 8);
		uint64_t start = clock_boot_ns();

		err = ask(&h, NULL);
		if (!err)
			err = h.status;
		if (!err && clock_boot_ns() - start >= late_ms * 1000000) {
			puts("late");
			return 0;
		}
	}
	puts(strerrorname_np(-err));
	return 0;
}

static const uint8_t bytes[GM_PAGE_SIZE] = { 88 };

/* As ask(), past what is no reply to it. */
static int ask_for(struct gm_hdr *h)
{
	struct gm_hdr asked = *h;
	int err = ask(h, bytes);

	while (!err &&
	       (!(h->flags & GM_F_REPLY) || h->op != asked.op || h->seq != asked.seq))
		err = answer(h);
	return err;
}

static void say_done(uint64_t seq)
{
	struct gm_hdr h = next(GM_OP_PING, 0, 0);

	h.arg2 = 2; /* both grants have come */
	if (ask_for(&h))
		puts("none");
	else
		puts(h.arg2 >= seq ? "done" : "undone");
}

static struct gm_hdr flush(uint64_t bus, uint64_t version)
{
	struct gm_hdr h = next(GM_OP_FLUSH, bus, GM_PAGE_SIZE);

	h.len = GM_PAGE_SIZE;
	h.arg = version;
	h.arg2 = 2;
	return h;
}

/* The request of @w, with something to write in every field that could be it. */
static int write_request(const struct write *w, uint64_t bus, struct gm_hdr *out)
{
	struct gm_hdr h = { 0 };
	int err = 0;

	if (w->flags & GM_F_UPGRADE) {
		h = next(GM_OP_READ, bus, GM_PAGE_SIZE);
		err = ask_for(&h);
	}
	if (err || h.status)
		return err ? err : h.status;
	/* Pages before it may be held still, from the rules before this one. */
	if (w->op == GM_OP_ACK)
		bus += 2 * GM_PAGE_SIZE;
	*out = next(w->op, bus, w->size);
	out->flags = w->flags;
	out->len = w->len;
	out->arg = w->op == GM_OP_FLUSH || w->op == GM_OP_ACK ? 0 : 88;
	return 0;
}

static int writer(uint64_t bus)
{
	uint8_t raw[GM_HDR_SIZE];
	struct gm_hdr h;
	uint64_t version = 0;
	int err = 0;

	for (int i = 2; i-- && !err;) {
		h = next(GM_OP_WRITE, bus + (uint64_t)i * GM_PAGE_SIZE, GM_PAGE_SIZE);
		err = ask_for(&h);
		version = h.arg;
	}
	puts(err || h.status ? "error" : "ok");
	say_done(h.seq);
	getchar();
	h = flush(bus, version + 1);
	gm_hdr_encode(&h, raw);
	if (send_raw(raw, bytes, h.len))
		return 1;
	say_done(h.seq);
	h = flush(bus + GM_PAGE_SIZE, 0);
	err = ask_for(&h);
	puts(err ? "none" : h.status ? strerrorname_np(-h.status) : "ok");
	getchar();
	h = flush(bus, version + 1);
	err = ask_for(&h);
	say_done(h.seq);
	puts(err ? "none" : h.status ? strerrorname_np(-h.status) : "ok");
	return 0;
}

static int hasty(uint64_t bus)
{
	struct gm_hdr h = next(GM_OP_WRITE, bus, GM_PAGE_SIZE), bye;
	uint8_t raw[2][GM_HDR_SIZE];
	int err;

	gm_hdr_encode(&h, raw[0]);
	bye = next(GM_OP_DETACH, bus, GM_PAGE_SIZE);
	gm_hdr_encode(&bye, raw[1]);
	err = send_raw(raw[0], raw[1], sizeof(raw[1]));
	if (!err)
		err = answer(&h);
	if (!err)
		puts(h.status ? strerrorname_np(-h.status) : "ok");
	/* The owner has done both. */
	h = next(GM_OP_FENCE, 0, 0);
	return err || ask_for(&h);
}

int main(int argc, char **argv)
{
	const char *rule = argc > 4 ? argv[4] : "";
	bool huge = !strcmp(rule, "huge"); /* its header, and nothing behind it */
	const struct write *w = find_write(rule);
	uint8_t role = w ? w->role : GM_ROLE_OPS;
	uint64_t bus = argc > 2 ? strtoull(argv[2], NULL, 0) : 0;
	uint8_t raw[GM_HDR_SIZE];
	struct gm_hdr h;
	int err;

	if (argc < 5 || net_connect(argv[1], NULL, WAIT_MS, &conn)) {
		fprintf(stderr, "usage: hostile ADDR BUS KEY RULE\n");
		return 2;
	}
	if (!strcmp(rule, "stranger")) {
		h = next(GM_OP_GET, bus, 8);
		err = ask(&h, NULL);
		say(err, h.status);
		return 0;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!strcmp(rule, "writer") || !strcmp(rule, "hasty") || huge)
		role = GM_ROLE_PAGES;
	err = enter(bus, argv[3], role);
	if (err || !strcmp(rule, "key")) {
		say(0, err);
		return 0;
	}
	if (!strcmp(rule, "patient"))
		return patient(bus, argc > 5 ? strtoull(argv[5], NULL, 0) : 0);
	if (!strcmp(rule, "writer"))
		return writer(bus);
	if (!strcmp(rule, "hasty"))
		return hasty(bus);
	if (w) {
		err = write_request(w, bus, &h);
		if (err) {
			fprintf(stderr, "hostile: no page to read: %s\n", strerror(-err));
			return 1;
		}
	} else {
		h = next(GM_OP_GET, bus, 8);
	}
	if (!strcmp(rule, "bounds"))
		h.bus = bus + (1u << 20) - 4;
	else if (!strcmp(rule, "elsewhere"))
		h.bus = 1ull << 40;
	else if (!strcmp(rule, "replay"))
		h.seq--;
	else if (!strcmp(rule, "session"))
		h.session ^= 1;
	else if (!strcmp(rule, "epoch"))
		h.epoch++;
	else if (!strcmp(rule, "keyid"))
		h.key_id++;
	else if (!strcmp(rule, "pages"))
		h = next(GM_OP_READ, bus, 4096);
	else if (!strcmp(rule, "length"))
		h.size = UINT32_MAX;
	if (huge) {
		h = next(GM_OP_FLUSH, bus, GM_HUGE_SIZE);
		h.len = h.size;
	}
	gm_hdr_encode(&h, raw);
	if (!strcmp(rule, "version"))
		raw[4]++;
	else if (!strcmp(rule, "magic"))
		raw[0]++;
	err = send_raw(raw, bytes, huge ? 0 : h.len);
	if (!err)
		err = answer(&h);
	say(err, h.status);
	net_close(&conn);
	return 0;
}
