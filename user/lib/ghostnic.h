/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libghostnic: talk to a running ghostnicd, and be the instance behind a shared-memory
 * port.
 *
 * The daemon answers requests on a UNIX stream socket: one line of JSON each way.
 * A request is {"cmd": NAME, ...}; an answer is {"ok": true, ...} or
 * {"ok": false, "error": TEXT}. ghostnicd(8) lists the commands.
 *
 * Every call opens a connection of its own and shares no state, so any thread
 * may call at any time.
 */
#ifndef GHOSTNIC_H
#define GHOSTNIC_H

#include <linux/virtio_net.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GHOSTNIC_SOCKET	     "/run/ghostnic/ctl.sock"
#define GHOSTNIC_SOCKET_ENV  "GHOSTNIC_CTL"
#define GHOSTNIC_MAX_REQUEST 4096	 /* bytes with the newline */
#define GHOSTNIC_MAX_ANSWER  (64u << 20) /* bytes with the newline */
#define GHOSTNIC_TIMEOUT_MS  5000
#define GHOSTNIC_MAX_FDS     2 /* descriptors of any answer */

/**
 * ghostnic_socket() - path of the daemon's control socket
 * @path:	what the user named, or NULL
 *
 * Return: @path, or the value of GHOSTNIC_CTL, or GHOSTNIC_SOCKET
 */
const char *ghostnic_socket(const char *path);

/**
 * ghostnic_request() - send one request, wait for its answer
 * @path:	control socket; NULL: ghostnic_socket(NULL)
 * @request:	one JSON object, without a newline in it; at most
 *		GHOSTNIC_MAX_REQUEST - 1 bytes
 * @timeout_ms:	for the whole call; below 0: GHOSTNIC_TIMEOUT_MS
 * @answer:	set on success to the answer without its newline, NUL-terminated;
 *		the caller frees it by free(). Untouched on failure
 *
 * An answer that reports an error is a success of this function.
 *
 * Return: 0; -EINVAL: newline in the request; -EMSGSIZE: request or answer too
 * long; -ENAMETOOLONG: path; -ENOENT or -ECONNREFUSED: no daemon; -EACCES; -ETIMEDOUT;
 * -EPIPE: the daemon closed the connection without a whole answer; -ENOMEM; or
 * another -errno of the socket
 */
int ghostnic_request(const char *path, const char *request, int timeout_ms,
		     char **answer);

/**
 * ghostnic_request_fds() - the same for answers that bring descriptors
 * @fds:	[@max] set on success to what came, close-on-exec; the caller closes them
 * @nfds:	set on success to their number
 *
 * Return: as ghostnic_request(); -EMSGSIZE also: more than @max came
 */
int ghostnic_request_fds(const char *path, const char *request, int timeout_ms,
			 char **answer, int *fds, unsigned int max, unsigned int *nfds);

/*
 * The client of a shared-memory port (port=shm:SOCKET), and of a capture.
 *
 * A port has a queue per worker of the daemon. Each queue is used by one thread at a
 * time; different queues may be used by different threads at once. connect, capture and
 * close have the port to themselves. man ghostnic_port(3) has an example.
 */
#define GHOSTNIC_PORT_MAX_IOV	128   /* pieces of one packet */
#define GHOSTNIC_PORT_MAX_FRAME 65557 /* bytes to send, without virtio-net header */

struct ghostnic_port;

struct ghostnic_port_info {
	unsigned int queues;
	unsigned int mtu;     /* of the interface, bytes */
	unsigned char mac[6]; /* of the instance */
	unsigned short vlan;  /* of the instance; its frames are untagged here */
	unsigned int max_iov; /* pieces of one packet */
};

/* A packet that was received: borrowed until it is released. */
struct ghostnic_packet {
	const struct iovec *iov; /* [niov] its bytes, to be read only */
	unsigned int niov;
	uint32_t len;		     /* bytes in iov */
	uint32_t wire_len;	     /* bytes it has; more than len if cut (capture) */
	uint32_t id;		     /* for ghostnic_port_release() */
	uint32_t flow;		     /* flow identifier, 0: none */
	uint64_t time_ns;	     /* CLOCK_REALTIME of the burst it came in */
	struct virtio_net_hdr_v1 vh; /* offloads; little-endian fields */
	unsigned short packets;	     /* packets of the wire in it; 0: a local frame */
	unsigned short flags;	     /* GHOSTNIC_PACKET_* */
};

#define GHOSTNIC_PACKET_OUT (1U << 1) /* capture: the instance sent it */

/**
 * ghostnic_port_connect() - become the client of a port
 * @path:	its socket
 * @timeout_ms:	for each step; below 0: GHOSTNIC_TIMEOUT_MS
 * @port:	set on success; ghostnic_port_close() frees it
 *
 * Return: 0; -ENOENT or -ECONNREFUSED: no daemon; -EBUSY: another client has the port;
 * -EACCES; -EPROTO: the daemon has another ABI; -ETIMEDOUT; -ENOMEM; another -errno
 */
int ghostnic_port_connect(const char *path, int timeout_ms, struct ghostnic_port **port);

#define GHOSTNIC_CAPTURE_SEGMENTS (1U << 0) /* cut super-packets into packets */

/**
 * ghostnic_capture() - receive copies of all frames to and from an instance
 * @ctl:	the daemon's control socket; NULL: ghostnic_socket(NULL)
 * @iface:	interface of the instance; NULL or "": the daemon's only one
 * @instance:	its name
 * @snaplen:	bytes of each frame to copy, > 0
 * @flags:	GHOSTNIC_CAPTURE_*
 * @timeout_ms, @port: as for ghostnic_port_connect()
 *
 * Return: as ghostnic_port_connect(); -ENODEV: no such instance; -EBUSY: it is being
 * captured already
 */
int ghostnic_capture(const char *ctl, const char *iface, const char *instance,
		     uint32_t snaplen, unsigned int flags, int timeout_ms,
		     struct ghostnic_port **port);

/** ghostnic_port_close() - give everything back; NULL is fine */
void ghostnic_port_close(struct ghostnic_port *port);

/** ghostnic_port_get_info() - valid until the port is closed */
const struct ghostnic_port_info *ghostnic_port_get_info(const struct ghostnic_port *port);

/**
 * ghostnic_port_receive() - next packets, without waiting, without a system call
 * @queue:	below info.queues
 * @pkt:	[@n] filled
 * @iov:	[@niov] where the packets' pieces are listed; to be left alone until
 *		they are released
 *
 * Return: number of packets, 0: none now; -ENOBUFS: the next one has more than @niov
 * pieces; -EPROTO: the daemon wrote nonsense
 */
int ghostnic_port_receive(struct ghostnic_port *port, unsigned int queue,
			  struct ghostnic_packet *pkt, unsigned int n, struct iovec *iov,
			  unsigned int niov);

/** ghostnic_port_release() - give packets back, in any order; each once */
void ghostnic_port_release(struct ghostnic_port *port, unsigned int queue,
			   const struct ghostnic_packet *pkt, unsigned int n);

/**
 * ghostnic_port_send() - queue a frame; ghostnic_port_flush() sends it
 * @vh:		offloads the frame asks for; NULL: none
 * @iov:	[@niov] its bytes, from the Ethernet header on, untagged; copied
 *
 * Return: 0; -EAGAIN: no room now; -EMSGSIZE: empty or longer than
 * GHOSTNIC_PORT_MAX_FRAME; -EOPNOTSUPP: a capture; -EPROTO
 */
int ghostnic_port_send(struct ghostnic_port *port, unsigned int queue,
		       const struct virtio_net_hdr_v1 *vh, const struct iovec *iov,
		       unsigned int niov);

/** ghostnic_port_flush() - let the daemon see what was queued since the last flush */
void ghostnic_port_flush(struct ghostnic_port *port, unsigned int queue);

/** ghostnic_port_fd() - descriptor to poll for reading after ghostnic_port_arm() */
int ghostnic_port_fd(const struct ghostnic_port *port, unsigned int queue);

/**
 * ghostnic_port_arm() - ask to be woken when there is something to receive
 *
 * Return: 0: wait for the descriptor; 1: there is something already; -EPIPE: the port
 * is lost, and what was received from it must not be read any more
 */
int ghostnic_port_arm(struct ghostnic_port *port, unsigned int queue);

/**
 * ghostnic_port_wait() - wait until there is something to receive
 * @timeout_ms:	0: look only; below 0: for ever
 *
 * Return: 1: there is, 0: the time is up, -EINTR, -EPIPE: the port is lost
 */
int ghostnic_port_wait(struct ghostnic_port *port, unsigned int queue, int timeout_ms);

/** ghostnic_port_lost() - packets dropped so far because this client was too slow */
uint64_t ghostnic_port_lost(const struct ghostnic_port *port);

#ifdef __cplusplus
}
#endif

#endif
