// SPDX-License-Identifier: BSD-2-Clause
/*
 * serve: see serve.h. The outgoing migration is in source.c, the incoming one in dest.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <termios.h>
#include <unistd.h>

#include "../../user/lib/log.h"
#include "confine.h"
#include "serve_int.h"

#define LINGER_MS 2000 /* clients read the last event */
#define ESCAPE	  0x1d /* control and ]: leaves the console */
#define TICK_MS	  200

/* ---- console ----------------------------------------------------------------------- */

static struct termios saved_tty;
static bool tty_raw;

static void tty_restore(void)
{
	if (tty_raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &saved_tty);
	tty_raw = false;
}

static void stdin_ready(void *arg, uint32_t events)
{
	struct serve *s = arg;
	char buf[256];
	ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));

	if (n <= 0) {
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			return;
		loop_unwatch(s->loop, s->stdin_watch);
		s->stdin_watch = NULL;
		return;
	}
	if (tty_raw && memchr(buf, ESCAPE, (size_t)n)) {
		serve_end(s, SERVE_QUIT);
		return;
	}
	if (!s->incoming && s->vm && s->vm->accel->input)
		s->vm->accel->input(s->vm, buf, (size_t)n);
}

static int console_open(struct serve *s, char *why, size_t len)
{
	const char *c = s->conf->console;
	struct termios t;

	s->console_fd = -1;
	if (!c || !strcmp(c, "none"))
		return 0;
	if (!strncmp(c, "file:", 5)) {
		s->console_fd =
			open(c + 5, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		if (s->console_fd >= 0)
			return 0;
		snprintf(why, len, "console %s: %s", c + 5, strerror(errno));
		return -errno;
	}
	if (strcmp(c, "stdio") != 0) {
		snprintf(why, len, "console \"%s\": stdio, none or file:PATH", c);
		return -EINVAL;
	}
	s->console_fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	if (isatty(STDIN_FILENO) && !tcgetattr(STDIN_FILENO, &saved_tty)) {
		t = saved_tty;
		cfmakeraw(&t);
		t.c_oflag |= OPOST; /* our own messages */
		tty_raw = !tcsetattr(STDIN_FILENO, TCSANOW, &t);
	}
	/* epoll refuses plain files, such as an empty standard input: then nobody types.
	 */
	loop_watch(s->loop, STDIN_FILENO, EPOLLIN, stdin_ready, s, &s->stdin_watch);
	return 0;
}

/* ---- events ------------------------------------------------------------------------ */

void serve_say(struct serve *s, json_t *event)
{
	if (s->conf->event && event)
		s->conf->event(event);
	else
		json_decref(event);
}

void serve_end(struct serve *s, enum serve_end how)
{
	if (!s->ending)
		s->how = how;
	s->ending = true;
	/* A migration is not left alone: it ends first, by cancel if that is not too late. */
	if (s->precopy) {
		precopy_cancel(s->precopy);
		return;
	}
	if (s->incoming) {
		incoming_cancel(s->incoming);
		return;
	}
	loop_stop(s->loop);
}

void serve_wake(struct serve *s)
{
	const uint64_t one = 1;

	if (write(s->wake_fd, &one, sizeof(one)) < 0)
		log_err("eventfd: %s", strerror(errno));
}

static void wake_ready(void *arg, uint32_t events)
{
	struct serve *s = arg;
	uint64_t n;

	if (read(s->wake_fd, &n, sizeof(n)) < 0)
		return;
	if (s->precopy)
		source_finished(s);
	else if (s->incoming)
		dest_finished(s);
}

static void tick_ready(void *arg, uint32_t events)
{
	struct serve *s = arg;
	uint64_t n;

	if (read(s->timer_fd, &n, sizeof(n)) < 0)
		return;
	if (s->precopy)
		source_tick(s);
	else if (s->incoming)
		dest_tick(s);
	else
		rating_end(s); /* nobody has asked for long */
}

void serve_tick_every(struct serve *s, unsigned int ms)
{
	const struct itimerspec ts = {
		.it_interval = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 },
		.it_value = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 },
	};

	timerfd_settime(s->timer_fd, 0, &ts, NULL);
}

static void ended_ready(void *arg, uint32_t events)
{
	struct serve *s = arg;

	loop_unwatch(s->loop, s->ended_watch);
	s->ended_watch = NULL;
	if (s->vm->accel->ended(s->vm)) {
		snprintf(s->why, s->why_len, "%s", s->vm->error);
		serve_end(s, SERVE_FAILED);
	} else {
		serve_end(s, SERVE_ENDED);
	}
}

int serve_watch_vm(struct serve *s)
{
	return loop_watch(s->loop, s->vm->ended_fd, EPOLLIN, ended_ready, s,
			  &s->ended_watch);
}

static void signal_ready(void *arg, uint32_t events)
{
	struct serve *s = arg;
	struct signalfd_siginfo si;

	if (read(s->signal_fd, &si, sizeof(si)) != sizeof(si))
		return;
	log_info("signal %d", (int)si.ssi_signo);
	serve_end(s, SERVE_QUIT);
}

/* ---- orders ------------------------------------------------------------------------ */

static json_t *fail(const char *why)
{
	return json_pack("{s:b, s:s%}", "ok", 0, "error", why, strlen(why));
}

static json_t *guest_json(struct serve *s)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < s->vm->conf.vcpus; i++) {
		struct workload_regs r = { 0 };

		s->vm->accel->regs(s->vm, i, &r);
		json_array_append_new(list, json_pack("{s:I, s:I}", "writes",
						      (json_int_t)r.writes, "errors",
						      (json_int_t)r.errors));
	}
	return list;
}

static const char *state_name(const struct serve *s)
{
	if (s->incoming)
		return "incoming";
	if (s->ending)
		return "ending";
	return s->vm->running ? "running" : "paused";
}

static json_t *status(struct serve *s)
{
	json_t *o = json_pack("{s:b, s:s, s:i}", "ok", 1, "state", state_name(s), "pid",
			      (int)getpid());

	/* While a machine arrives, its thread is the one that knows it; none may have. */
	if (!s->incoming && s->vm) {
		const struct vm_conf *c = &s->vm->conf;

		json_object_set_new(o, "accel", json_string(c->accel));
		json_object_set_new(o, "memory_bytes",
				    json_integer((json_int_t)c->memory));
		json_object_set_new(o, "vcpus", json_integer(c->vcpus));
		if (c->work.on) {
			char text[WORKLOAD_TEXT_MAX];

			workload_text(&c->work, text);
			json_object_set_new(o, "workload", json_string(text));
			json_object_set_new(o, "guest", guest_json(s));
		}
	}
	if (s->precopy || s->had_migration)
		json_object_set_new(o, "migration", source_status(s));
	if (s->incoming)
		json_object_set_new(o, "incoming", dest_status(s));
	return o;
}

static json_t *check(struct serve *s)
{
	uint64_t bad = 0;
	int64_t n;

	if (!s->vm->conf.work.on)
		return fail("only a workload's pages can be checked");
	if (s->vm->running)
		return fail("pause the VM first");
	n = workload_check(&s->vm->conf.work, &s->vm->ram, s->vm->conf.vcpus, &bad);
	if (n < 0)
		return fail("the workload does not fit the memory");
	return json_pack("{s:b, s:I, s:I}", "ok", 1, "pages", (json_int_t)n, "bad",
			 (json_int_t)bad);
}

static json_t *done_or_fail(struct serve *s, int err)
{
	return err ? fail(s->vm->error) : json_pack("{s:b}", "ok", 1);
}

/* A machine that is paused is not written to by its devices either. */
static int pause_all(struct vm *vm)
{
	int err = vm_pause(vm);

	return err ? err : vm_drain(vm);
}

static json_t *handle(void *arg, const struct control_request *req, bool *watch)
{
	struct serve *s = arg;

	switch (req->cmd) {
	case CONTROL_STATUS: return status(s);
	case CONTROL_QUIT: serve_end(s, SERVE_QUIT); return json_pack("{s:b}", "ok", 1);
	case CONTROL_CANCEL:
		if (s->incoming)
			return fail("cancel at the source, or end this side with quit");
		if (!s->precopy)
			return fail("no migration runs");
		if (!precopy_cancel(s->precopy))
			return fail("too late: it is handed over");
		return json_pack("{s:b}", "ok", 1);
	default: break;
	}
	if (s->incoming)
		return fail("the VM has not arrived yet");
	if (s->precopy)
		return fail("a migration runs; cancel it or wait");
	if (s->ending)
		return fail("the VM is about to end");
	switch (req->cmd) {
	case CONTROL_PAUSE: return done_or_fail(s, pause_all(s->vm));
	case CONTROL_RESUME: return done_or_fail(s, vm_start(s->vm));
	case CONTROL_CHECK: return check(s);
	case CONTROL_RATE_START: return rating_start(s);
	case CONTROL_RATE_TAKE: return rating_take(s);
	case CONTROL_RATE_STOP: return rating_stop(s);
	case CONTROL_MIGRATE: {
		char why[256];

		rating_end(s); /* a migration matters more */
		if (source_begin(s, req, why, sizeof(why)))
			return fail(why);
		*watch = true;
		return json_pack("{s:b}", "ok", 1);
	}
	default: return fail("not now");
	}
}

/* ---- life -------------------------------------------------------------------------- */

static int open_fds(struct serve *s)
{
	sigset_t set;
	int err;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL); /* threads inherit it */
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (s->signal_fd < 0 || s->wake_fd < 0 || s->timer_fd < 0)
		return -errno;
	err = loop_watch(s->loop, s->signal_fd, EPOLLIN, signal_ready, s,
			 &s->signal_watch);
	if (!err)
		err = loop_watch(s->loop, s->wake_fd, EPOLLIN, wake_ready, s,
				 &s->wake_watch);
	if (!err)
		err = loop_watch(s->loop, s->timer_fd, EPOLLIN, tick_ready, s,
				 &s->timer_watch);
	return err;
}

/* @accel: of the machine to come, NULL: not known */
static int serve_open(struct serve *s, const char *accel, char *why, size_t len)
{
	int err = loop_create(&s->loop);

	if (!err)
		err = open_fds(s);
	if (err) {
		snprintf(why, len, "no event loop: %s", strerror(-err));
		return err;
	}
	err = console_open(s, why, len);
	if (err)
		return err;
	err = confine(accel);
	if (err)
		snprintf(why, len, "cannot give up rights: %s", strerror(-err));
	if (!err && s->conf->control)
		err = control_open(s->loop, s->conf->control, handle, s, &s->control, why,
				   len);
	return err;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

static void serve_close(struct serve *s)
{
	if (s->ended_watch)
		loop_unwatch(s->loop, s->ended_watch);
	rating_end(s);
	vm_destroy(s->vm);
	control_close(s->control, LINGER_MS);
	tty_restore();
	if (s->loop) {
		loop_unwatch(s->loop, s->stdin_watch);
		loop_unwatch(s->loop, s->signal_watch);
		loop_unwatch(s->loop, s->wake_watch);
		loop_unwatch(s->loop, s->timer_watch);
	}
	loop_destroy(s->loop);
	close_fd(s->console_fd);
	close_fd(s->signal_fd);
	close_fd(s->wake_fd);
	close_fd(s->timer_fd);
}

static void serve_init(struct serve *s, const struct serve_conf *conf, char *why,
		       size_t len)
{
	*s = (struct serve){
		.conf = conf,
		.console_fd = -1,
		.signal_fd = -1,
		.wake_fd = -1,
		.timer_fd = -1,
		.how = SERVE_FAILED,
		.why = why,
		.why_len = len,
	};
	*why = '\0';
}

static enum serve_end failed(int err)
{
	switch (err) {
	case -EOPNOTSUPP:
	case -ENOSYS:
	case -ENODEV: return SERVE_CANNOT;
	case -EINVAL:
	case -ENAMETOOLONG: return SERVE_BAD_CONF;
	default: return SERVE_FAILED;
	}
}

static int begin_run(struct serve *s)
{
	struct vm_conf conf = s->conf->vm;
	int err = serve_open(s, conf.accel, s->why, s->why_len);

	if (err)
		return err;
	conf.console_fd = s->console_fd;
	err = vm_create(&conf, &s->vm, s->why, s->why_len);
	if (err)
		return err;
	err = confine_to(conf.accel);
	if (err) {
		snprintf(s->why, s->why_len, "cannot give up rights: %s", strerror(-err));
		return err;
	}
	err = vm_boot(s->vm);
	if (!err)
		err = serve_watch_vm(s);
	if (!err && !s->conf->paused)
		err = vm_start(s->vm);
	if (err)
		snprintf(s->why, s->why_len, "%s", s->vm->error);
	return err;
}

enum serve_end serve_run(const struct serve_conf *conf, char *why, size_t len)
{
	struct serve s;
	int err;

	serve_init(&s, conf, why, len);
	err = begin_run(&s);
	if (err) {
		s.how = failed(err);
	} else {
		serve_say(&s, json_pack("{s:s, s:i}", "event",
					conf->paused ? "paused" : "running", "pid",
					(int)getpid()));
		loop_run(s.loop);
	}
	serve_close(&s);
	return s.how;
}

enum serve_end serve_recv(const struct serve_conf *conf, char *why, size_t len)
{
	struct serve s;
	int err;

	serve_init(&s, conf, why, len);
	err = serve_open(&s, NULL, why, len);
	if (!err)
		err = dest_begin(&s);
	if (err) {
		s.how = failed(err);
	} else {
		serve_tick_every(&s, TICK_MS);
		loop_run(s.loop);
	}
	dest_close(&s);
	serve_close(&s);
	return s.how;
}
