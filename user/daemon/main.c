// SPDX-License-Identifier: BSD-2-Clause
/*
 * ghostnicd: start, control loop, stop.
 *
 * The first thread is the control thread: it opens everything, gives up the rights
 * that took, starts the workers, and then serves the control socket and signals.
 * Workers never end by themselves; a device that goes away is their socket's
 * error and the control socket goes on answering.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ctl.h"
#include "linkwatch.h"
#include "metrics.h"
#include "mirror.h"
#include "sandbox.h"
#include "vhost/vu_keep.h"
#include "vhost/vu_proto.h"
#include "../lib/log.h"

/* Exit status; documented in ghostnicd(8). */
#define EXIT_START 1
#define EXIT_USAGE 2

/* Of a front end: kick, call and error of each ring, two connections, a message's. */
#define VHOST_FILES (3 * VU_MAX_RINGS + 2 + VU_MAX_FDS)
#define SPARE_FILES 64 /* of control clients and captures */

struct app {
	struct daemon d;
	struct ctl *ctl;
	struct linkwatch *links;
	struct mirror_server *captures; /* NULL: the message said why */
	struct loop_watch *sig_watch, *ctl_watch;
	int sigfd;
	int notify_fd; /* connected to NOTIFY_SOCKET, or -1 */
	int ready_fd;  /* pipe to the process that waits for us, or -1 */
};

/*
 * sd_notify(3) without libsystemd: datagrams to the address in NOTIFY_SOCKET. Connected,
 * for in the sandbox sendto() takes no address. Return: socket, -1: nobody asked
 */
static int notify_open(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sun = { .sun_family = AF_UNIX };
	size_t n = path ? strlen(path) : 0;
	int fd;

	if (!n || n >= sizeof(sun.sun_path) || (*path != '/' && *path != '@'))
		return -1;
	memcpy(sun.sun_path, path, n);
	if (*path == '@')
		sun.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&sun,
			       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n))) {
		log_warn("NOTIFY_SOCKET %s: %s", path, strerror(errno));
		close(fd);
		return -1;
	}
	return fd;
}

static void notify(const struct app *l, const char *state)
{
	if (l->notify_fd >= 0 &&
	    send(l->notify_fd, state, strlen(state), MSG_NOSIGNAL) < 0)
		log_warn("NOTIFY_SOCKET: %s", strerror(errno));
}

/*
 * Without --foreground: go on in a child, in a session of its own. The parent waits
 * until the child is ready and exits with 0, or with the child's status if it
 * ends before, so that a script's next line finds a running daemon.
 * Return: pipe to write to when ready; -errno
 */
static int background(void)
{
	int fds[2], status = 0, null;
	pid_t pid;
	char c;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid < 0) {
		int err = -errno;

		close(fds[0]);
		close(fds[1]);
		return err;
	}
	if (pid) {
		ssize_t n;

		close(fds[1]);
		do {
			n = read(fds[0], &c, 1);
		} while (n < 0 && errno == EINTR);
		if (n == 1)
			_exit(0);
		waitpid(pid, &status, 0);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_START);
	}
	close(fds[0]);
	setsid();
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		if (null > STDERR_FILENO)
			close(null);
	}
	return fds[1];
}

static void on_ctl(void *arg, uint32_t events)
{
	struct app *l = arg;

	if (!ctl_serve(l->ctl))
		loop_pause(l->d.loop, l->ctl_watch, LOOP_ACCEPT_PAUSE_MS);
}

static void on_signal(void *arg, uint32_t events)
{
	struct app *l = arg;
	struct signalfd_siginfo si;

	if (read(l->sigfd, &si, sizeof(si)) != sizeof(si))
		return;
	log_info("signal %s from pid %u: stopping",
		 si.ssi_signo == SIGINT ? "INT" : "TERM", si.ssi_pid);
	loop_stop(l->d.loop);
}

static int open_ifaces(struct app *l, struct daemon_conf *conf)
{
	char err[256];
	int ret;

	for (unsigned int i = 0; i < conf->nifaces; i++) {
		ret = iface_open(&conf->iface[i], conf, l->d.loop,
				 &l->d.iface[l->d.nifaces]);
		if (ret)
			return ret;
		l->d.nifaces++;
	}
	for (unsigned int i = 0; i < conf->ninstances; i++) {
		const struct instance_conf *in = &conf->instance[i];

		err[0] = '\0';
		ret = iface_add_instance(daemon_find_iface(&l->d, in->iface), in, err,
					 sizeof(err));
		if (ret) {
			log_err("instance %s on %s: %s", in->name, in->iface,
				*err ? err : strerror(-ret));
			return ret;
		}
	}
	return 0;
}

/* As many descriptors as may be: nothing here cares how large their numbers are. */
static void raise_files(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r))
		return;
	r.rlim_cur = r.rlim_max;
	setrlimit(RLIMIT_NOFILE, &r); /* refused: check_files() tells if that matters */
}

/* Descriptors of @port once somebody is connected, beyond those that it has now. */
static unsigned int files_of_peer(const struct port *port)
{
	if (port->ops == &port_vhost_ops)
		return VHOST_FILES;
	return port->ops == &port_shm_ops ? 2 * port->nqueues + 2 : 0;
}

/* Will there be enough descriptors when all instances have their peers? */
static void check_files(const struct app *l)
{
	unsigned int need = SPARE_FILES, n = 0;
	struct rlimit r;
	int lowest;

	for (unsigned int i = 0; i < l->d.nifaces; i++)
		for (unsigned int s = 0; s < GN_MAX_INSTANCES; s++) {
			const struct instance *in = l->d.iface[i]->instance[s];

			need += in ? files_of_peer(in->port) : 0;
			n += in != NULL;
		}
	/* All below the lowest free one are in use. */
	lowest = fcntl(l->sigfd, F_DUPFD_CLOEXEC, 0);
	if (lowest < 0 || getrlimit(RLIMIT_NOFILE, &r))
		return;
	close(lowest);
	if (r.rlim_cur < (unsigned int)lowest + need)
		log_warn("a limit of %llu open files, of which %d are in use, is too low "
			 "for the peers of %u instances, which may need %u: raise it, by "
			 "`ulimit -n` or the service's LimitNOFILE=",
			 (unsigned long long)r.rlim_cur, lowest, n, need);
}

/* Positions of packed rings, for the next daemon if this one is killed. */
static void keep_rings(const char *ctl)
{
	char path[128];
	int err;

	snprintf(path, sizeof(path), "%s.rings", ctl);
	err = vu_keep_open(path);
	if (err)
		log_warn("%s: %s; packed rings of VMs will not go on if this daemon is "
			 "killed",
			 path, strerror(-err));
}

/*
 * The control socket comes first: it tells whether another daemon is there, before
 * anything of that one is touched. Everything that needs rights comes before the sandbox,
 * every thread after it.
 */
static int start(struct app *l, struct daemon_conf *conf)
{
	int ret = ctl_open(&l->ctl, conf->ctl, &l->d);

	if (!ret)
		ret = loop_watch(l->d.loop, ctl_fd(l->ctl), EPOLLIN, on_ctl, l,
				 &l->ctl_watch);
	if (!ret)
		ret = linkwatch_open(&l->d, &l->links);
	if (!ret && mirror_listen(&l->d, conf->ctl, &l->captures))
		log_warn("no captures: their socket is %s.capture", conf->ctl);
	if (!ret)
		keep_rings(conf->ctl);
	if (!ret)
		ret = open_ifaces(l, conf);
	if (!ret)
		check_files(l);
	if (!ret)
		ret = sandbox_enter();
	for (unsigned int i = 0; !ret && i < l->d.nifaces; i++)
		ret = iface_start(l->d.iface[i]);
	return ret;
}

/* Counters are read when no worker changes them and before they are freed. */
static void stop(struct app *l, bool ran)
{
	loop_unwatch(l->d.loop, l->ctl_watch);
	ctl_close(l->ctl);
	linkwatch_close(l->links);
	mirror_unlisten(l->captures);
	for (unsigned int i = 0; ran && i < l->d.nifaces; i++)
		iface_stop(l->d.iface[i]);
	if (ran)
		metrics_log(&l->d);
	while (l->d.nifaces)
		iface_close(l->d.iface[--l->d.nifaces]);
	vu_keep_close();
}

static int serve(struct app *l, struct daemon_conf *conf)
{
	int ret = start(l, conf);
	bool ran = !ret;

	if (ran) {
		log_info("ghostnicd %s ready: %u interfaces, %u instances, control "
			 "socket %s",
			 GN_VERSION, l->d.nifaces, conf->ninstances, conf->ctl);
		notify(l, "READY=1");
		if (l->ready_fd >= 0) {
			if (write(l->ready_fd, "", 1) < 0)
				log_warn("nobody waits for the start: %s",
					 strerror(errno));
			close(l->ready_fd);
		}
		ret = loop_run(l->d.loop);
		notify(l, "STOPPING=1");
	}
	stop(l, ran);
	return ret;
}

/* Signals are read, not handled; a terminal's hang-up and broken pipes are nothing. */
static int open_signals(void)
{
	sigset_t set;

	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		return -errno;
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int main(int argc, char **argv)
{
	/* Packet memory is locked; before kernel 5.11 maps count too. */
	const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	struct app l = { .sigfd = -1, .notify_fd = -1, .ready_fd = -1 };
	struct daemon_conf conf;
	struct timespec ts;
	int ret;

	ret = conf_parse_args(&conf, argc, argv);
	if (ret) {
		conf_fini(&conf);
		return ret < 0 ? EXIT_USAGE : 0;
	}
	if (conf.check_only) {
		printf("configuration is valid: %u interfaces, %u instances\n",
		       conf.nifaces, conf.ninstances);
		conf_fini(&conf);
		return 0;
	}
	log_set_level(conf.log_level);
	if (!conf.foreground) {
		l.ready_fd = background();
		if (l.ready_fd < 0) {
			log_err("cannot go into the background: %s",
				strerror(-l.ready_fd));
			conf_fini(&conf);
			return EXIT_START;
		}
	}
	setrlimit(RLIMIT_MEMLOCK, &unlimited); /* refused: umems tell what is missing */
	raise_files();
	clock_gettime(CLOCK_MONOTONIC, &ts);
	l.d.conf = &conf;
	l.d.start_ns = (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
	l.notify_fd = notify_open();
	l.sigfd = open_signals();
	ret = l.sigfd < 0 ? l.sigfd : loop_create(&l.d.loop);
	if (!ret)
		ret = loop_watch(l.d.loop, l.sigfd, EPOLLIN, on_signal, &l, &l.sig_watch);
	if (ret)
		log_err("cannot start: %s", strerror(-ret));
	else
		ret = serve(&l, &conf);
	loop_destroy(l.d.loop);
	if (l.sigfd >= 0)
		close(l.sigfd);
	if (l.notify_fd >= 0)
		close(l.notify_fd);
	conf_fini(&conf);
	return ret ? EXIT_START : 0;
}
