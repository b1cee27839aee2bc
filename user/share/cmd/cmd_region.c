// SPDX-License-Identifier: BSD-2-Clause
/* cmd_region: export, import, get, put, watch: a region in use. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../agent/window.h"
#include "../bus.h"
#include "cmd.h"

#define PIECE (1u << 20)

static const char *event_name(enum ghostmem_event_type t)
{
	switch (t) {
	case GHOSTMEM_OWNER_GONE: return "owner-gone";
	case GHOSTMEM_MOVED: return "moved";
	case GHOSTMEM_REVOKED: return "revoked";
	case GHOSTMEM_PAGES_LOST: return "pages-lost";
	}
	return "?";
}

static void say_region(const struct cmd_opts *o, const char *what, const char *name,
		       struct ghostmem_region *r)
{
	uint64_t addr = (uint64_t)(uintptr_t)ghostmem_addr(r);

	if (o->json)
		cmd_json(json_pack("{s:s,s:I,s:I,s:I,s:I}", what, name, "bus",
				   (json_int_t)ghostmem_bus(r), "size",
				   (json_int_t)ghostmem_size(r), "page",
				   (json_int_t)ghostmem_page_size(r), "address",
				   (json_int_t)addr));
	else
		printf("%s: bus 0x%" PRIx64 ", %" PRIu64 " bytes\n", name,
		       ghostmem_bus(r), ghostmem_size(r));
	fflush(stdout);
}

static sigset_t stops, before; /* signals that end us; what was blocked before that */

static int stop_signals(void)
{
	sigemptyset(&stops);
	sigaddset(&stops, SIGINT);
	sigaddset(&stops, SIGTERM);
	sigaddset(&stops, SIGHUP);
	sigprocmask(SIG_BLOCK, &stops, &before);
	return signalfd(-1, &stops, SFD_CLOEXEC);
}

/* Print events until a signal comes, or the region is no more. */
static int hold(const struct cmd_opts *o, struct ghostmem *g, int signals)
{
	struct pollfd p[2] = { { .fd = signals, .events = POLLIN },
			       { .fd = ghostmem_event_fd(g), .events = POLLIN } };

	for (;;) {
		struct ghostmem_event e;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return cmd_error(o, -errno, "poll");
		if (p[0].revents)
			return 0;
		while (ghostmem_next_event(g, &e) > 0) {
			if (o->json)
				cmd_json(json_pack("{s:s,s:I}", "event",
						   event_name(e.type), "bus",
						   (json_int_t)e.bus));
			else
				printf("%s 0x%" PRIx64 "\n", event_name(e.type), e.bus);
			fflush(stdout);
			if (e.type == GHOSTMEM_OWNER_GONE)
				return EXIT_GONE;
			if (e.type == GHOSTMEM_REVOKED)
				return EXIT_UNKNOWN;
		}
	}
}

/* With signals as we found them. Return: 0, -errno */
static int spawn(const char *command, pid_t *pid)
{
	const char *argv[] = { "sh", "-c", command, NULL };
	posix_spawnattr_t attr;
	sigset_t ignored;
	int err;

	sigemptyset(&ignored);
	sigaddset(&ignored, SIGPIPE); /* main() */
	err = posix_spawnattr_init(&attr);
	if (err)
		return -err;
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attr, &before);
	posix_spawnattr_setsigdefault(&attr, &ignored);
	err = posix_spawn(pid, "/bin/sh", NULL, &attr, (char **)argv, environ);
	posix_spawnattr_destroy(&attr);
	return -err;
}

/* Until it ends. Signals are for it; those that a terminal sends it has got already. */
static int run_command(const struct cmd_opts *o, int signals)
{
	struct signalfd_siginfo s;
	int status, err;
	pid_t pid;

	sigaddset(&stops, SIGQUIT);
	sigaddset(&stops, SIGCHLD);
	sigprocmask(SIG_BLOCK, &stops, NULL);
	err = signalfd(signals, &stops, 0) < 0 ? -errno : spawn(o->run, &pid);
	if (err)
		return cmd_error(o, err, "%s", o->run);
	while (!waitpid(pid, &status, WNOHANG))
		if (read(signals, &s, sizeof(s)) == sizeof(s) && s.ssi_signo != SIGCHLD &&
		    s.ssi_code != SI_KERNEL)
			kill(pid, (int)s.ssi_signo);
	return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_FAILED;
}

static int until(const struct cmd_opts *o, struct ghostmem *g, int signals)
{
	return o->run ? run_command(o, signals) : hold(o, g, signals);
}

/* Until @n bytes are there, or no more come. Return: how many; -errno */
static ssize_t read_all(int fd, uint8_t *buf, size_t n)
{
	size_t got = 0;

	while (got < n) {
		ssize_t one = read(fd, buf + got, n - got);

		if (one < 0 && errno != EINTR)
			return -errno;
		if (!one)
			break;
		got += one > 0 ? (size_t)one : 0;
	}
	return (ssize_t)got;
}

/* All of @path to the beginning of @to. Return: 0; -EFBIG: it is longer; -errno */
static int read_file(const char *path, uint8_t *to, uint64_t size)
{
	int in = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t more;
	ssize_t n;

	if (in < 0)
		return -errno;
	n = read_all(in, to, size);
	if ((uint64_t)n == size && read_all(in, &more, 1))
		n = -EFBIG;
	close(in);
	return n < 0 ? (int)n : 0;
}

/* A memfd of @size bytes: those of @path, then zeros. Huge pages cannot be written to by
 * calls, but mapped. Return: it; -EFBIG: there are more; -ENOBUFS: too few huge pages;
 * -errno */
static int load_file(const char *path, uint64_t size, unsigned int shift)
{
	int fd = window_memfd_create("ghostmem", size, shift), err;
	void *p;

	if (fd < 0)
		return fd;
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	err = p != MAP_FAILED	       ? read_file(path, p, size)
	      : shift == GM_HUGE_SHIFT ? -ENOBUFS
				       : -errno;
	if (p != MAP_FAILED)
		munmap(p, size);
	if (err)
		close(fd);
	return err ? err : fd;
}

/* Its agent would go on to serve it. Not if it has moved away: it is another's then. */
static int end_export(const struct cmd_opts *o, const char *name, int rc)
{
	int err = cmd_revoke_here(o, name);

	switch (err) {
	case 0:
	case -ENOENT:
	case -EREMOTE:
	case -ECONNREFUSED: return rc;
	default: err = cmd_error(o, err, "cannot end %s", name); return rc ? rc : err;
	}
}

static int run_export(const struct cmd_opts *o, int argc, char **argv)
{
	struct ghostmem_export e = {
		.name = argv[0], .key = o->key.bytes, .key_len = o->key.len, .memfd = -1
	};
	uint64_t page = o->page ? o->page : GM_PAGE_SIZE;
	int signals = stop_signals(), err, rc;
	struct ghostmem_region *r;
	struct ghostmem *g;

	e.page_size = page;
	if (!o->key.len) {
		fputs("ghostmem: a region has a key: --key-file FILE, or GHOSTMEM_KEY\n",
		      stderr);
		return EXIT_USAGE;
	}
	if (cmd_number(argv[1], &e.size) || !e.size || e.size % page ||
	    e.size > GM_REGION_MAX) {
		fprintf(stderr,
			"ghostmem: size %s: whole pages of %" PRIu64
			" bytes, to 1024G, such as 64M\n",
			argv[1], page);
		return EXIT_USAGE;
	}
	if (!gm_name_ok(argv[0])) {
		fprintf(stderr,
			"ghostmem: name %s: 1 to 63 of A-Z a-z 0-9 . _ -, not led by . "
			"or -\n",
			argv[0]);
		return EXIT_USAGE;
	}
	if (o->read_key.len) {
		e.read_key = o->read_key.bytes;
		e.read_key_len = o->read_key.len;
	}
	if (o->file) {
		e.memfd = load_file(o->file, e.size, gm_page_shift(page));
		if (e.memfd == -ENOBUFS)
			return cmd_error(o, e.memfd, "cannot export %s", argv[0]);
		if (e.memfd < 0)
			return cmd_file_error(o, e.memfd, o->file);
	}
	err = ghostmem_open(o->agent, &g);
	if (err)
		return cmd_error(o, err == -ENOENT ? -ECONNREFUSED : err, "agent");
	err = ghostmem_export(g, &e, &r);
	if (err) {
		rc = cmd_error(o, err, "cannot export %s", argv[0]);
	} else {
		say_region(o, "export", argv[0], r);
		rc = end_export(o, argv[0], until(o, g, signals));
	}
	if (e.memfd >= 0)
		close(e.memfd);
	ghostmem_close(g);
	return rc;
}

static int run_import(const struct cmd_opts *o, int argc, char **argv)
{
	unsigned int flags = o->read_only ? GHOSTMEM_READ_ONLY : 0;
	int signals = stop_signals(), rc;
	struct ghostmem_region *r;
	struct ghostmem *g;

	rc = cmd_open(o, argv[0], flags, &g, &r);
	if (rc)
		return rc;
	say_region(o, "import", argv[0], r);
	rc = until(o, g, signals);
	ghostmem_close(g);
	return rc;
}

/* ---- get, put -------------------------------------------------------------------------
 */

static int bad_offset(const char *s)
{
	fprintf(stderr,
		"ghostmem: %s: a number of bytes is expected, such as 4096 or 1M\n", s);
	return EXIT_USAGE;
}

static void hex(const uint8_t *p, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		*out++ = digits[p[i] >> 4];
		*out++ = digits[p[i] & 15];
	}
	*out = 0;
}

static int put_out(const struct cmd_opts *o, FILE *f, const uint8_t *buf, size_t n,
		   uint64_t off)
{
	char *text;

	if (!o->json)
		return fwrite(buf, 1, n, f) == n ? 0 : -EIO;
	text = malloc(2 * n + 1);
	if (!text)
		return -ENOMEM;
	hex(buf, n, text);
	cmd_json(json_pack("{s:I,s:I,s:s}", "offset", (json_int_t)off, "size",
			   (json_int_t)n, "hex", text));
	free(text);
	return 0;
}

static int run_get(const struct cmd_opts *o, int argc, char **argv)
{
	struct ghostmem_region *r;
	struct ghostmem *g;
	uint8_t *buf;
	uint64_t off, len;
	FILE *own = NULL, *f = stdout;
	int rc, err = 0;

	if (cmd_number(argv[1], &off))
		return bad_offset(argv[1]);
	if (cmd_number(argv[2], &len))
		return bad_offset(argv[2]);
	rc = cmd_open(o, argv[0], GHOSTMEM_NO_MAP | GHOSTMEM_READ_ONLY, &g, &r);
	if (rc)
		return rc;
	buf = malloc(PIECE);
	if (!buf) {
		err = -ENOMEM;
		goto out;
	}
	/* Before any byte is written. */
	if (!gm_in_range(off, len, 0, ghostmem_size(r))) {
		err = -ERANGE;
		goto out;
	}
	if (o->file) {
		f = own = fopen(o->file, "w");
		if (!f) {
			rc = cmd_file_error(o, -errno, o->file);
			goto out;
		}
	}
	while (!err && len) {
		size_t n = len < PIECE ? len : PIECE;

		err = ghostmem_get(r, off, buf, n);
		if (!err)
			err = put_out(o, f, buf, n, off);
		off += n;
		len -= n;
	}
	if (own && fclose(own) && !err)
		err = -errno;
out:
	if (err)
		rc = cmd_error(o, err, "get from %s at %s", argv[0], argv[1]);
	free(buf);
	ghostmem_close(g);
	return rc;
}

/* All of @f. *@done: bytes */
static int put_file(struct ghostmem_region *r, uint64_t off, FILE *f, uint64_t *done)
{
	/* As far as the next border of pieces of this size: whole pages are put whole. */
	size_t piece = ghostmem_page_size(r) > PIECE ? ghostmem_page_size(r) : PIECE;
	uint8_t *buf = malloc(piece);
	size_t n = 1;
	int err = buf ? 0 : -ENOMEM;

	while (!err && n) {
		n = fread(buf, 1, piece - (off + *done) % piece, f);
		if (n)
			err = ghostmem_put(r, off + *done, buf, n);
		*done += n;
	}
	if (!err && ferror(f))
		err = -EIO;
	free(buf);
	return err;
}

static int run_put(const struct cmd_opts *o, int argc, char **argv)
{
	struct ghostmem_region *r;
	struct ghostmem *g;
	const char *name = argc > 2 ? argv[2] : o->file;
	FILE *f = NULL; /* NULL: standard input */
	uint64_t off, done = 0;
	int rc, err;

	if (cmd_number(argv[1], &off))
		return bad_offset(argv[1]);
	if (o->text && argc < 3) {
		fputs("ghostmem put: --text needs the text as last operand\n", stderr);
		return EXIT_USAGE;
	}
	if (!o->text && name && strcmp(name, "-")) {
		f = fopen(name, "r");
		if (!f)
			return cmd_file_error(o, -errno, name);
	}
	rc = cmd_open(o, argv[0], GHOSTMEM_NO_MAP, &g, &r);
	if (rc)
		goto out;
	if (o->text) {
		done = strlen(argv[2]);
		err = ghostmem_put(r, off, argv[2], done);
	} else {
		err = put_file(r, off, f ? f : stdin, &done);
	}
	if (err)
		rc = cmd_error(o, err, "put to %s at %s", argv[0], argv[1]);
	else if (o->json)
		cmd_json(json_pack("{s:s,s:I,s:I}", "put", argv[0], "offset",
				   (json_int_t)off, "size", (json_int_t)done));
	ghostmem_close(g);
out:
	if (f)
		fclose(f);
	return rc;
}

/* ---- watch ----------------------------------------------------------------------------
 */

static void print_word(const struct cmd_opts *o, uint64_t off, uint64_t v)
{
	if (o->json)
		cmd_json(json_pack("{s:I,s:I}", "offset", (json_int_t)off, "value",
				   (json_int_t)v));
	else
		printf("%" PRIu64 " (0x%" PRIx64 ")\n", v, v);
	fflush(stdout);
}

static int run_watch(const struct cmd_opts *o, int argc, char **argv)
{
	int signals = stop_signals(), rc, err;
	struct ghostmem_region *r;
	uint64_t off, now, last = 0;
	unsigned int shown = 0;
	struct ghostmem *g;

	if (argc > 1 && (cmd_number(argv[1], &off) || off % 8))
		return bad_offset(argv[1]);
	rc = cmd_open(o, argv[0], GHOSTMEM_READ_ONLY | (argc > 1 ? GHOSTMEM_NO_MAP : 0),
		      &g, &r);
	if (rc)
		return rc;
	if (argc < 2) {
		rc = hold(o, g, signals);
		ghostmem_close(g);
		return rc;
	}
	for (;;) {
		struct pollfd p = { .fd = signals, .events = POLLIN };

		err = ghostmem_get(r, off, &now, sizeof(now));
		if (err) {
			rc = cmd_error(o, err, "watching %s at %s", argv[0], argv[1]);
			break;
		}
		if (!shown || now != last) {
			print_word(o, off, now);
			last = now;
			if (++shown == o->count)
				break;
		}
		if (poll(&p, 1, (int)o->interval_ms) > 0)
			break;
	}
	ghostmem_close(g);
	return rc;
}

const struct cmd cmd_export = {
	"export",
	"NAME SIZE",
	"share memory of this node until a signal comes, or COMMAND ends",
	2,
	2,
	"kKpfx",
	run_export,
};
const struct cmd cmd_import = {
	"import", "REGION",   "hold a window on a region; say what happens to it", 1, 1,
	"krx",	  run_import,
};
const struct cmd cmd_get = {
	"get",
	"REGION OFFSET SIZE",
	"bytes of a region to standard output, or FILE",
	3,
	3,
	"kf",
	run_get,
};
const struct cmd cmd_put = {
	"put",
	"REGION OFFSET [FILE]",
	"bytes of FILE, or of standard input, into a region",
	2,
	3,
	"kft",
	run_put,
};
const struct cmd cmd_watch = {
	"watch",
	"REGION [OFFSET]",
	"events of a region, or each value of the 64-bit word there",
	1,
	2,
	"kni",
	run_watch,
};
