// SPDX-License-Identifier: BSD-2-Clause
/* daemon_owner: whose DMA log it is, when a process or the log was lost. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/ghostnic.h"
#include "kinds.h"

/* One command for vm1's log. Return: the answer, which must be "ok" */
static json_t *ask(const char *cmd, const char *owner)
{
	char line[256], *answer;
	int fd[GHOSTNIC_MAX_FDS];
	unsigned int n;
	json_t *a;

	snprintf(line, sizeof(line),
		 "{\"cmd\":\"dma-log-%s\",\"instance\":\"vm1\"%s%s%s}", cmd,
		 owner ? ",\"owner\":\"" : "", owner ? owner : "", owner ? "\"" : "");
	assert_int_equal(ghostnic_request_fds(kind_daemon_ctl, line, -1, &answer, fd,
					      GHOSTNIC_MAX_FDS, &n),
			 0);
	while (n)
		close(fd[--n]);
	a = json_loads(answer, 0, NULL);
	free(answer);
	assert_true(json_is_true(json_object_get(a, "ok")));
	return a;
}

static void order(const char *cmd, const char *owner)
{
	json_decref(ask(cmd, owner));
}

/* The name that process @pid gives itself, if it started at @start */
static const char *name(long pid, unsigned long long start)
{
	static char buf[64];
	struct stat st;

	assert_int_equal(stat("/proc/self/ns/pid", &st), 0);
	snprintf(buf, sizeof(buf), "vm-migrate %llu %ld %llu",
		 (unsigned long long)st.st_ino, pid, start);
	return buf;
}

static unsigned long long started(void)
{
	unsigned long long t = 0;
	FILE *f = fopen("/proc/1/stat", "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f,
				"%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u "
				"%*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
				&t),
			 1);
	fclose(f);
	return t;
}

/* Somebody else's log stays his. */
static void refused(struct dirty_set *set, const char *owner)
{
	const char *failed = "";

	order("start", owner);
	assert_int_equal(dirty_set_start(set, &failed), -EREMOTEIO);
	assert_string_equal(failed, "ghostnicd");
	order("swap", owner);
	order("stop", owner);
}

static void taken_over(struct dirty_set *set, const char *owner)
{
	order("start", owner);
	assert_int_equal(dirty_set_start(set, NULL), 0);
	dirty_set_stop(set);
}

static void harvest(struct conform *c, uint64_t in_doubt)
{
	uint64_t all = c->ram.bytes >> RAM_PAGE_SHIFT;
	struct dirty_found found;

	memset(c->bitmap, 0, ram_words(&c->ram) * 8);
	dirty_set_harvest(c->set, c->bitmap, NULL, &found);
	assert_int_equal(c->set->src[0]->in_doubt, in_doubt);
	if (in_doubt)
		assert_int_equal(found.merged, all);
	else
		assert_true(found.merged < all);
	c->set->src[0]->in_doubt = 0;
}

void test_daemon_owner(void **state)
{
	struct conform c = { .seed = 1 };
	char owner[64];
	json_t *a;

	assert_int_equal(kind_daemon.open(&c), 0);
	c.bitmap = calloc(ram_words(&c.ram), 8);
	refused(c.set, "someone");
	refused(c.set, name(1, started()));
	/* No process, and one that is not the one that it was */
	taken_over(c.set, name(4194303, 1));
	taken_over(c.set, name(1, started() + 1));

	/* Its log ends behind its back: in doubt once, then it has another. */
	assert_int_equal(dirty_set_start(c.set, NULL), 0);
	harvest(&c, 0);
	a = ask("show", NULL);
	snprintf(owner, sizeof(owner), "%s",
		 json_string_value(json_object_get(a, "owner")));
	json_decref(a);
	order("stop", owner);
	harvest(&c, 1);
	harvest(&c, 0);
	harvest(&c, 0);

	/* And if somebody else has it now, in doubt as long as he does. */
	order("stop", owner);
	order("start", "someone");
	harvest(&c, 1);
	harvest(&c, 1);
	order("stop", "someone");
	harvest(&c, 1);
	harvest(&c, 0);

	free(c.bitmap);
	kind_daemon.close(&c);
	ram_fini(&c.ram);
}
