// SPDX-License-Identifier: BSD-2-Clause
/*
 * Planted faults: this is linked with objects that have them (GN_FAULTS), one is switched
 * on, and randomised migrations (trial.h) go on until one fails. A fault that
 * GN_FAULT_TRIALS (600) migrations do not notice is one that the tests would miss. Noticed
 * is one that had its occasion in a migration that fails, and passes without it.
 *
 * Without a fault the same build has to pass. Prints a line a fault: "ok NAME: ...".
 */
#include <stdio.h>
#include <stdlib.h>

#include "../../../user/lib/log.h"
#include "../../../vm-migrate/fault.h"
#include "../trial.h"

#define SOUND 60 /* migrations without a fault, first */

enum fault gn_fault;
unsigned long gn_fault_hits;

static const struct {
	enum fault fault;
	const char *name;
} planted[] = {
	{ FAULT_READ_BEFORE_CLEAR, "log is armed after the page is read" },
	{ FAULT_CLEAR_UNHARVESTED, "bits are cleared that were not harvested" },
	{ FAULT_HARVEST_BEFORE_PAUSE, "last harvest before vCPUs stop" },
	{ FAULT_NO_DRAIN, "device is not drained" },
	{ FAULT_HARVEST_BEFORE_SAVE, "last harvest before the state is saved" },
	{ FAULT_NO_LAST_HARVEST, "no last harvest" },
	{ FAULT_CLOSE_BEFORE_SEND, "logs are closed before the last harvest" },
	{ FAULT_NO_END, "streams are not waited for" },
	{ FAULT_LOSE_FRAME, "frames are lost" },
	{ FAULT_TORN_PAGE, "page changes between hash and send" },
	{ FAULT_WRONG_STREAM, "versions of a page may overtake each other" },
	{ FAULT_ONLY_DIRTY, "a migration begins with the log only" },
	{ FAULT_EARLY_START, "destination runs before the hand-over" },
	{ FAULT_STOP_AFTER_RESUME, "vCPUs stay stopped after a failure" },
};
_Static_assert(sizeof(planted) / sizeof(planted[0]) == FAULT_COUNT - 1, "all of them");

/* Return: migrations until one failed, 0: none of @n did */
static unsigned long until_noticed(unsigned long n, struct trial *t)
{
	for (unsigned long i = 1; i <= n; i++) {
		*t = (struct trial){ .seed = i };
		trial_run(t);
		if (!t->ok)
			return i;
	}
	return 0;
}

int main(void)
{
	const char *s = getenv("GN_FAULT_TRIALS");
	unsigned long most = s ? strtoul(s, NULL, 10) : 600, n, bad = 0;
	struct trial t, sound;

	log_set_level(LOG_LVL_ERROR);
	setvbuf(stdout, NULL, _IOLBF, 0);
	n = until_noticed(SOUND, &t);
	if (n)
		printf("not ok no fault: seed %lu: %s\n", n, t.why);
	else
		printf("ok no fault: %d migrations\n", SOUND);
	bad += n != 0;
	for (unsigned int i = 0; i < FAULT_COUNT - 1; i++) {
		gn_fault = planted[i].fault;
		gn_fault_hits = 0;
		n = until_noticed(most, &t);
		gn_fault = FAULT_NONE;
		sound = (struct trial){ .seed = n };
		if (n)
			trial_run(&sound);
		if (!n)
			printf("not ok %s: not noticed in %lu migrations, %lu "
			       "occasions\n",
			       planted[i].name, most, gn_fault_hits);
		else if (!gn_fault_hits || !sound.ok)
			printf("not ok %s: migration %lu fails without it, too: %s\n",
			       planted[i].name, n, t.why);
		else
			printf("ok %s: in migration %lu: %s\n", planted[i].name, n,
			       t.why);
		bad += !n || !gn_fault_hits || !sound.ok;
	}
	return bad != 0;
}
