// SPDX-License-Identifier: BSD-2-Clause
/*
 * ghostnic dma-log: which pages of a guest the daemon writes, by hand and for scripts.
 *
 * A swap hands over one of the daemon's two bitmaps; whoever takes it clears it
 * before the next swap. That is done last, when it has been written to its file: what
 * fails before leaves its pages marked for the next time.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "call.h"
#include "cmd.h"
#include "out.h"
#include "term.h"

#define PAGE_BYTES 4096 /* a bit of the bitmaps */
#define COPY_BYTES 65536

static long long number(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

/* One request. @fd: NULL, or set to the answer's last descriptor, -1: none. On failure
 * the message has been printed. */
static int ask(const struct opts *o, const char *cmd, const char *owner, json_t **answer,
	       int *fd)
{
	json_t *req =
		json_pack("{s:s, s:s, s:s, s:s*}", "cmd", cmd, "instance", o->instance,
			  "iface", o->iface ? o->iface : "", "owner", owner);
	int got[GHOSTNIC_MAX_FDS], err;
	unsigned int n;
	char msg[512];

	err = ctl_call_fds(o->ctl, req, answer, got, GHOSTNIC_MAX_FDS, &n, msg,
			   sizeof(msg));
	json_decref(req);
	if (err) {
		out_error("%s", msg);
		return ctl_no_daemon(err) ? EXIT_ABSENT : EXIT_FAILED;
	}
	while (n > (fd ? 1 : 0))
		close(got[--n]);
	if (fd)
		*fd = n ? got[0] : -1;
	return EXIT_DONE;
}

/* ---- bitmaps -------------------------------------------------------------------- */

/* The data of [@from, @to). Return: 0, -errno */
static int copy_range(int in, int out, off_t from, off_t to)
{
	static uint8_t buf[COPY_BYTES];

	while (from < to) {
		size_t want = to - from < COPY_BYTES ? (size_t)(to - from) : COPY_BYTES;
		ssize_t n = pread(in, buf, want, from), done = 0;

		if (n <= 0)
			return n ? -errno : -EIO;
		while (done < n) {
			ssize_t w =
				pwrite(out, buf + done, (size_t)(n - done), from + done);

			if (w < 0)
				return -errno;
			done += w;
		}
		from += n;
	}
	return 0;
}

/* Holes stay holes: most of a bitmap is. Return: 0, -errno */
static int copy_bitmap(int in, int out)
{
	off_t end = lseek(in, 0, SEEK_END), from = 0, to;
	int err = end < 0 || ftruncate(out, end) ? -errno : 0;

	while (!err && (from = lseek(in, from, SEEK_DATA)) >= 0) {
		to = lseek(in, from, SEEK_HOLE);
		err = to <= from ? -EIO : copy_range(in, out, from, to);
		from = to;
	}
	return err;
}

static int clear_bitmap(int fd)
{
	off_t end = lseek(fd, 0, SEEK_END);

	return end < 0 || fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				    end)
		       ? -errno
		       : 0;
}

static int open_output(const struct opts *o, int *out)
{
	*out = -1;
	if (!o->file)
		return EXIT_DONE;
	*out = open(o->file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (*out >= 0)
		return EXIT_DONE;
	out_error("%s: %s", o->file, strerror(errno));
	return EXIT_FAILED;
}

/* Write it, clear it. @fd: the bitmap; taken over */
static int take_bitmap(const struct opts *o, int fd, int out)
{
	int err = 0;

	if (fd < 0) {
		out_error("the daemon gave no bitmap; are its version and this one's the "
			  "same?");
		return EXIT_FAILED;
	}
	if (out >= 0) {
		err = copy_bitmap(fd, out);
		if (err)
			out_error("%s: %s", o->file, strerror(-err));
	}
	if (!err) {
		err = clear_bitmap(fd);
		if (err)
			out_error("cannot clear the bitmap: %s", strerror(-err));
	}
	close(fd);
	return err ? EXIT_FAILED : EXIT_DONE;
}

/* ---- output --------------------------------------------------------------------- */

static void note_beyond(const json_t *a)
{
	if (number(a, "beyond"))
		out_note("%lld pages were written beyond the bitmaps, for the guest's "
			 "memory has grown: stop and start the log, and copy all memory "
			 "again",
			 number(a, "beyond"));
}

static const char *bytes_of(double pages, char buf[FMT_MAX])
{
	return fmt_si(pages * PAGE_BYTES, buf);
}

/* Takes the reference of @a. */
static void finish_json(json_t *a)
{
	json_object_set_new(a, "page_bytes", json_integer(PAGE_BYTES));
	out_json(a);
}

static int show(const struct opts *o)
{
	char b[FMT_MAX];
	json_t *a;
	int rc = ask(o, "dma-log-show", NULL, &a, NULL);
	const char *owner;

	if (rc)
		return rc;
	note_beyond(a);
	if (o->json) {
		finish_json(a);
		return EXIT_DONE;
	}
	owner = json_string_value(json_object_get(a, "owner"));
	printf("%s: DMA log %s%s%s\n", o->instance,
	       json_is_true(json_object_get(a, "on")) ? "on" : "off",
	       owner && *owner ? ", for " : "", owner ? owner : "");
	printf("front end's log: %s\n",
	       json_is_true(json_object_get(a, "front_end")) ? "on" : "off");
	if (json_is_true(json_object_get(a, "on")))
		printf("dirty since the last swap: %lld pages, %sB\n", number(a, "dirty"),
		       bytes_of((double)number(a, "dirty"), b));
	printf("pages: %lld of the guest, %lld in each bitmap, %lld written beyond\n",
	       number(a, "guest_pages"), number(a, "pages"), number(a, "beyond"));
	printf("marked: %lld pages, each as often as it was written\n",
	       number(a, "marked"));
	printf("packets while on: %lld flagged by XDP, %lld on their way before\n",
	       number(a, "flagged"), number(a, "unflagged"));
	json_decref(a);
	return EXIT_DONE;
}

static int start(const struct opts *o)
{
	json_t *a;
	int rc = ask(o, "dma-log-start", o->owner, &a, NULL);

	if (rc)
		return rc;
	if (o->json) {
		finish_json(a);
		return EXIT_DONE;
	}
	printf("%s: DMA log on, %lld pages of the guest, %lld in each bitmap\n",
	       o->instance, number(a, "guest_pages"), number(a, "pages"));
	json_decref(a);
	return EXIT_DONE;
}

/* The owner that the daemon names, malloc()ed; NULL: none */
static int ask_owner(const struct opts *o, char **owner)
{
	const char *s;
	json_t *a;
	int rc = ask(o, "dma-log-show", NULL, &a, NULL);

	if (rc)
		return rc;
	s = json_string_value(json_object_get(a, "owner"));
	*owner = s && *s ? strdup(s) : NULL;
	json_decref(a);
	return EXIT_DONE;
}

static void print_harvest(const struct opts *o, json_t *a, double seconds)
{
	double dirty = (double)number(a, "dirty");
	char b[FMT_MAX], r[FMT_MAX];

	note_beyond(a);
	if (o->json) {
		if (seconds > 0) {
			json_object_set_new(a, "seconds", json_real(seconds));
			json_object_set_new(a, "dirty_per_s", json_real(dirty / seconds));
		}
		finish_json(a);
	} else {
		printf("%s: %lld dirty pages, %sB", o->instance, number(a, "dirty"),
		       bytes_of(dirty, b));
		if (seconds > 0)
			printf(", %.0f pages/s, %sB/s", dirty / seconds,
			       bytes_of(dirty / seconds, r));
		putchar('\n');
		json_decref(a);
	}
	fflush(stdout);
}

/* @cmd: a swap, or the stop that is the last one */
static int harvest(const struct opts *o, const char *cmd, const char *owner,
		   double seconds)
{
	int out, fd, rc = open_output(o, &out);
	json_t *a;

	if (rc)
		return rc;
	rc = ask(o, cmd, owner, &a, &fd);
	if (!rc) {
		rc = take_bitmap(o, fd, out);
		if (rc)
			json_decref(a);
		else
			print_harvest(o, a, seconds);
	}
	if (out >= 0 && close(out) && !rc) {
		out_error("%s: %s", o->file, strerror(errno));
		rc = EXIT_FAILED;
	}
	return rc;
}

static int stop(const struct opts *o)
{
	char *owner = NULL;
	int rc = o->force ? ask_owner(o, &owner) : EXIT_DONE;

	if (!rc)
		rc = harvest(o, "dma-log-stop", owner ? owner : o->owner, 0);
	free(owner);
	return rc;
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* The first swap starts the clock, and its pages belong to no interval. */
static int swap(const struct opts *o)
{
	double then, now;
	unsigned int n = 0;
	json_t *a;
	int rc, fd;

	if (!o->watch)
		return harvest(o, "dma-log-swap", o->owner, 0);
	rc = ask(o, "dma-log-swap", o->owner, &a, &fd);
	if (rc)
		return rc;
	then = now_s();
	json_decref(a);
	rc = take_bitmap(o, fd, -1);
	term_open(false);
	while (!rc && term_wait(o->interval_s) == TERM_TICK) {
		now = now_s();
		rc = harvest(o, "dma-log-swap", o->owner, now - then);
		then = now;
		if ((o->count && ++n == o->count) || ferror(stdout))
			break;
	}
	term_close();
	return rc;
}

int cmd_dma_log(const struct opts *o, int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*run)(const struct opts *o);
		bool harvests, owned; /* -w; --owner */
	} verb[] = {
		{ "start", start, false, true },
		{ "swap", swap, true, true },
		{ "stop", stop, true, true },
		{ "show", show, false, false },
	};

	if (!o->instance) {
		out_error("dma-log needs --instance NAME; `ghostnic instance list` has "
			  "them");
		return EXIT_USAGE;
	}
	for (size_t i = 0; i < sizeof(verb) / sizeof(verb[0]); i++) {
		if (strcmp(argv[0], verb[i].name))
			continue;
		if ((o->file && (!verb[i].harvests || o->watch)) ||
		    (o->owner && !verb[i].owned) || (o->force && verb[i].run != stop) ||
		    ((o->watch || o->count) && verb[i].run != swap) ||
		    (o->count && !o->watch)) {
			out_error("dma-log %s does not take one of these options; see "
				  "ghostnic dma-log --help",
				  argv[0]);
			return EXIT_USAGE;
		}
		return verb[i].run(o);
	}
	out_error("dma-log takes start, swap, stop or show, not \"%s\"", argv[0]);
	return EXIT_USAGE;
}
