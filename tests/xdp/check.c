// SPDX-License-Identifier: BSD-2-Clause
/* One frame, checked in every respect; see check.h. */
#include "check.h"

#include <unistd.h>

#include <linux/bpf.h>

const uint8_t mac_plain[6] = { 0x02, 0x67, 0x6e, 0x00, 0x00, 0x02 };
const uint8_t mac_other[6] = { 0x02, 0x67, 0x6e, 0x00, 0x00, 0x03 };
const uint64_t secret[2] = NIC_HASH_KEY;

const struct gn_instance in_all = { .id = 0x0405, .flags = ALL_OFFLOADS };
const struct gn_instance in_vlan = { .id = 0x0806, .flags = ALL_OFFLOADS };
const struct gn_instance in_plain = { .id = 0x0007, .flags = 0 };

struct nic nic;
struct nic_run run;
unsigned int fixtures;

static int setup(void **state)
{
	int err = nic_open(&nic);

	if (err) {
		fprintf(stderr, "cannot set up: %s\n", strerror(-err));
		return -1;
	}
	nic_config(&nic, MAX_FRAME, 0, secret);
	nic_generation(&nic, 1);
	nic_instance(&nic, frame_mac, 0, &in_all);
	nic_instance(&nic, frame_mac, 100, &in_vlan);
	nic_instance(&nic, frame_mac, 7, &in_vlan);
	nic_instance(&nic, mac_plain, 0, &in_plain);
	nic_socket(&nic, true);
	return 0;
}

static int teardown(void **state)
{
	nic_close(&nic);
	printf("%u named fixtures, %u frames run\n", fixtures, nic.frames);
	return 0;
}

void counted(const char *what, ...)
{
	uint64_t want[GN_CNT_MAX] = { [GN_CNT_RX] = 1 };
	va_list ap;
	int k;

	va_start(ap, what);
	while ((k = va_arg(ap, int)) >= 0)
		want[k] = (uint64_t)va_arg(ap, unsigned int);
	va_end(ap);
	for (k = 0; k < GN_CNT_MAX; k++)
		if (run.delta.v[k] != want[k])
			fail_msg("%s: counter %d moved by %llu, not %llu", what, k,
				 (unsigned long long)run.delta.v[k],
				 (unsigned long long)want[k]);
}

void check_pass(const char *what, const uint8_t *f, unsigned int len, int counter)
{
	assert_int_equal(nic_run(&nic, f, len, &run), 0);
	if (run.verdict != XDP_PASS)
		fail_msg("%s: verdict %u", what, run.verdict);
	assert_int_equal(run.meta_len, run.foreign);
	assert_int_equal(run.out_len, len);
	assert_memory_equal(run.out, f, len);
	counted(what, counter, 1U, -1);
}

/* No offset or length leads out of the frame: what user space relies on. */
static void check_bounds(const char *what, const struct gn_meta *m, unsigned int len)
{
	if (m->class != GN_CLASS_ALONE && !m->l4_len)
		fail_msg("%s: no header length", what);
	if (m->l3_off > m->l4_off ||
	    (unsigned int)m->l4_off + m->l4_len + m->payload_len > len)
		fail_msg("%s: offsets %u %u, lengths %u %u, frame %u", what, m->l3_off,
			 m->l4_off, m->l4_len, m->payload_len, len);
}

static void check_tag(const char *what, uint16_t magic, uint32_t seq)
{
	struct gn_tag tag;

	if (run.meta_len != sizeof(tag))
		fail_msg("%s: %u bytes in front", what, run.meta_len);
	memcpy(&tag, run.meta, sizeof(tag));
	assert_int_equal(tag.magic, magic);
	assert_int_equal(tag.pad, 0);
	assert_int_equal(tag.seq, seq);
}

struct gn_meta check_redirect(const char *what, const uint8_t *f, unsigned int len,
			      const struct gn_instance *in, enum place place)
{
	bool inband = place == IN_FRAME || place == IN_FULL;
	struct stream_reader r = { .s = nic.stream };
	uint32_t prod = nic.stream->prod, seq = prod + nic.stream->gap;
	struct frame_want w;
	struct gn_meta m;
	uint8_t *body;
	int err;

	err = nic_run(&nic, f, len, &run);
	if (err)
		fail_msg("%s: test run: %s", what, strerror(-err));
	frame_expect(f, len, run.linear ? run.linear : len, in, &w);
	if (in->flags & GN_INSTANCE_LOGGED)
		w.meta.flags |= GN_F_LOGGED;
	if (run.verdict != XDP_REDIRECT)
		fail_msg("%s: verdict %u", what, run.verdict);
	if (inband) {
		w.meta.magic = GN_META_MAGIC_INBAND;
		if (place == IN_FULL)
			check_tag(what, GN_META_MAGIC_FULL, prod);
		else
			assert_int_equal(run.meta_len, run.foreign);
		assert_int_equal(run.out_len, len + GN_META_SIZE);
		memcpy(&m, run.out, sizeof(m));
		body = run.out + GN_META_SIZE;
	} else if (place == IN_STREAM) {
		check_tag(what, GN_META_MAGIC_STREAM, seq);
		assert_int_equal(nic.stream->gap, 0);
		prod = seq + 1;
		assert_int_equal(run.out_len, len);
		stream_seek(&r, seq);
		m = *stream_next(&r);
		body = run.out;
	} else {
		assert_int_equal(run.meta_len, GN_META_SIZE);
		assert_int_equal(run.out_len, len);
		memcpy(&m, run.meta, sizeof(m));
		body = run.out;
	}
	assert_int_equal(nic.stream->prod, prod);
	assert_memory_equal(body, f, len);
	check_bounds(what, &m, len);
	if (!!m.flow != w.meta.flow || !!m.key != w.meta.key)
		fail_msg("%s: flow %#x, key %#llx", what, m.flow,
			 (unsigned long long)m.key);
	w.meta.flow = m.flow;
	w.meta.key = m.key;
	if (memcmp(&m, &w.meta, sizeof(m)))
		fail_msg("%s: class %u not %u, flags %#x not %#x, l3 %u/%u l4 "
			 "%u/%u+%u/%u payload %u/%u sum %#x/%#x seq %#x/%#x id %u/%u",
			 what, m.class, w.meta.class, m.flags, w.meta.flags, m.l3_off,
			 w.meta.l3_off, m.l4_off, w.meta.l4_off, m.l4_len, w.meta.l4_len,
			 m.payload_len, w.meta.payload_len, m.payload_sum,
			 w.meta.payload_sum, m.seq, w.meta.seq, m.ip_id, w.meta.ip_id);
	counted(what, GN_CNT_REDIRECT, 1U, GN_CNT_REDIRECT_BYTES, len,
		inband ? GN_CNT_INBAND : GN_CNT_REDIRECT, 1U,
		m.class == GN_CLASS_ALONE ? GN_CNT_ALONE : GN_CNT_REDIRECT, 1U,
		w.why == GN_CNT_MAX ? GN_CNT_REDIRECT : (int)w.why, 1U, -1);
	return m;
}

const struct gn_instance *instance_of(const struct frame_spec *s)
{
	if (s->dst == mac_plain)
		return &in_plain;
	return s->ntags && s->tci[0] & 0xfff ? &in_vlan : &in_all;
}

struct gn_meta run_spec(const char *what, const struct frame_spec *s)
{
	static uint8_t f[FRAME_MAX];
	unsigned int len = frame_build(s, f);

	return check_redirect(what, f, len, instance_of(s), IN_FRONT);
}

int check_main(const char *name, const struct CMUnitTest *tests, size_t n)
{
	if (geteuid()) {
		printf("%s: skipped: needs root\n", name);
		return 77;
	}
	return _cmocka_run_group_tests(name, tests, n, setup, teardown);
}
