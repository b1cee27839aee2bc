// SPDX-License-Identifier: BSD-2-Clause
/*
 * The process behind a shared-memory port: reads packets in place, sleeps when there
 * are none.
 *
 *	shm_client --shm SOCKET [--subject NAME]
 *
 * It reads of each packet the headers and of each segment the time stamp, as the
 * front end in vm_client.c does. Prints a line on each SIGUSR1, see meter.h.
 */
#include <endian.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "meter.h"
#include "../../user/lib/ghostnic.h"

#define BURST  64
#define NIOV   (BURST * GHOSTNIC_PORT_MAX_IOV)
#define NAP_MS 10

/* Return: packets received from @queue, -errno */
static int receive(struct ghostnic_port *port, unsigned int queue, struct meter *m)
{
	static struct ghostnic_packet pkt[BURST];
	static struct iovec iov[NIOV];
	int n = ghostnic_port_receive(port, queue, pkt, BURST, iov, NIOV);
	uint64_t now;

	if (n <= 0)
		return n;
	now = bench_now();
	meter_arrived(m, now);
	for (int i = 0; i < n; i++)
		frame_count(pkt[i].iov, pkt[i].niov,
			    pkt[i].vh.gso_type ? le16toh(pkt[i].vh.gso_size) : 0, &m->res,
			    &m->lat, now);
	ghostnic_port_release(port, queue, pkt, (unsigned int)n);
	return n;
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "shm", required_argument, NULL, 's' },
		{ "subject", required_argument, NULL, 'n' },
		{ 0 },
	};
	const char *path = NULL, *subject = "ghostnic-shm";
	struct ghostnic_port *port;
	struct meter m;
	int o, n;

	while ((o = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (o) {
		case 's': path = optarg; break;
		case 'n': subject = optarg; break;
		default: return 2;
		}
	}
	if (!path) {
		fprintf(stderr, "shm_client: --shm SOCKET is needed\n");
		return 2;
	}
	n = meter_init(&m, subject);
	if (!n)
		n = ghostnic_port_connect(path, -1, &port);
	if (n) {
		fprintf(stderr, "shm_client: %s: %s\n", path, strerror(-n));
		return 1;
	}
	/* The generator's interface has one queue. */
	fprintf(stderr, "ready\n");
	while (!bench_stop) {
		n = receive(port, 0, &m);
		if (!n) {
			meter_idle(&m);
			n = ghostnic_port_wait(port, 0, NAP_MS);
		}
		if (n < 0 && n != -EINTR)
			break;
		n = 0;
	}
	if (n < 0)
		fprintf(stderr, "shm_client: %s\n", strerror(-n));
	fprintf(stderr, "lost at the port: %llu\n",
		(unsigned long long)ghostnic_port_lost(port));
	ghostnic_port_close(port);
	meter_fini(&m);
	return n < 0 ? 1 : 0;
}
