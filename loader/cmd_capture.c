// SPDX-License-Identifier: BSD-2-Clause
/*
 * ghostnic capture: an instance's frames into a pcapng file.
 *
 * The daemon copies them for us (ghostnic_capture(3)); this process is the one that waits
 * for the disk. SIGINT, SIGTERM, --count and the instance's end all leave a whole file,
 * unless its reader takes nothing: one of a pipe is waited for, but by a signal only
 * STALL_MS longer. One thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "call.h"
#include "cmd.h"
#include "out.h"
#include "pcapng.h"

#define BATCH	   64
#define MAX_QUEUES 64
#define STALL_MS   1000

static volatile sig_atomic_t stopped;

static void on_signal(int sig)
{
	stopped = sig;
}

/* Where the file goes. The two signals are blocked but in ppoll(), so that none comes between
 * a look and a sleep. */
struct output {
	int fd;
	bool waits; /* no regular file: a write may have to wait for a reader */
	bool stalled;
	sigset_t unblocked;
};

/* Wait until a reader has made room. Return: false: it does not, or an error */
static bool wait_for_room(struct output *o)
{
	const struct timespec stall = { STALL_MS / 1000, STALL_MS % 1000 * 1000000L };
	struct pollfd p = { o->fd, POLLOUT, 0 };
	bool last;
	int n;

	do {
		last = stopped;
		n = ppoll(&p, 1, last ? &stall : NULL, &o->unblocked);
	} while (n < 0 && errno == EINTR && !last);
	o->stalled = n <= 0 && last;
	return n > 0;
}

static ssize_t output_write(void *cookie, const char *buf, size_t len)
{
	struct output *o = cookie;
	size_t done = 0;

	while (!o->stalled && done < len) {
		size_t part = len - done;
		ssize_t n;

		/* So much fits when there is room at all: pipe(7). */
		if (o->waits && part > PIPE_BUF)
			part = PIPE_BUF;
		if (o->waits && !wait_for_room(o))
			break;
		n = write(o->fd, buf + done, part);
		if (n < 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static int output_close(void *cookie)
{
	const struct output *o = cookie;

	return close(o->fd);
}

struct capture {
	struct ghostnic_port *port;
	FILE *f;
	struct output out;
	uint64_t packets;
	uint64_t max; /* 0: no end */
};

/* Write what queue @q has. Return: packets, -errno */
static int drain(struct capture *c, unsigned int q)
{
	static struct iovec iov[BATCH * GHOSTNIC_PORT_MAX_IOV];
	struct ghostnic_packet pkt[BATCH];
	unsigned int max = BATCH;
	int n, err = 0;

	if (c->max && c->max - c->packets < max)
		max = (unsigned int)(c->max - c->packets);
	n = ghostnic_port_receive(c->port, q, pkt, max, iov,
				  sizeof(iov) / sizeof(iov[0]));
	if (n < 0)
		return n;
	for (int i = 0; !err && i < n; i++) {
		const struct pcapng_packet p = {
			.time_ns = pkt[i].time_ns,
			.iov = pkt[i].iov,
			.niov = pkt[i].niov,
			.len = pkt[i].len,
			.wire_len = pkt[i].wire_len,
			.out = pkt[i].flags & GHOSTNIC_PACKET_OUT,
		};

		err = pcapng_packet(c->f, &p);
	}
	ghostnic_port_release(c->port, q, pkt, (unsigned int)n);
	c->packets += (unsigned int)n;
	return err ? err : n;
}

/* Sleep until a queue has something, or a signal. Return: 0, -EPIPE: the port is lost */
static int sleep_on(struct capture *c, unsigned int queues)
{
	struct pollfd p[MAX_QUEUES];

	for (unsigned int q = 0; q < queues; q++) {
		int r = ghostnic_port_arm(c->port, q);

		if (r)
			return r < 0 ? r : 0;
		p[q] = (struct pollfd){ ghostnic_port_fd(c->port, q), POLLIN, 0 };
	}
	fflush(c->f); /* someone may be reading along */
	if (ppoll(p, queues, NULL, &c->out.unblocked) < 0 && errno != EINTR)
		return -errno;
	return 0;
}

static void take_signals(sigset_t *unblocked)
{
	const struct sigaction sa = { .sa_handler = on_signal };
	sigset_t stop;

	sigemptyset(&stop);
	sigaddset(&stop, SIGINT);
	sigaddset(&stop, SIGTERM);
	sigprocmask(SIG_BLOCK, &stop, unblocked);
	sigdelset(unblocked, SIGINT);
	sigdelset(unblocked, SIGTERM);
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static int run(struct capture *c)
{
	unsigned int queues = ghostnic_port_get_info(c->port)->queues;
	int err = 0;

	if (queues > MAX_QUEUES)
		return -EPROTO;
	while (!err && !stopped && (!c->max || c->packets < c->max)) {
		sigset_t pending;
		bool got = false;

		for (unsigned int q = 0; !err && q < queues; q++) {
			int n = drain(c, q);

			got |= n > 0;
			err = n < 0 ? n : 0;
		}
		/* Under load ppoll() is never reached. */
		sigpending(&pending);
		if (sigismember(&pending, SIGINT) || sigismember(&pending, SIGTERM))
			break;
		if (!err && !got)
			err = sleep_on(c, queues);
	}
	return err;
}

static int fail_open(const struct opts *o, int err)
{
	switch (err) {
	case -ENOENT:
	case -ECONNREFUSED:
		out_error("no daemon answers on %s; start ghostnicd, or name its control "
			  "socket with --ctl or " GHOSTNIC_SOCKET_ENV,
			  ghostnic_socket(o->ctl));
		return EXIT_ABSENT;
	case -ENODEV:
		out_error("no instance %s%s%s; ghostnic instance list shows them",
			  o->instance, o->iface ? " on " : "", o->iface ? o->iface : "");
		return EXIT_FAILED;
	case -EBUSY:
		out_error("%s is being captured already; end the other capture first",
			  o->instance);
		return EXIT_FAILED;
	case -EACCES:
		out_error("may not open the daemon's socket; run as its user (root)");
		return EXIT_FAILED;
	case -EPROTO:
		out_error("the daemon is of another version; restart it");
		return EXIT_FAILED;
	default:
		out_error("cannot capture %s: %s", o->instance, strerror(-err));
		return EXIT_FAILED;
	}
}

/* New files are the user's alone: they hold traffic. Return: false: errno says why */
static bool open_output(struct capture *c, const char *path)
{
	static const cookie_io_functions_t io = { .write = output_write,
						  .close = output_close };
	struct stat st;

	c->out.fd = !strcmp(path, "-")
			    ? STDOUT_FILENO
			    : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (c->out.fd < 0)
		return false;
	c->out.waits = fstat(c->out.fd, &st) || !S_ISREG(st.st_mode);
	c->f = fopencookie(&c->out, "w", io);
	if (!c->f)
		return false;
	take_signals(&c->out.unblocked);
	return true;
}

static int report(const struct opts *o, const struct capture *c, uint64_t lost)
{
	if (o->json && strcmp(o->file, "-"))
		out_json(json_pack("{s:s, s:I, s:I}", "instance", o->instance, "packets",
				   (json_int_t)c->packets, "lost", (json_int_t)lost));
	else
		fprintf(stderr, "%llu packets captured, %llu lost\n",
			(unsigned long long)c->packets, (unsigned long long)lost);
	return EXIT_DONE;
}

int cmd_capture(const struct opts *o, int argc, char **argv)
{
	struct capture c = { .max = o->count };
	struct timespec now;
	uint64_t lost;
	int err, end;

	/* What is no packet goes to standard error then. */
	if (o->file && !strcmp(o->file, "-"))
		out_init(false);
	if (!o->instance || !o->file) {
		out_error("capture needs --instance NAME and -w FILE; "
			  "see ghostnic capture --help");
		return EXIT_USAGE;
	}
	if (!strcmp(o->file, "-") && isatty(STDOUT_FILENO)) {
		out_error(
			"standard output is a terminal; pipe it, or name a file with -w");
		return EXIT_USAGE;
	}
	err = ghostnic_capture(o->ctl, o->iface, o->instance, o->snaplen,
			       o->segments ? GHOSTNIC_CAPTURE_SEGMENTS : 0, -1, &c.port);
	if (err)
		return fail_open(o, err);
	if (!open_output(&c, o->file)) {
		out_error("%s: %s", o->file, strerror(errno));
		ghostnic_port_close(c.port);
		return EXIT_FAILED;
	}
	err = pcapng_begin(c.f, o->instance,
			   o->segments ? "packets of a ghostnic instance"
				       : "super-packets of a ghostnic instance",
			   o->snaplen);
	if (!err)
		err = run(&c);
	lost = ghostnic_port_lost(c.port);
	ghostnic_port_close(c.port);
	clock_gettime(CLOCK_REALTIME, &now);
	end = pcapng_end(c.f, (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec,
			 c.packets, lost);
	if (fclose(c.f))
		end = -EIO;
	if (c.out.stalled) {
		out_error("%s: the file has no end: its reader takes nothing", o->file);
		return EXIT_FAILED;
	}
	if (end || err == -EIO) {
		out_error("%s: cannot write; is the disk full, or the reader gone?",
			  o->file);
		return EXIT_FAILED;
	}
	if (err == -EPIPE) {
		out_error(
			"the capture ended after %llu packets: the instance was removed, "
			"or the daemon ended",
			(unsigned long long)c.packets);
		return EXIT_FAILED;
	}
	if (err) {
		out_error("the capture broke off: %s", strerror(-err));
		return EXIT_FAILED;
	}
	return report(o, &c, lost);
}
