/* SPDX-License-Identifier: BSD-2-Clause */
/* serve_int: what serve.c, source.c and dest.c share. */
#ifndef VMM_SERVE_INT_H
#define VMM_SERVE_INT_H

#include <pthread.h>

#include "../../user/lib/loop.h"
#include "../precopy/incoming.h"
#include "../precopy/precopy.h"
#include "control.h"
#include "serve.h"

struct serve {
	const struct serve_conf *conf;
	struct loop *loop;
	struct loop_watch *stdin_watch, *signal_watch, *wake_watch, *timer_watch,
		*ended_watch;
	struct control *control;
	int console_fd, signal_fd, wake_fd, timer_fd;
	struct vm *vm; /* NULL, or the incoming thread's, while incoming is set */
	enum serve_end how;
	bool ending;
	char *why; /* [why_len] the caller's */
	size_t why_len;

	/* out; see source.c */
	struct precopy *precopy; /* set while a migration runs */
	struct dirty_set *dirty;
	struct control_request req;
	struct precopy_status last; /* of the last one that ended */
	bool had_migration, was_running;
	int result;
	pthread_t engine;

	struct rating *rating; /* a dirty rate is being measured; see rating.c */

	/* in; see dest.c */
	struct incoming *incoming; /* set until the machine has arrived */
	pthread_t arrival;
	int arrival_result;
	unsigned int failures_said;
};

/** serve_say() - tell the user; takes the reference */
void serve_say(struct serve *s, json_t *event);

/** serve_end() - end, after a running migration has been cancelled. Loop's thread */
void serve_end(struct serve *s, enum serve_end how);

/** serve_wake() - source_finished() or dest_finished() is called by the loop. Any thread
 */
void serve_wake(struct serve *s);

/** serve_tick_every() - 0: never */
void serve_tick_every(struct serve *s, unsigned int ms);

/** serve_watch_vm() - notice when the guest ends. Return: 0, -errno */
int serve_watch_vm(struct serve *s);

int source_begin(struct serve *s, const struct control_request *req, char *why,
		 size_t why_len);
void source_tick(struct serve *s);
void source_finished(struct serve *s);
json_t *source_status(struct serve *s); /* new reference */

/* Orders of rate_control(): answers. Loop's thread, while no migration runs. */
json_t *rating_start(struct serve *s);
json_t *rating_take(struct serve *s);
json_t *rating_stop(struct serve *s);
void rating_end(struct serve *s); /* whoever asked gets nothing; none is fine */

int dest_begin(struct serve *s);
void dest_tick(struct serve *s);
void dest_finished(struct serve *s);
json_t *dest_status(struct serve *s); /* new reference */
void dest_close(struct serve *s);     /* join what still runs */

#endif
