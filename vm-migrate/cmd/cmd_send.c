// SPDX-License-Identifier: BSD-2-Clause
/*
 * send: have a running VM migrate, and show how it goes.
 *
 * The VM's process does the work. This one asks it through the control socket, reads its
 * events, and turns an interrupt into a cancel; a second interrupt leaves it alone.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cmd_tls.h"

#define STREAMS_USUAL 4 /* at most, unless told otherwise */

static const char *control, *to;
static struct chan_tls tls;
static struct control_request req = CONTROL_DEFAULTS;
static uint64_t bandwidth;
static unsigned int streams;
static double interval_s = 0.2;

static const struct opt opts[] = {
	OPT("control", 'c', TEXT, &control, "SOCKET", "control socket of the VM"),
	OPT("to", 't', TEXT, &to, "URI", "tcp:HOST:PORT or unix:PATH of its recv"),
	OPT("streams", 's', UINT, &streams, "N",
	    "connections; default: as many as there are CPUs, at\nmost 4", .min = 1,
	    .max = WIRE_MAX_STREAMS),
	OPT("downtime-ms", 'd', UINT, &req.downtime_ms, "MS",
	    "how long the VM may stand still, default 100", .min = 1, .max = 3600000),
	OPT("on-stall", 0, WORD, &req.on_stall, "WHAT",
	    "if it would never fit: throttle (default) the vCPUs,\n"
	    "raise the downtime, or abort",
	    .words = control_stall_words),
	OPT("max-downtime-ms", 0, UINT, &req.max_downtime_ms, "MS",
	    "raise: at most to this, default 2000", .min = 1, .max = 3600000),
	OPT("bandwidth", 'b', SIZE, &bandwidth, "SIZE",
	    "bytes a second; default: no limit", .min = 1, .max = 1ULL << 50),
	OPT("zstd", 'z', UINT, &req.zstd_level, "LEVEL", "compress; default 0: do not",
	    .max = 19),
	OPT("verify", 0, WORD, &req.verify, "HOW",
	    "digest (default): compare RAM digests before the\n"
	    "hand-over, read all RAM again after it; full: read\n"
	    "it before; none",
	    .words = control_verify_words),
	OPT("connect-timeout-ms", 0, UINT, &req.connect_timeout_ms, "MS", "default 10000",
	    .min = 1, .max = 3600000),
	CMD_TLS_OPTS(tls, "x509: name in the other's certificate, default: HOST;\n"
			  "psk: user name, default qemu"),
	OPT("interval", 0, SECS, &interval_s, "SECONDS",
	    "between progress reports, default 0.2"),
	OPT_END,
};

/* The VM's process may be in another directory. */
static int absolute(const char *path, char *out, size_t size)
{
	char cwd[PATH_MAX];

	if (*path == '/')
		return snprintf(out, size, "%s", path) < (int)size ? 0 : -ENAMETOOLONG;
	if (!getcwd(cwd, sizeof(cwd)))
		return -errno;
	return snprintf(out, size, "%s/%s", cwd, path) < (int)size ? 0 : -ENAMETOOLONG;
}

static int fill_request(void)
{
	char path[PATH_MAX];
	int n = 0;

	if (!control || !to) {
		cmd_error("send needs --control SOCKET, the VM's, and --to URI, its "
			  "recv's");
		return -EINVAL;
	}
	if (tls.mode != CHAN_TLS_OFF && !tls.dir) {
		cmd_error("--tls needs --tls-dir");
		return -EINVAL;
	}
	if (!strncmp(to, "unix:", 5) && !absolute(to + 5, path, sizeof(path)))
		n = snprintf(req.uri, sizeof(req.uri), "unix:%s", path);
	else
		n = snprintf(req.uri, sizeof(req.uri), "%s", to);
	if (n >= (int)sizeof(req.uri)) {
		cmd_error("--to: too long");
		return -EINVAL;
	}
	if (tls.dir && absolute(tls.dir, req.tls_dir, sizeof(req.tls_dir))) {
		cmd_error("--tls-dir: too long");
		return -EINVAL;
	}
	if (tls.hostname && snprintf(req.tls_host, sizeof(req.tls_host), "%s",
				     tls.hostname) >= (int)sizeof(req.tls_host)) {
		cmd_error("--tls-name: too long");
		return -EINVAL;
	}
	req.tls = tls.mode;
	req.bandwidth = bandwidth;
	req.interval_ms = (unsigned int)(interval_s * 1000);
	return 0;
}

/* ---- events ------------------------------------------------------------------------ */

static double number(const json_t *o, const char *key)
{
	return json_number_value(json_object_get(o, key));
}

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static void show_progress(const json_t *o)
{
	const double ram = number(o, "ram_bytes"), left = number(o, "remaining_bytes");
	char rate[CMD_SIZE_MAX], dirty[CMD_SIZE_MAX], rest[CMD_SIZE_MAX], eta[32] = "";
	char line[200];

	if (json_is_integer(json_object_get(o, "eta_ms")))
		snprintf(eta, sizeof(eta), ", %.1f s to go", number(o, "eta_ms") / 1000);
	snprintf(line, sizeof(line), "%s %d: %s left, %s/s, dirty %s/s%s%s",
		 text(o, "phase"), (int)number(o, "round"), cmd_size(left, rest),
		 cmd_size(number(o, "send_bytes_per_s"), rate),
		 cmd_size(number(o, "dirty_bytes_per_s"), dirty), eta,
		 number(o, "throttle_percent") > 0 ? ", throttled" : "");
	cmd_bar(ram > 0 ? 1 - left / ram : -1, line);
}

static int show_end(const json_t *o)
{
	static const struct {
		const char *word;
		int rc;
	} result[] = {
		{ "done", EXIT_DONE },		 { "failed", EXIT_FAILED },
		{ "cancelled", EXIT_CANCELLED }, { "uncertain", EXIT_UNCERTAIN },
		{ "lost", EXIT_LOST },
	};
	const char *word = text(o, "result"), *why = text(o, "error");
	char sent[CMD_SIZE_MAX];
	int rc = EXIT_FAILED;

	for (unsigned int i = 0; i < sizeof(result) / sizeof(result[0]); i++)
		if (!strcmp(word, result[i].word))
			rc = result[i].rc;
	if (cmd_as_json())
		return rc;
	cmd_bar_end();
	switch (rc) {
	case EXIT_DONE:
		printf("done: %.2f s, downtime %.1f ms, %s in %d rounds, digest %s%s\n",
		       number(o, "elapsed_ms") / 1000, number(o, "downtime_us") / 1000,
		       cmd_size(number(o, "sent_bytes"), sent), (int)number(o, "round"),
		       text(o, "digest"),
		       json_is_integer(json_object_get(o, "audit_bad_pages"))
			       ? ", RAM read again: the same"
			       : "");
		if (*text(o, "note"))
			cmd_note("%s", text(o, "note"));
		break;
	case EXIT_CANCELLED: cmd_note("cancelled; the VM runs on where it was"); break;
	case EXIT_UNCERTAIN:
		cmd_error(
			"%s%sthe line went silent at the hand-over, and nobody can know "
			"from here whether the destination runs the VM. It is paused at "
			"the source: look at the destination, then vm-migrate resume "
			"or quit here",
			why, *why ? ": " : "");
		break;
	case EXIT_LOST:
		cmd_error(strcmp(text(o, "phase"), "done")
				  ? "%d pages of the VM's memory were not what had been "
				    "sent: writes were lost. It was not handed over, and "
				    "runs on where it was"
				  : "the VM was handed over, and %d pages of its memory "
				    "were not what had been sent: writes were lost. Do "
				    "not trust it",
			  (int)number(o, "audit_bad_pages"));
		break;
	default:
		cmd_error("%s; the VM runs on where it was",
			  *why ? why : "the migration failed");
	}
	return rc;
}

/* @begun: the migration was; what is refused after that is our cancel. Return: an exit code,
 * -1: go on */
static int take_line(const char *line, bool *begun)
{
	json_t *o = json_loads(line, 0, NULL), *ok = json_object_get(o, "ok");
	const char *event = text(o, "event");
	int rc = -1;

	if (!o) {
		cmd_error("the VM's answer is no JSON");
		return EXIT_FAILED;
	}
	if (json_is_false(ok) && *begun) {
		cmd_note("%s", text(o, "error"));
	} else if (json_is_false(ok)) {
		cmd_error("%s", text(o, "error"));
		rc = EXIT_FAILED;
	} else if (json_is_true(ok)) {
		*begun = true;
	} else if (!strcmp(event, "end")) {
		rc = show_end(o);
	} else if (!strcmp(event, "progress") && !cmd_as_json()) {
		show_progress(o);
	}
	if (cmd_as_json() && *event)
		cmd_json(o);
	else
		json_decref(o);
	return rc;
}

/* ---- connection -------------------------------------------------------------------- */

static int open_control(void)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	int fd;

	if (strlen(control) >= sizeof(sun.sun_path)) {
		cmd_error("--control: too long for a socket's path");
		return -1;
	}
	strcpy(sun.sun_path, control);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && !connect(fd, (struct sockaddr *)&sun, sizeof(sun)))
		return fd;
	cmd_error(
		"no VM answers on %s (%s); is its \"vm-migrate run\" running, with this "
		"--control?",
		control, strerror(errno));
	if (fd >= 0)
		close(fd);
	return -1;
}

static int send_text(int fd, const char *s)
{
	return send(fd, s, strlen(s), MSG_NOSIGNAL) == (ssize_t)strlen(s) ? 0 : -EPIPE;
}

static int send_request(int fd)
{
	json_t *o = control_request_json(&req);
	char *s = o ? json_dumps(o, JSON_COMPACT) : NULL;
	int err = s ? send_text(fd, s) : -ENOMEM;

	if (!err)
		err = send_text(fd, "\n");
	free(s);
	json_decref(o);
	return err;
}

static int read_events(int fd, int sigfd)
{
	static char buf[CONTROL_MAX_LINE * 4];
	size_t len = 0;
	bool cancelled = false, begun = false;

	for (;;) {
		struct pollfd p[2] = { { .fd = fd, .events = POLLIN },
				       { .fd = sigfd, .events = POLLIN } };
		char *end;
		ssize_t n;
		int rc;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return EXIT_FAILED;
		if (p[1].revents & POLLIN) {
			struct signalfd_siginfo si;

			if (read(sigfd, &si, sizeof(si)) < 0)
				return EXIT_FAILED;
			if (cancelled) {
				cmd_note("leaving; vm-migrate status shows how it ends");
				return EXIT_FAILED;
			}
			cancelled = true;
			cmd_note("cancelling; once more to leave it alone");
			send_text(fd, "{\"cmd\":\"cancel\"}\n");
		}
		if (!p[0].revents)
			continue;
		n = read(fd, buf + len, sizeof(buf) - len);
		if (n <= 0) {
			cmd_error("the VM's process has ended; was it killed? The "
				  "destination does not run the VM unless its status "
				  "says so");
			return EXIT_FAILED;
		}
		len += (size_t)n;
		while ((end = memchr(buf, '\n', len))) {
			*end = '\0';
			rc = take_line(buf, &begun);
			if (rc >= 0)
				return rc;
			len -= (size_t)(end + 1 - buf);
			memmove(buf, end + 1, len);
		}
		if (len == sizeof(buf)) {
			cmd_error("the VM's answer is too long");
			return EXIT_FAILED;
		}
	}
}

/* Each stream is a thread on either side. */
static unsigned int usual_streams(void)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);

	return cpus < 1 ? 1 : cpus > STREAMS_USUAL ? STREAMS_USUAL : (unsigned int)cpus;
}

static int run_send(int argc, char **argv)
{
	sigset_t set;
	int fd, sigfd, rc;

	if (fill_request())
		return EXIT_USAGE;
	req.streams = streams ? streams : usual_streams();
	fd = open_control();
	if (fd < 0)
		return EXIT_ABSENT;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigfd = signalfd(-1, &set, SFD_CLOEXEC);
	if (sigfd < 0 || send_request(fd)) {
		cmd_error("cannot ask the VM: %s", strerror(errno));
		rc = EXIT_FAILED;
	} else {
		rc = read_events(fd, sigfd);
	}
	if (sigfd >= 0)
		close(sigfd);
	close(fd);
	return rc;
}

const struct cmd cmd_send = {
	.name = "send",
	.run = run_send,
	.opts = opts,
	.usage = "send --control SOCKET --to URI [options]",
	.summary =
		"migrate a running VM to where recv waits for it; an interrupt cancels",
};
