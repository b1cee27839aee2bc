// SPDX-License-Identifier: BSD-2-Clause
/*
 * dirty_daemon: the two bitmaps of ghostnicd's DMA log, by its control socket.
 *
 * A swap answers when no worker marks in the bitmap it names any more, so that one is
 * taken without atomics and left all zeros for the next swap. An answer that gets lost
 * loses no dirt: bits are cleared here alone, and stay until their bitmap's next turn.
 *
 * If the daemon was restarted, its new log began at some time: it is started again, and
 * the harvest that notices fails, so that all memory is sent again.
 *
 * The log has one owner. Its name tells who that was, so that a log which was left on by
 * a process that is gone can be taken over. Source: ghostnic(8), ghostnicd's "dma-log-*".
 */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/ghostnic.h"
#include "../../user/lib/log.h"
#include "dirty.h"

#define OWNER_MAX 64

struct daemon_log {
	struct dirty_source src;
	char *ctl, *iface, *instance; /* ctl, iface: may be NULL */
	char owner[OWNER_MAX];
	uint64_t *map[2];
	size_t bytes; /* of each */
	uint64_t beyond;
};

static struct daemon_log *of(struct dirty_source *src)
{
	return (struct daemon_log *)src;
}

/* ---- owner ---------------------------------------------------------------------- */

/* Start time of a process in clock ticks since boot (proc(5), stat's 22nd), 0: none */
static unsigned long long started_at(long pid)
{
	char path[64], buf[1024], *p;
	unsigned long long t = 0;
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
	f = fopen(path, "re");
	if (!f)
		return 0;
	n = fread(buf, 1, sizeof(buf) - 1, f);
	fclose(f);
	buf[n] = 0;
	/* The second field is a name with anything in it, in parentheses. */
	p = strrchr(buf, ')');
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	if (p)
		t = strtoull(p + 1, NULL, 10);
	return t;
}

static unsigned long long pid_namespace(void)
{
	struct stat st;

	return stat("/proc/self/ns/pid", &st) ? 0 : st.st_ino;
}

static void name_owner(char *owner)
{
	long pid = getpid();

	snprintf(owner, OWNER_MAX, "vm-migrate %llu %ld %llu", pid_namespace(), pid,
		 started_at(pid));
}

/* Has @owner a name of ours, and does it not run any more? */
static bool is_gone(const char *owner)
{
	unsigned long long ns, start;
	long pid;

	return owner &&
	       sscanf(owner, "vm-migrate %llu %ld %llu", &ns, &pid, &start) == 3 && ns &&
	       ns == pid_namespace() && started_at(pid) != start;
}

/* ---- requests -------------------------------------------------------------------- */

/* @fds: [GHOSTNIC_MAX_FDS]. Return: 0, -EREMOTEIO: an error, which @a has, -errno */
static int ask(const struct daemon_log *l, const char *cmd, const char *owner, json_t **a,
	       int *fds, unsigned int *nfds)
{
	json_t *req = json_pack("{s:s, s:s, s:s*, s:s*}", "cmd", cmd, "instance",
				l->instance, "iface", l->iface, "owner", owner);
	char *line = req ? json_dumps(req, JSON_COMPACT) : NULL, *answer;
	int err = line ? ghostnic_request_fds(l->ctl, line, -1, &answer, fds,
					      GHOSTNIC_MAX_FDS, nfds)
		       : -ENOMEM;

	free(line);
	json_decref(req);
	if (err)
		return err;
	*a = json_loads(answer, 0, NULL);
	free(answer);
	if (json_is_object(*a))
		return json_is_true(json_object_get(*a, "ok")) ? 0 : -EREMOTEIO;
	while (*nfds)
		close(fds[--*nfds]);
	json_decref(*a);
	return -EPROTO;
}

static void done(json_t *a, const int *fds, unsigned int nfds)
{
	while (nfds)
		close(fds[--nfds]);
	json_decref(a);
}

/* A request whose answer's descriptors are not wanted. @a: as of ask() */
static int call(const struct daemon_log *l, const char *cmd, const char *owner,
		json_t **a)
{
	int fds[GHOSTNIC_MAX_FDS], err;
	unsigned int n = 0;

	err = ask(l, cmd, owner, a, fds, &n);
	while (n)
		close(fds[--n]);
	return err;
}

static const char *error_of(const json_t *a)
{
	const char *s = json_string_value(json_object_get(a, "error"));

	return s ? s : "no reason given";
}

/* Return: 0, -errno, after a message */
static int complain(const struct daemon_log *l, int err, json_t *a)
{
	if (err == -EREMOTEIO) {
		log_warn("ghostnicd, instance %s: %s", l->instance, error_of(a));
		json_decref(a);
	} else if (err) {
		log_warn("ghostnicd, instance %s: %s", l->instance, strerror(-err));
	}
	return err;
}

static uint64_t number(const json_t *a, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(a, key));
}

/* ---- maps ------------------------------------------------------------------------ */

static void unmap(struct daemon_log *l)
{
	for (unsigned int i = 0; i < 2; i++) {
		if (l->map[i])
			munmap(l->map[i], l->bytes);
		l->map[i] = NULL;
	}
}

static int map_pair(struct daemon_log *l, const int *fds, unsigned int nfds)
{
	struct stat st;

	if (nfds != 2)
		return -EPROTO;
	for (unsigned int i = 0; i < 2; i++) {
		void *p;

		if (fstat(fds[i], &st))
			return -errno;
		if (st.st_size <= 0 || st.st_size % 8 ||
		    (i && (size_t)st.st_size != l->bytes))
			return -EPROTO;
		l->bytes = (size_t)st.st_size;
		p = mmap(NULL, l->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);
		if (p == MAP_FAILED)
			return -errno;
		l->map[i] = p;
	}
	return 0;
}

/* ---- ops ------------------------------------------------------------------------- */

/*
 * Stop a log that nobody harvests: of a process that is gone, or our own if the answer to
 * its start got lost. Return: was there one?
 */
static bool evict(const struct daemon_log *l)
{
	char owner[OWNER_MAX] = "";
	const char *s;
	json_t *a;
	int err = call(l, "dma-log-show", NULL, &a);

	if (err && err != -EREMOTEIO)
		return false;
	s = json_string_value(json_object_get(a, "owner"));
	if (s && strlen(s) < sizeof(owner))
		strcpy(owner, s);
	json_decref(a);
	if (!is_gone(owner) && (l->map[0] || strcmp(owner, l->owner)))
		return false;
	log_info("ghostnicd, instance %s: ending the DMA log of \"%s\", which nobody "
		 "takes",
		 l->instance, owner);
	err = call(l, "dma-log-stop", owner, &a);
	if (!err || err == -EREMOTEIO)
		json_decref(a);
	return !err;
}

static void stop_log(struct daemon_log *l)
{
	json_t *a;
	int err = call(l, "dma-log-stop", l->owner, &a);

	if (!err || err == -EREMOTEIO)
		json_decref(a);
	unmap(l);
}

/* The maps of before stay if this fails: their log may still be on. */
static int daemon_start(struct dirty_source *src)
{
	struct daemon_log *l = of(src);
	int fds[GHOSTNIC_MAX_FDS], err;
	unsigned int nfds = 0;
	json_t *a;

	err = ask(l, "dma-log-start", l->owner, &a, fds, &nfds);
	if (err == -EREMOTEIO && evict(l)) {
		done(a, fds, nfds);
		nfds = 0;
		err = ask(l, "dma-log-start", l->owner, &a, fds, &nfds);
	}
	if (err)
		return complain(l, err, a);
	unmap(l);
	l->beyond = number(a, "beyond");
	err = map_pair(l, fds, nfds);
	done(a, fds, nfds);
	if (err)
		stop_log(l);
	return err;
}

static uint64_t take(const struct daemon_log *l, unsigned int which, uint64_t *bitmap)
{
	uint64_t bits = (uint64_t)l->bytes * 8, pages = 0;

	for (unsigned int i = 0; i < l->src.ram->nblocks; i++) {
		const struct ram_block *b = &l->src.ram->block[i];
		uint64_t first = b->gpa >> RAM_PAGE_SHIFT, n = b->size >> RAM_PAGE_SHIFT;

		/* Above the bitmap the guest, as the daemon sees it, has no memory. */
		if (first >= bits)
			break;
		if (n > bits - first)
			n = bits - first;
		pages += bitmap_range(bitmap, b->first_page, l->map[which], first, n,
				      BITMAP_TAKE);
	}
	return pages;
}

static int64_t daemon_harvest(struct dirty_source *src, uint64_t *bitmap)
{
	struct daemon_log *l = of(src);
	uint64_t beyond, which;
	json_t *a;
	int64_t n;
	int err = call(l, "dma-log-swap", l->owner, &a);

	if (err) {
		/* The next harvest is whole again, if the log is on again by then. */
		if (complain(l, err, a) == -EREMOTEIO)
			daemon_start(src);
		return err;
	}
	beyond = number(a, "beyond");
	which = number(a, "harvest");
	json_decref(a);
	if (which > 1 || !l->map[which])
		return -EPROTO;
	n = (int64_t)take(l, (unsigned int)which, bitmap);
	if (beyond != l->beyond) {
		l->beyond = beyond;
		return -EOVERFLOW;
	}
	return n;
}

static void daemon_stop(struct dirty_source *src)
{
	stop_log(of(src));
}

static void daemon_destroy(struct dirty_source *src)
{
	struct daemon_log *l = of(src);

	unmap(l);
	free(l->ctl);
	free(l->iface);
	free(l->instance);
	free(l);
}

static const struct dirty_ops daemon_ops = {
	.name = "ghostnicd",
	.by = DIRTY_BY_DEVICE,
	.start = daemon_start,
	.harvest = daemon_harvest,
	.stop = daemon_stop,
	.destroy = daemon_destroy,
};

static bool copy(char **to, const char *s)
{
	*to = s ? strdup(s) : NULL;
	return !s || *to;
}

int dirty_daemon_create(const struct ram *ram, const char *ctl, const char *iface,
			const char *instance, struct dirty_source **src)
{
	struct daemon_log *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->src = (struct dirty_source){ .ops = &daemon_ops, .ram = ram };
	if (!copy(&l->ctl, ctl) || !copy(&l->iface, iface) ||
	    !copy(&l->instance, instance)) {
		daemon_destroy(&l->src);
		return -ENOMEM;
	}
	name_owner(l->owner);
	*src = &l->src;
	return 0;
}
