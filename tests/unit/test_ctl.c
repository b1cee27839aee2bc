// SPDX-License-Identifier: BSD-2-Clause
/*
 * ctl: the protocol by ctl_handle(), then the socket around it with real clients. One
 * thread: the test writes, lets ctl_serve() do what is ready, and reads.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "../../user/daemon/ctl.h"
#include "still.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define SPEC	      "vm1,mac=52:54:00:12:34:56,port=null"
#define DEADLINE_MS   10000

/* ---- protocol ------------------------------------------------------------------- */

/* Parsed answer; it must be one line. */
static json_t *ask_n(struct daemon *d, const char *line, size_t len)
{
	struct ctl_fds fds = { .n = 9 };
	char *text = ctl_handle(d, line, len, &fds);
	json_t *ans;
	size_t n;

	assert_non_null(text);
	assert_int_equal(fds.n, 0);
	n = strlen(text);
	assert_ptr_equal(strchr(text, '\n'), text + n - 1);
	ans = json_loadb(text, n - 1, JSON_REJECT_DUPLICATES, NULL);
	if (!ans)
		fail_msg("no JSON: %s", text);
	assert_true(json_is_boolean(json_object_get(ans, "ok")));
	free(text);
	return ans;
}

static json_t *ask(struct daemon *d, const char *line)
{
	return ask_n(d, line, strlen(line));
}

static json_t *ask_ok(struct daemon *d, const char *line)
{
	json_t *ans = ask(d, line);

	if (!json_is_true(json_object_get(ans, "ok")))
		fail_msg("%s: %s", line,
			 json_string_value(json_object_get(ans, "error")));
	return ans;
}

static void refused_n(struct daemon *d, const char *line, size_t len, const char *why)
{
	json_t *ans = ask_n(d, line, len);
	const char *error = json_string_value(json_object_get(ans, "error"));

	if (!json_is_false(json_object_get(ans, "ok")) || !error || !strstr(error, why))
		fail_msg("%.60s: \"%s\" does not say \"%s\"", line, error, why);
	assert_int_equal(json_object_size(ans), 2);
	json_decref(ans);
}

static void refused(struct daemon *d, const char *line, const char *why)
{
	refused_n(d, line, strlen(line), why);
}

static void answers_version(void **state)
{
	struct daemon d = { .nifaces = 0 };
	json_t *ans = ask_ok(&d, "{\"cmd\":\"version\"}");

	assert_string_equal(json_string_value(json_object_get(ans, "version")),
			    GN_VERSION);
	assert_int_equal(json_integer_value(json_object_get(ans, "abi")), GN_ABI);
	json_decref(ans);
	/* Blanks around it, as a person types it. */
	json_decref(ask_ok(&d, "  { \"cmd\" : \"version\" } \r"));
}

static void refuses_garbage(void **state)
{
	static const char nul[] = "{\"cmd\":\"version\"}\0{}";
	static const char *const bad[][2] = {
		{ "", "not JSON" },
		{ "\n", "not JSON" },
		{ "{", "not JSON" },
		{ "{\"cmd\":\"version\"", "not JSON" },
		{ "{\"cmd\":\"version\"}x", "not JSON" },
		{ "{\"cmd\":\"version\"}{\"cmd\":\"version\"}", "not JSON" },
		{ "{\"cmd\":\"version\",\"cmd\":\"stats\"}", "duplicate" },
		{ "{\"cmd\":\"vers\\u0000ion\"}", "not JSON" },
		{ "{\"cmd\":\"\xff\"}", "not JSON" },
		{ "\xff\xfe", "not JSON" },
		{ "version", "not JSON" },
		{ "[]", "not an object" },
		{ "[\"version\"]", "not an object" },
		{ "{}", "no \"cmd\"" },
		{ "{\"cmd\":1}", "no \"cmd\"" },
		{ "{\"cmd\":null}", "no \"cmd\"" },
		{ "{\"Cmd\":\"version\"}", "no \"cmd\"" },
		{ "{\"cmd\":\"\"}", "unknown command \"\"; known are: version" },
		{ "{\"cmd\":\"versio\"}", "unknown command \"versio\"" },
		{ "{\"cmd\":\"\xc3\xa4\"}", "unknown command \"??\"" },
		{ "{\"cmd\":\"version\",\"x\":\"y\"}", "version does not take \"x\"" },
		{ "{\"cmd\":\"instance-del\",\"names\":\"v\"}", "it takes: name iface" },
		{ "{\"cmd\":\"instance-del\",\"nam\":\"v\"}", "it takes: name iface" },
		{ "{\"cmd\":\"instance-del\",\"\":\"v\"}", "it takes: name iface" },
		{ "{\"cmd\":\"instance-del\",\"name\":7}", "\"name\" is not a string" },
		{ "{\"cmd\":\"stats\",\"a\":[[[[0]]]]}", "nested deeper than 4" },
		{ "{\"a\\\"\":[[[[0]]]]}", "nested deeper than 4" },
		{ "{\"cmd\":\"[[[[[[{{{{{{\"}", "unknown command" },
		{ "{\"cmd\":\"\\\"[[[[[[\"}", "unknown command" },
	};
	struct daemon d = { .nifaces = 0 };
	char *deep;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		refused(&d, bad[i][0], bad[i][1]);
	refused_n(&d, nul, sizeof(nul) - 1, "not JSON");
	deep = malloc(CTL_MAX_LINE + 1);
	assert_non_null(deep);
	memset(deep, '[', CTL_MAX_LINE + 1);
	refused_n(&d, deep, CTL_MAX_LINE, "nested deeper");
	refused_n(&d, deep, CTL_MAX_LINE + 1, "longer than 4096");
	memset(deep, 'x', CTL_MAX_LINE);
	refused_n(&d, deep, CTL_MAX_LINE, "not JSON");
	free(deep);
}

static void answers_stats(void **state)
{
	struct still s;
	json_t *ans;
	const json_t *inst;

	still_init(&s, "veth0");
	still_add(&s, SPEC, 0);
	ans = ask_ok(&s.d, "{\"cmd\":\"stats\"}");
	assert_int_equal(json_array_size(json_object_get(ans, "interfaces")), 1);
	assert_non_null(json_object_get(ans, "uptime_s"));
	json_decref(ans);
	ans = ask_ok(&s.d, "{\"cmd\":\"instances\"}");
	inst = json_array_get(json_object_get(ans, "instances"), 0);
	assert_string_equal(json_string_value(json_object_get(inst, "interface")),
			    "veth0");
	assert_string_equal(json_string_value(json_object_get(inst, "name")), "vm1");
	json_decref(ans);
	ans = ask_ok(&s.d, "{\"cmd\":\"metrics\"}");
	assert_non_null(strstr(json_string_value(json_object_get(ans, "text")),
			       "\nghostnic_port_rx_packets_total{"));
	json_decref(ans);
	still_fini(&s);
}

static void answers_flows(void **state)
{
	struct still s;
	const json_t *list, *f;
	struct flow *flow;
	json_t *ans;

	still_init(&s, "veth0");
	still_add(&s, SPEC, 5);
	ans = ask_ok(&s.d, "{\"cmd\":\"flows\"}");
	assert_int_equal(json_array_size(json_object_get(ans, "flows")), 0);
	json_decref(ans);

	still_flow(&s, 0, 7, 5, 1000);
	flow = still_flow(&s, 1, 9, 5, 3000);
	flow->packets = 30;
	flow->frames = 3;
	flow->bytes = 45000;
	/* Of an instance that has gone: another generation of the slot. */
	flow = still_flow(&s, 0, 8, 5 + GN_MAX_INSTANCES, 2000);
	flow->flags = GN_F_UDP;
	ans = ask_ok(&s.d, "{\"cmd\":\"flows\"}");
	list = json_object_get(ans, "flows");
	assert_int_equal(json_array_size(list), 3);
	f = json_array_get(list, 0);
	assert_string_equal(json_string_value(json_object_get(f, "flow")),
			    "10.0.0.1:9 > 10.0.0.2:80");
	assert_string_equal(json_string_value(json_object_get(f, "interface")), "veth0");
	assert_string_equal(json_string_value(json_object_get(f, "instance")), "vm1");
	assert_string_equal(json_string_value(json_object_get(f, "proto")), "tcp");
	assert_int_equal(json_integer_value(json_object_get(f, "queue")), 1);
	assert_int_equal(json_integer_value(json_object_get(f, "packets")), 30);
	assert_int_equal(json_integer_value(json_object_get(f, "frames")), 3);
	assert_int_equal(json_integer_value(json_object_get(f, "bytes")), 45000);
	assert_true(json_integer_value(json_object_get(f, "idle_ms")) > 0);
	f = json_array_get(list, 1);
	assert_string_equal(json_string_value(json_object_get(f, "instance")), "?");
	assert_string_equal(json_string_value(json_object_get(f, "proto")), "udp");
	f = json_array_get(list, 2);
	assert_int_equal(json_integer_value(json_object_get(f, "queue")), 0);
	json_decref(ans);
	/* At most 1000, the newest. */
	for (unsigned int n = 0; n < FLOW_SETS * FLOW_WAYS; n++)
		still_flow(&s, 0, n, 5, n);
	ans = ask_ok(&s.d, "{\"cmd\":\"flows\"}");
	list = json_object_get(ans, "flows");
	assert_int_equal(json_array_size(list), 1000);
	f = json_array_get(list, 999);
	assert_string_equal(json_string_value(json_object_get(f, "flow")),
			    "10.0.0.1:25 > 10.0.0.2:80");
	json_decref(ans);
	still_fini(&s);
}

static void checks_instance_commands(void **state)
{
	struct daemon none = { .nifaces = 0 };
	struct still s, t;

	refused(&none, "{\"cmd\":\"instance-add\",\"spec\":\"" SPEC "\"}",
		"which interface");
	still_init(&s, "veth0");
	still_init(&t, "veth1");
	still_add(&s, SPEC, 0);
	refused(&s.d, "{\"cmd\":\"instance-add\"}", "no \"spec\"");
	refused(&s.d, "{\"cmd\":\"instance-add\",\"spec\":\"vm2\"}", "add mac=MAC");
	refused(&s.d, "{\"cmd\":\"instance-add\",\"spec\":\"" SPEC "\"}",
		"exists already");
	refused(&s.d,
		"{\"cmd\":\"instance-add\",\"spec\":\"vm2,mac=52:54:00:12:34:56,port="
		"null\"}",
		"has this address");
	refused(&s.d, "{\"cmd\":\"instance-add\",\"iface\":\"x\",\"spec\":\"" SPEC "\"}",
		"no interface x");
	refused(&s.d,
		"{\"cmd\":\"instance-add\",\"iface\":\"veth0\",\"spec\":\"" SPEC
		",iface=veth1\"}",
		"name one");
	refused(&s.d, "{\"cmd\":\"instance-del\"}", "no \"name\"");
	refused(&s.d, "{\"cmd\":\"instance-del\",\"name\":\"vm9\"}",
		"no instance vm9 on veth0");
	/* Two interfaces: which one must be said. */
	s.d.iface[1] = &t.iface;
	s.d.nifaces = 2;
	refused(&s.d, "{\"cmd\":\"instance-del\",\"name\":\"vm1\"}", "which interface");
	refused(&s.d, "{\"cmd\":\"instance-del\",\"name\":\"vm1\",\"iface\":\"veth1\"}",
		"no instance vm1 on veth1");
	json_decref(ask_ok(
		&s.d, "{\"cmd\":\"instance-del\",\"name\":\"vm1\",\"iface\":\"veth0\"}"));
	assert_null(s.iface.instance[0]);
	still_fini(&t);
	still_fini(&s);
}

/* Down to XDP's map; needs the right to make one. */
static void adds_instance(void **state)
{
	struct gn_instance_key key = { .mac = { 0x52, 0x54, 0, 0x12, 0x34, 0x56 } };
	struct gn_instance value;
	struct still s;
	int fd = bpf_map_create(BPF_MAP_TYPE_HASH, "test", sizeof(key), sizeof(value), 4,
				NULL);

	if (fd < 0) {
		print_message("no right to create a BPF map: %s\n", strerror(errno));
		skip();
	}
	still_init(&s, "veth0");
	s.iface.map_instances = fd;
	json_decref(ask_ok(&s.d, "{\"cmd\":\"instance-add\",\"spec\":\"" SPEC "\"}"));
	assert_non_null(s.iface.instance[0]);
	assert_string_equal(s.iface.instance[0]->conf.iface, "veth0");
	assert_int_equal(bpf_map_lookup_elem(fd, &key, &value), 0);
	assert_int_equal(value.id, s.iface.instance[0]->id);
	json_decref(ask_ok(
		&s.d, "{\"cmd\":\"instance-del\",\"name\":\"vm1\",\"iface\":\"veth0\"}"));
	assert_int_equal(bpf_map_lookup_elem(fd, &key, &value), -ENOENT);
	still_fini(&s);
	close(fd);
}

/* ---- socket --------------------------------------------------------------------- */

struct server {
	struct still s;
	struct ctl *ctl;
	char dir[64], path[108];
};

static int setup(void **state)
{
	struct server *v = calloc(1, sizeof(*v));

	assert_non_null(v);
	still_init(&v->s, "veth0");
	strcpy(v->dir, "/tmp/test_ctl.XXXXXX");
	assert_non_null(mkdtemp(v->dir));
	snprintf(v->path, sizeof(v->path), "%s/run/ctl.sock", v->dir);
	assert_int_equal(ctl_open(&v->ctl, v->path, &v->s.d), 0);
	*state = v;
	return 0;
}

static int teardown(void **state)
{
	struct server *v = *state;
	char run[80];

	ctl_close(v->ctl);
	still_fini(&v->s);
	snprintf(run, sizeof(run), "%s/run", v->dir);
	assert_int_equal(access(v->path, F_OK), -1);
	assert_int_equal(rmdir(run), 0); /* nothing is left in it */
	assert_int_equal(rmdir(v->dir), 0);
	free(v);
	return 0;
}

static int dial(const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_return_code(fd, errno);
	strcpy(sun.sun_path, path);
	assert_return_code(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), errno);
	return fd;
}

/* Serve until nothing is ready. */
static void pump(struct server *v)
{
	struct pollfd p = { .fd = ctl_fd(v->ctl), .events = POLLIN };

	while (poll(&p, 1, 0) > 0)
		ctl_serve(v->ctl);
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* What has been sent so far. Return: bytes; @eof: and nothing will follow */
static size_t hear(int fd, char *buf, size_t size, bool *eof)
{
	size_t have = 0;
	ssize_t n;

	while ((n = recv(fd, buf + have, size - 1 - have, MSG_DONTWAIT)) > 0)
		have += (size_t)n;
	*eof = n == 0 || errno == ECONNRESET;
	buf[have] = '\0';
	return have;
}

static unsigned int lines(const char *s)
{
	unsigned int n = 0;

	while ((s = strchr(s, '\n'))) {
		n++;
		s++;
	}
	return n;
}

#define VERSION "{\"cmd\":\"version\"}\n"

static void serves_clients(void **state)
{
	struct server *v = *state;
	char buf[4096], run[80];
	struct stat st;
	bool eof;
	int a, b;

	snprintf(run, sizeof(run), "%s/run", v->dir);
	assert_int_equal(stat(run, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	assert_int_equal(stat(v->path, &st), 0);
	assert_true(S_ISSOCK(st.st_mode));
	assert_int_equal(st.st_mode & 07777, 0600);

	a = dial(v->path);
	b = dial(v->path);
	/* Half a line is no request; two and a half are two. */
	say(a, "{\"cmd\":");
	say(b, VERSION VERSION "{");
	pump(v);
	assert_int_equal(hear(a, buf, sizeof(buf), &eof), 0);
	assert_false(eof);
	hear(b, buf, sizeof(buf), &eof);
	assert_int_equal(lines(buf), 2);
	say(a, "\"version\"}\n");
	pump(v);
	hear(a, buf, sizeof(buf), &eof);
	assert_int_equal(lines(buf), 1);
	assert_non_null(strstr(buf, "\"ok\":true"));
	/* Garbage is answered and the client may go on. */
	say(b, "garbage\n" VERSION);
	pump(v);
	hear(b, buf, sizeof(buf), &eof);
	assert_int_equal(lines(buf), 2);
	assert_non_null(strstr(buf, "\"ok\":false"));
	assert_non_null(strstr(buf, "\"ok\":true"));
	assert_false(eof);
	close(b);
	pump(v);
	/* Everything that was asked before the end of input is answered. */
	say(a, VERSION VERSION VERSION "{\"cmd\"");
	shutdown(a, SHUT_WR);
	pump(v);
	hear(a, buf, sizeof(buf), &eof);
	assert_int_equal(lines(buf), 3);
	assert_true(eof);
	close(a);
}

static void bounds_lines(void **state)
{
	struct server *v = *state;
	char text[CTL_MAX_LINE + 2], buf[8192];
	bool eof;
	int fd = dial(v->path);

	/* The longest line there may be, with its newline, is answered. */
	memset(text, ' ', sizeof(text));
	memcpy(text, VERSION, strlen(VERSION) - 1);
	text[CTL_MAX_LINE - 1] = '\n';
	text[CTL_MAX_LINE] = '\0';
	say(fd, text);
	pump(v);
	hear(fd, buf, sizeof(buf), &eof);
	assert_non_null(strstr(buf, "\"ok\":true"));
	assert_false(eof);
	/* One byte more ends the connection, newline or not. */
	text[CTL_MAX_LINE - 1] = ' ';
	text[CTL_MAX_LINE] = '\n';
	text[CTL_MAX_LINE + 1] = '\0';
	say(fd, text);
	pump(v);
	hear(fd, buf, sizeof(buf), &eof);
	assert_int_equal(lines(buf), 1);
	assert_non_null(strstr(buf, "longer than 4096"));
	assert_true(eof);
	close(fd);
}

/* A client that asks and does not read is not read from; it loses nothing. */
static void holds_slow_readers(void **state)
{
	struct server *v = *state;
	const char *req = "{\"cmd\":\"metrics\"}\n";
	unsigned int sent = 0, got = 0;
	static char buf[1 << 20];
	bool eof;
	int fd = dial(v->path);

	while (send(fd, req, strlen(req), MSG_DONTWAIT | MSG_NOSIGNAL) ==
	       (ssize_t)strlen(req)) {
		sent++;
		pump(v);
		if (sent > 100000)
			fail_msg("the daemon takes requests without end");
	}
	assert_int_equal(errno, EAGAIN);
	assert_true(sent > 10);
	for (size_t n = 1; n;) {
		n = hear(fd, buf, sizeof(buf), &eof);
		got += lines(buf);
		assert_false(eof);
		pump(v);
	}
	assert_int_equal(got, sent);
	close(fd);
}

static void bounds_clients(void **state)
{
	struct server *v = *state;
	int fd[CTL_MAX_CLIENTS], more;
	char buf[4096];
	bool eof;

	for (int i = 0; i < CTL_MAX_CLIENTS; i++) {
		fd[i] = dial(v->path);
		pump(v);
	}
	more = dial(v->path);
	pump(v);
	hear(more, buf, sizeof(buf), &eof);
	assert_non_null(strstr(buf, "too many control clients"));
	assert_true(eof);
	close(more);
	/* The others are still served, and a place that is left is taken. */
	for (int i = 0; i < CTL_MAX_CLIENTS; i++)
		say(fd[i], VERSION);
	pump(v);
	for (int i = 0; i < CTL_MAX_CLIENTS; i++) {
		hear(fd[i], buf, sizeof(buf), &eof);
		assert_int_equal(lines(buf), 1);
		assert_false(eof);
	}
	close(fd[3]);
	pump(v);
	fd[3] = dial(v->path);
	say(fd[3], VERSION);
	pump(v);
	hear(fd[3], buf, sizeof(buf), &eof);
	assert_int_equal(lines(buf), 1);
	for (int i = 0; i < CTL_MAX_CLIENTS; i++)
		close(fd[i]);
	pump(v);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* All places taken, one by a client that never reads: it makes room in the end. */
static void evicts_stalled_client(void **state)
{
	struct server *v = *state;
	const char *req = "{\"cmd\":\"metrics\"}\n";
	int fd[CTL_MAX_CLIENTS], more;
	int64_t end = now_ms() + DEADLINE_MS;
	struct pollfd p;
	char buf[4096];
	bool eof;

	for (int i = 0; i < CTL_MAX_CLIENTS; i++) {
		fd[i] = dial(v->path);
		pump(v);
	}
	while (send(fd[0], req, strlen(req), MSG_DONTWAIT | MSG_NOSIGNAL) > 0)
		pump(v);
	for (;;) {
		more = dial(v->path);
		say(more, VERSION);
		pump(v);
		p = (struct pollfd){ .fd = more, .events = POLLIN };
		assert_int_equal(poll(&p, 1, DEADLINE_MS), 1);
		hear(more, buf, sizeof(buf), &eof);
		if (!eof)
			break;
		close(more);
		assert_true(now_ms() < end);
		poll(NULL, 0, 20); /* how often to look */
	}
	assert_non_null(strstr(buf, "\"ok\":true"));
	/* It was the one that stalled. */
	for (int i = 1; i < CTL_MAX_CLIENTS; i++) {
		say(fd[i], VERSION);
		pump(v);
		hear(fd[i], buf, sizeof(buf), &eof);
		assert_int_equal(lines(buf), 1);
		assert_false(eof);
	}
	while (recv(fd[0], buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
	assert_int_not_equal(errno, EAGAIN);
	for (int i = 0; i < CTL_MAX_CLIENTS; i++)
		close(fd[i]);
	close(more);
	pump(v);
}

static void guards_its_path(void **state)
{
	struct server *v = *state;
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	struct ctl *other = NULL;
	char path[120], longer[200];
	struct stat st;
	int fd;

	/* A living socket is not replaced. */
	assert_int_equal(ctl_open(&other, v->path, &v->s.d), -EADDRINUSE);
	assert_null(other);
	close(dial(v->path));
	pump(v);
	/* A dead one is. */
	snprintf(path, sizeof(path), "%s/run/dead", v->dir);
	strcpy(sun.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_return_code(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), errno);
	close(fd);
	assert_int_equal(ctl_open(&other, path, &v->s.d), 0);
	close(dial(path));
	/* Another's socket at our path is not ours to remove. */
	assert_int_equal(unlink(path), 0);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_return_code(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), errno);
	ctl_close(other);
	assert_int_equal(lstat(path, &st), 0);
	close(fd);
	assert_int_equal(unlink(path), 0);
	/* What is no socket stays as it is; a link is not followed. */
	fd = open(path, O_CREAT | O_WRONLY, 0644);
	assert_return_code(fd, errno);
	close(fd);
	assert_int_equal(ctl_open(&other, path, &v->s.d), -EEXIST);
	assert_int_equal(lstat(path, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(symlink(v->path, path), 0);
	assert_int_equal(ctl_open(&other, path, &v->s.d), -EEXIST);
	assert_int_equal(unlink(path), 0);
	memset(longer, '/', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(ctl_open(&other, longer, &v->s.d), -ENAMETOOLONG);
	ctl_close(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_version),
		cmocka_unit_test(refuses_garbage),
		cmocka_unit_test(answers_stats),
		cmocka_unit_test(answers_flows),
		cmocka_unit_test(checks_instance_commands),
		cmocka_unit_test(adds_instance),
		cmocka_unit_test_setup_teardown(serves_clients, setup, teardown),
		cmocka_unit_test_setup_teardown(bounds_lines, setup, teardown),
		cmocka_unit_test_setup_teardown(holds_slow_readers, setup, teardown),
		cmocka_unit_test_setup_teardown(bounds_clients, setup, teardown),
		cmocka_unit_test_setup_teardown(evicts_stalled_client, setup, teardown),
		cmocka_unit_test_setup_teardown(guards_its_path, setup, teardown),
	};

	return cmocka_run_group_tests_name("ctl", tests, NULL, NULL);
}
