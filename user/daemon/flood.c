// SPDX-License-Identifier: BSD-2-Clause
/* flood: broadcast and multicast for the instances. Contract in flood.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "flood.h"
#include "stat.h"
#include "tx.h"

#define FLOOD_BURST 32 /* frames a call */

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23 /* kernel 4.20 */
#endif

/* Accept what came in by broadcast or multicast, and nothing else: the
 * host's unicast traffic is not copied to this socket at all. */
static const struct sock_filter multicast_only[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_PKTTYPE)),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_BROADCAST, 1, 0),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_MULTICAST, 0, 1),
	BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	BPF_STMT(BPF_RET | BPF_K, 0),
};

static int membership(int fd, unsigned int ifindex, int type, const uint8_t *mac, bool on)
{
	struct packet_mreq req = { .mr_ifindex = (int)ifindex,
				   .mr_type = (unsigned short)type };

	if (mac) {
		req.mr_alen = 6;
		memcpy(req.mr_address, mac, 6);
	}
	return setsockopt(fd, SOL_PACKET,
			  on ? PACKET_ADD_MEMBERSHIP : PACKET_DROP_MEMBERSHIP, &req,
			  sizeof(req))
		       ? -errno
		       : 0;
}

int flood_open(unsigned int ifindex)
{
	const struct sock_fprog prog = {
		.len = sizeof(multicast_only) / sizeof(multicast_only[0]),
		.filter = (struct sock_filter *)multicast_only,
	};
	const struct sockaddr_ll addr = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = (int)ifindex,
	};
	const int on = 1;
	/* Protocol 0: nothing arrives before the filter is there. */
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)) ||
	    bind(fd, (const struct sockaddr *)&addr, sizeof(addr))) {
		err = -errno;
		goto fail;
	}
	err = membership(fd, ifindex, PACKET_MR_ALLMULTI, NULL, true);
	if (err)
		goto fail;
	return fd;
fail:
	close(fd);
	return err;
}

int flood_set_mac(int fd, unsigned int ifindex, const uint8_t mac[6], bool on)
{
	return membership(fd, ifindex, PACKET_MR_UNICAST, mac, on);
}

/* VLAN of a received frame; the kernel has taken the tag off. */
static uint16_t aux_vlan(struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		struct tpacket_auxdata aux;

		if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA ||
		    c->cmsg_len < CMSG_LEN(sizeof(aux)))
			continue;
		memcpy(&aux, CMSG_DATA(c), sizeof(aux));
		return aux.tp_status & TP_STATUS_VLAN_VALID ? aux.tp_vlan_tci & 0xfff : 0;
	}
	return 0;
}

/* Frames that found the socket's buffer full since the last look. */
static void count_lost(struct worker *w)
{
	struct tpacket_stats st;
	socklen_t len = sizeof(st);

	/* Reading resets the kernel's counter. */
	if (!getsockopt(w->conf.flood_fd, SOL_PACKET, PACKET_STATISTICS, &st, &len))
		stat_add(&w->stats.flood_lost, st.tp_drops);
}

void flood_receive(struct worker *w)
{
	uint8_t frame[PORT_MAX_FRAME];
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(sizeof(struct tpacket_auxdata))];
	} control;

	for (int i = 0; i < FLOOD_BURST; i++) {
		struct virtio_net_hdr vh; /* without num_buffers: packet(7) */
		struct iovec iov[2] = { { &vh, sizeof(vh) }, { frame, sizeof(frame) } };
		struct msghdr msg = {
			.msg_iov = iov,
			.msg_iovlen = 2,
			.msg_control = &control,
			.msg_controllen = sizeof(control),
		};
		ssize_t n = recvmsg(w->conf.flood_fd, &msg, MSG_DONTWAIT);
		struct iovec payload;
		struct gso_frame f = { .iov = &payload, .niov = 1 };

		if (n < 0)
			break;
		if (n < (ssize_t)sizeof(vh) + 14 || msg.msg_flags & MSG_TRUNC)
			continue;
		memcpy(&f.vh, &vh, sizeof(vh));
		f.vh.num_buffers = 1;
		f.len = (uint32_t)n - sizeof(vh);
		payload = (struct iovec){ frame, f.len };
		stat_add(&w->stats.flood_frames, 1);
		tx_flood(w, aux_vlan(&msg), NULL, &f);
	}
	tx_settle(w);
	count_lost(w);
}
