// SPDX-License-Identifier: BSD-2-Clause
/*
 * shm_peer: what a test puts behind a shared-memory port.
 *
 *	shm_peer SOCKET tap DEV		a network stack: frames go to and from a TAP device
 *	shm_peer SOCKET info		print address, VLAN, MTU and queues
 *	shm_peer SOCKET hoard		take packets, give none back, until the port is lost
 *	shm_peer SOCKET twice		give one packet back twice, until the port is lost
 *	shm_peer SOCKET jump		claim to have given back more than there is
 *	shm_peer ADDRESS flood		no port: some 5000 UDP datagrams a second to ADDRESS
 *	shm_peer SOCKET write		try to write to the packet memory in every way
 *
 * "ready" on standard output when connected. Exit status: 0: as expected, 1: not, 3: no
 * port. tap connects again whenever it loses the port. One thread per queue in tap.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../user/lib/ghostnic.h"
#include "../../user/lib/shm_abi.h"

#define BATCH 32

static struct ghostnic_port *port;
static int tap_fd;

static int tap_open(const char *dev)
{
	const int len = sizeof(struct virtio_net_hdr_v1);
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%.15s", dev);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) || ioctl(fd, TUNSETVNETHDRSZ, &len) ||
	    ioctl(fd, TUNSETOFFLOAD,
		  TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN)) {
		perror(dev);
		exit(1);
	}
	return fd;
}

/* Frames of the port into the TAP. */
static int to_tap(unsigned int queue)
{
	struct iovec iov[BATCH * GHOSTNIC_PORT_MAX_IOV];
	struct ghostnic_packet pkt[BATCH];
	int n = ghostnic_port_receive(port, queue, pkt, BATCH, iov,
				      BATCH * GHOSTNIC_PORT_MAX_IOV);

	for (int i = 0; i < n; i++) {
		struct iovec v[GHOSTNIC_PORT_MAX_IOV + 1] = { { &pkt[i].vh,
								sizeof(pkt[i].vh) } };

		memcpy(v + 1, pkt[i].iov, pkt[i].niov * sizeof(*v));
		if (writev(tap_fd, v, (int)pkt[i].niov + 1) < 0 && errno != EAGAIN &&
		    errno != EIO)
			fprintf(stderr, "tap: %s, %u bytes, gso %u of %u\n",
				strerror(errno), pkt[i].len, pkt[i].vh.gso_type,
				pkt[i].vh.gso_size);
	}
	if (n > 0)
		ghostnic_port_release(port, queue, pkt, (unsigned int)n);
	return n;
}

/* Frames of the TAP into the port; held back when it has no room. */
static void from_tap(unsigned int queue)
{
	static uint8_t frame[GHOSTNIC_PORT_MAX_FRAME];
	static ssize_t held;
	static struct virtio_net_hdr_v1 vh;

	for (int i = 0; i < BATCH; i++) {
		struct iovec in[2] = { { &vh, sizeof(vh) }, { frame, sizeof(frame) } };
		ssize_t n = held ? held : readv(tap_fd, in, 2) - (ssize_t)sizeof(vh);
		struct iovec out = { frame, (size_t)n };

		if (n <= 0)
			break;
		held = ghostnic_port_send(port, queue, &vh, &out, 1) == -EAGAIN ? n : 0;
		if (held)
			break;
	}
	ghostnic_port_flush(port, queue);
}

/* Queue 0 sends, too. Return: when the port is lost */
static void *run_queue(void *arg)
{
	unsigned int queue = (unsigned int)(uintptr_t)arg;
	struct pollfd p[2] = { { ghostnic_port_fd(port, queue), POLLIN, 0 },
			       { queue ? -1 : tap_fd, POLLIN, 0 } };
	int r;

	for (;;) {
		while ((r = to_tap(queue)) > 0)
			if (!queue)
				from_tap(queue);
		if (r < 0 || (r = ghostnic_port_arm(port, queue)) < 0)
			return NULL;
		poll(p, 2, r ? 0 : 1000);
		if (!queue)
			from_tap(queue);
	}
}

static _Noreturn void run_tap(const char *path, const char *dev)
{
	tap_fd = tap_open(dev);
	for (;;) {
		pthread_t thread[64];
		unsigned int n;

		while (ghostnic_port_connect(path, -1, &port))
			poll(NULL, 0, 20);
		n = ghostnic_port_get_info(port)->queues;
		puts("ready");
		fflush(stdout);
		for (unsigned int q = 1; q < n; q++)
			pthread_create(&thread[q], NULL, run_queue, (void *)(uintptr_t)q);
		run_queue(NULL);
		for (unsigned int q = 1; q < n; q++)
			pthread_join(thread[q], NULL);
		ghostnic_port_close(port);
	}
}

/* The port's memory, found as a hostile client finds it: in its own maps. */
static uint8_t *find_map(const char *name, size_t *size)
{
	char line[512];
	FILE *f = fopen("/proc/self/maps", "r");

	while (f && fgets(line, sizeof(line), f)) {
		uintptr_t a, b;

		if (!strstr(line, name) || sscanf(line, "%lx-%lx", &a, &b) != 2)
			continue;
		fclose(f);
		*size = b - a;
		return (uint8_t *)a;
	}
	exit(1);
}

/* Receive and do @what with each packet until the port is lost. */
static int misbehave(const char *what)
{
	struct iovec iov[GHOSTNIC_PORT_MAX_IOV];
	struct ghostnic_packet pkt;
	unsigned long n = 0;

	for (;;) {
		int r = ghostnic_port_receive(port, 0, &pkt, 1, iov,
					      GHOSTNIC_PORT_MAX_IOV);

		if (r == 1) {
			n++;
			if (!strcmp(what, "twice")) {
				ghostnic_port_release(port, 0, &pkt, 1);
				ghostnic_port_release(port, 0, &pkt, 1);
			} else if (!strcmp(what, "jump")) {
				size_t size;
				struct gn_shm_ctl *c =
					(void *)find_map("ghostnic-shm", &size);

				c->ret_prod += 100000;
			}
			continue;
		}
		if (ghostnic_port_wait(port, 0, 1000) < 0) {
			printf("lost the port after %lu packets\n", n);
			return 0;
		}
	}
}

/* No way to the packet memory but reading. Also for root. Return: 0: none was found */
static int try_write(void)
{
	size_t size;
	uint8_t *mem = find_map("ghostnic-umem", &size);
	char path[64];
	int fd, rc = 0;
	void *p;

	if (!mprotect(mem, 4096, PROT_READ | PROT_WRITE))
		rc = puts("mprotect() made it writable");
	/* The file behind the mapping, opened again. */
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (uintptr_t)mem,
		 (uintptr_t)mem + size);
	fd = open(path, O_RDWR);
	if (fd < 0) {
		printf("%s: %s\n", path, strerror(errno));
		return 1;
	}
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p != MAP_FAILED)
		rc = puts("a new mapping is writable");
	if (pwrite(fd, "x", 1, 0) >= 0)
		rc = puts("pwrite() works");
	if (!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096))
		rc = puts("fallocate() works");
	if (!ftruncate(fd, 0))
		rc = puts("ftruncate() works");
	if (!madvise(mem, 4096, MADV_REMOVE))
		rc = puts("madvise() works");
	return rc ? 1 : 0;
}

static int print_info(const struct ghostnic_port_info *i)
{
	for (int n = 0; n < 6; n++)
		printf("%02x%c", i->mac[n], n < 5 ? ':' : ' ');
	printf("vlan %u mtu %u queues %u\n", i->vlan, i->mtu, i->queues);
	return 0;
}

static _Noreturn void flood(const char *address)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9) };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	char data[1000] = { 0 };

	if (fd < 0 || inet_pton(AF_INET, address, &to.sin_addr) != 1)
		exit(1);
	for (;;) {
		for (int i = 0; i < 10; i++)
			sendto(fd, data, sizeof(data), 0, (struct sockaddr *)&to,
			       sizeof(to));
		poll(NULL, 0, 2);
	}
}

int main(int argc, char **argv)
{
	int err;

	if (argc < 3)
		return 2;
	if (argc == 4 && !strcmp(argv[2], "tap"))
		run_tap(argv[1], argv[3]);
	if (!strcmp(argv[2], "flood"))
		flood(argv[1]);
	err = ghostnic_port_connect(argv[1], -1, &port);
	if (err) {
		printf("%s: %s\n", argv[1], strerror(-err));
		return 3;
	}
	if (!strcmp(argv[2], "info"))
		return print_info(ghostnic_port_get_info(port));
	puts("ready");
	fflush(stdout);
	return strcmp(argv[2], "write") ? misbehave(argv[2]) : try_write();
}
