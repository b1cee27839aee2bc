// SPDX-License-Identifier: BSD-2-Clause
/*
 * shm_conn: clients that share rings with the daemon. Contract in shm_conn.h.
 *
 * What is shared with a client is made for it and goes with it, so that a former client
 * that still maps its memory has nothing of its successor's.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "shm_conn.h"
#include "../lib/fds.h"
#include "../lib/unix_path.h"
#include "../lib/log.h"

#define BACKLOG 4

const char shm_left[] = "it left";

/* ---- the listening socket ------------------------------------------------------- */

int shm_listen(const char *path)
{
	int fd = unix_listen(path, SOCK_STREAM | SOCK_NONBLOCK, UNIX_MODE_DIR, BACKLOG);

	if (fd < 0)
		log_err("%s: %s", path,
			fd == -EADDRINUSE
				? "someone listens there; give the port another socket"
			: fd == -EEXIST	      ? "exists and is no socket; remove it"
			: fd == -ENAMETOOLONG ? "longer than a socket's path may be"
					      : strerror(-fd));
	return fd;
}

void shm_unlisten(int fd, const char *path)
{
	struct sockaddr_un sun = { .sun_family = AF_UNIX };

	if (fd < 0)
		return;
	close(fd);
	/* Another daemon may listen there by now, if someone unlinked our socket. */
	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	if (!unix_check_dead(&sun))
		unlink(path);
}

int shm_accept(struct loop *loop, struct loop_watch *w, const char *path, pid_t *pid,
	       char *who, size_t wholen)
{
	int fd = loop_accept(loop, w, path);
	struct ucred cred = { .pid = 0 };
	socklen_t len = sizeof(cred);

	if (fd < 0)
		return fd;
	getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
	*pid = cred.pid;
	snprintf(who, wholen, "pid %d uid %u", (int)cred.pid, (unsigned int)cred.uid);
	return fd;
}

static int send_msg(int conn, const void *msg, size_t len, const int *fd,
		    unsigned int nfds)
{
	const struct iovec iov = { (void *)msg, len };
	ssize_t n = fds_send(conn, &iov, 1, fd, nfds, MSG_NOSIGNAL | MSG_DONTWAIT);

	return n == (ssize_t)len ? 0 : n < 0 ? (int)n : -EAGAIN;
}

void shm_refuse(int conn, int err, const char *text)
{
	struct gn_shm_hello hello = {
		.magic = GN_SHM_MAGIC,
		.abi = GN_SHM_ABI,
		.error = -err,
	};

	snprintf(hello.text, sizeof(hello.text), "%s", text);
	send_msg(conn, &hello, sizeof(hello), NULL, 0);
	close(conn);
}

/* ---- channels ------------------------------------------------------------------- */

static void chan_fini(struct shm_chan *ch)
{
	shm_ring_fini(&ch->ring);
	if (ch->map)
		munmap(ch->map, ch->layout.map_size);
	if (ch->memfd >= 0)
		close(ch->memfd);
	if (ch->bell >= 0)
		close(ch->bell);
	if (ch->client_bell >= 0)
		close(ch->client_bell);
}

static int chan_init(struct shm_chan *ch, const struct shm_ring_conf *conf)
{
	int err = shm_ring_layout(conf, &ch->layout), pair[2];
	void *map;

	if (err)
		return err;
	ch->memfd = memfd_create("ghostnic-shm", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	/* Sealed: a client that could shrink it would end us by SIGBUS. */
	if (ch->memfd < 0 || ftruncate(ch->memfd, (off_t)ch->layout.map_size) ||
	    fcntl(ch->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL))
		return -errno;
	map = mmap(NULL, ch->layout.map_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		   ch->memfd, 0);
	if (map == MAP_FAILED)
		return -errno;
	ch->map = map;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		return -errno;
	ch->bell = pair[0];
	ch->client_bell = pair[1];
	return shm_ring_init(&ch->ring, map, &ch->layout, conf);
}

void shm_chan_break(struct shm_chan *ch, const char *why)
{
	const uint64_t one = 1;

	if (__atomic_load_n(&ch->why, __ATOMIC_RELAXED))
		return;
	__atomic_store_n(&ch->why, why, __ATOMIC_RELEASE);
	if (write(ch->client->broken_fd, &one, sizeof(one)) < 0)
		log_debug("a broken channel is known already");
}

void shm_chan_ring(struct shm_chan *ch)
{
	/* Full: it has not heard the last ones yet. Closed: its connection tells. */
	if (send(ch->bell, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return;
}

bool shm_chan_hush(struct shm_chan *ch)
{
	char buf[256];
	ssize_t n = recv(ch->bell, buf, sizeof(buf), MSG_DONTWAIT);

	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

/* ---- a client ------------------------------------------------------------------- */

static void on_conn(void *arg, uint32_t events)
{
	struct shm_client *c = arg;
	char byte;
	ssize_t n = recv(c->conn, &byte, 1, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	c->gone(c->arg, n > 0 ? "it sent what nobody asked for" : NULL);
}

static void on_broken(void *arg, uint32_t events)
{
	struct shm_client *c = arg;

	for (unsigned int i = 0; i < c->nchans; i++) {
		const char *why = __atomic_load_n(&c->chan[i].why, __ATOMIC_ACQUIRE);

		if (!why)
			continue;
		c->gone(c->arg, why == shm_left ? NULL : why);
		return;
	}
}

void shm_client_destroy(struct shm_client *c)
{
	if (!c)
		return;
	loop_unwatch(c->loop, c->conn_watch);
	loop_unwatch(c->loop, c->broken_watch);
	for (unsigned int i = 0; i < c->nchans; i++)
		chan_fini(&c->chan[i]);
	if (c->broken_fd >= 0)
		close(c->broken_fd);
	if (c->conn >= 0)
		close(c->conn);
	free(c->chan);
	free(c);
}

int shm_client_create(struct loop *loop, int conn, pid_t pid, unsigned int nchans,
		      const struct shm_ring_conf *conf,
		      void (*gone)(void *arg, const char *why), void *arg,
		      struct shm_client **out)
{
	struct shm_client *c = calloc(1, sizeof(*c));
	int err = -ENOMEM;

	if (!c)
		return -ENOMEM;
	*c = (struct shm_client){
		.loop = loop,
		.conn = -1,
		.broken_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
		.pid = pid,
		.chan = calloc(nchans, sizeof(*c->chan)),
		.gone = gone,
		.arg = arg,
	};
	if (!c->chan)
		goto fail;
	for (; c->nchans < nchans; c->nchans++) {
		c->chan[c->nchans] = (struct shm_chan){
			.client = c,
			.memfd = -1,
			.bell = -1,
			.client_bell = -1,
		};
		err = chan_init(&c->chan[c->nchans], conf);
		if (err) {
			c->nchans++;
			goto fail;
		}
	}
	err = c->broken_fd < 0 ? -EMFILE
			       : loop_watch(loop, c->broken_fd, EPOLLIN, on_broken, c,
					    &c->broken_watch);
	if (!err)
		err = loop_watch(loop, conn, EPOLLIN, on_conn, c, &c->conn_watch);
	if (err)
		goto fail;
	c->conn = conn;
	*out = c;
	return 0;
fail:
	shm_client_destroy(c);
	return err;
}

int shm_client_welcome(struct shm_client *c, struct gn_shm_hello *hello,
		       const struct umem *const *umem)
{
	int err;

	hello->magic = GN_SHM_MAGIC;
	hello->abi = GN_SHM_ABI;
	hello->error = 0;
	hello->nqueues = c->nchans;
	err = send_msg(c->conn, hello, sizeof(*hello), NULL, 0);
	for (unsigned int i = 0; !err && i < c->nchans; i++) {
		struct shm_chan *ch = &c->chan[i];
		int fds[GN_SHM_QUEUE_FDS] = { ch->memfd, ch->client_bell,
					      umem ? umem[i]->fd : -1 };

		ch->layout.queue = i;
		ch->layout.umem_size = umem ? umem[i]->size : 0;
		err = send_msg(c->conn, &ch->layout, sizeof(ch->layout), fds,
			       umem ? GN_SHM_QUEUE_FDS : GN_SHM_QUEUE_FDS - 1);
		/* So that the end of the client's copy is seen as the doorbell's end. */
		close(ch->client_bell);
		ch->client_bell = -1;
	}
	return err;
}
