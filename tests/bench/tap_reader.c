// SPDX-License-Identifier: BSD-2-Clause
/*
 * Reader of super-packets with virtio-net headers, as a VM's device model would be.
 *
 *	tap_reader --tap DEV [COMMON]		makes the TAP, reads it
 *	tap_reader --packet DEV ...				AF_PACKET on a device
 *
 * --tap is the kernel's own path: what the bridge sends out of DEV arrives here, with
 * the header that vhost-net would see. --packet looks at the far side of a TAP
 * that another process feeds (ghostnicd), after the same number of hops.
 *
 * Sleeps when there is nothing to read. Prints one JSON line, see bench_print(): segments
 * are counted as packets with their own headers, as they were on the wire.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <arpa/inet.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>

#include "bench.h"
#include "meter.h"

#define TAP_VNET_LEN	12 /* struct virtio_net_hdr_mrg_rxbuf */
#define PACKET_VNET_LEN 10 /* struct virtio_net_hdr */
#define BUF_SIZE	(TAP_VNET_LEN + 65536 + 64)

static int set_up(const char *dev)
{
	struct ifreq ifr = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), err = 0;

	if (fd < 0)
		return -errno;
	strncpy(ifr.ifr_name, dev, IFNAMSIZ - 1);
	if (ioctl(fd, SIOCGIFFLAGS, &ifr))
		err = -errno;
	ifr.ifr_flags |= IFF_UP;
	if (!err && ioctl(fd, SIOCSIFFLAGS, &ifr))
		err = -errno;
	close(fd);
	return err;
}

/* Return: descriptor, -errno */
static int open_tap(const char *dev)
{
	unsigned int offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	int len = TAP_VNET_LEN, err;

	if (fd < 0)
		return -errno;
	strncpy(ifr.ifr_name, dev, IFNAMSIZ - 1);
	if (ioctl(fd, TUNSETIFF, &ifr) || ioctl(fd, TUNSETVNETHDRSZ, &len) ||
	    ioctl(fd, TUNSETOFFLOAD, offloads)) {
		err = -errno;
		close(fd);
		return err;
	}
	err = set_up(dev);
	if (err) {
		close(fd);
		return err;
	}
	return fd;
}

/* Return: descriptor, -errno */
static int open_packet(const char *dev)
{
	struct sockaddr_ll sll = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_IP),
		.sll_ifindex = (int)if_nametoindex(dev),
	};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1, room = 32 << 20, err;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) ||
	    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) ||
	    bind(fd, (struct sockaddr *)&sll, sizeof(sll))) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

/* Count one frame with its virtio-net header. Return: segments of the generator in it. */
static unsigned int count(uint8_t *buf, size_t len, size_t vnet_len,
			  struct bench_result *res, struct bench_lat *lat)
{
	const struct virtio_net_hdr *vh = (const struct virtio_net_hdr *)buf;
	struct iovec iov = { buf + vnet_len, len - vnet_len };

	if (len < vnet_len) {
		res->bad++;
		return 0;
	}
	return frame_count(&iov, 1,
			   vh->gso_type == VIRTIO_NET_HDR_GSO_NONE ? 0 : vh->gso_size,
			   res, lat, bench_now());
}

static int read_all(int fd, size_t vnet_len, struct bench_window *win,
		    struct bench_result *res, struct bench_lat *lat)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	enum bench_state st = BENCH_BEFORE;
	static uint8_t buf[BUF_SIZE];

	while (st != BENCH_DONE && !bench_stop) {
		ssize_t len = read(fd, buf, sizeof(buf));
		unsigned int n = 0;

		if (len > 0)
			n = count(buf, (size_t)len, vnet_len, res, lat);
		else if (len < 0 && errno == EAGAIN)
			poll(&pfd, 1, 20);
		else if (len < 0 && errno != EINTR)
			return -errno;
		st = bench_window_state(win, n);
		if (st == BENCH_BEGIN) {
			memset(res, 0, sizeof(*res));
			lat->n = 0;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "tap", required_argument, NULL, 't' },
		{ "packet", required_argument, NULL, 'p' },
		{ "seconds", required_argument, NULL, 's' },
		{ "warmup", required_argument, NULL, 'w' },
		{ "busy", required_argument, NULL, 'B' },
		{ "subject", required_argument, NULL, 'n' },
		{ 0 },
	};
	const char *tap = NULL, *packet = NULL, *subject = "kernel-gro-tap";
	double seconds = 1, warmup = 0.3;
	int busy_cpu = -1;
	struct bench_result res = { 0 };
	struct bench_window win;
	struct bench_lat lat;
	int o, fd, err;

	while ((o = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (o) {
		case 't': tap = optarg; break;
		case 'p': packet = optarg; break;
		case 's': seconds = atof(optarg); break;
		case 'w': warmup = atof(optarg); break;
		case 'B': busy_cpu = atoi(optarg); break;
		case 'n': subject = optarg; break;
		default: return 2;
		}
	}
	if (!tap == !packet) {
		fprintf(stderr,
			"tap_reader: one of --tap DEV and --packet DEV is needed\n");
		return 2;
	}
	fd = tap ? open_tap(tap) : open_packet(packet);
	if (fd < 0) {
		fprintf(stderr, "tap_reader: cannot open %s: %s\n", tap ? tap : packet,
			strerror(-fd));
		return 1;
	}
	err = bench_lat_init(&lat);
	if (err)
		goto close;
	bench_signals();
	err = busy_cpu >= 0 ? bench_busy_start((unsigned int)busy_cpu) : 0;
	if (err)
		goto close;
	fprintf(stderr, "ready\n");
	bench_window_init(&win, warmup, seconds);
	err = read_all(fd, tap ? TAP_VNET_LEN : PACKET_VNET_LEN, &win, &res, &lat);
	if (err)
		fprintf(stderr, "tap_reader: read: %s\n", strerror(-err));
	bench_print(subject, &win, &res, &lat);
	free(lat.ns);
close:
	close(fd);
	return err ? 1 : 0;
}
