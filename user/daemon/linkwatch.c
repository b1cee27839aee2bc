// SPDX-License-Identifier: BSD-2-Clause
/* linkwatch: rtnetlink link messages. Contract in linkwatch.h; control thread. */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "linkwatch.h"
#include "../lib/log.h"

struct linkwatch {
	struct daemon *d;
	struct loop_watch *watch;
	int fd;
};

static struct iface *find(const struct daemon *d, int ifindex)
{
	for (unsigned int i = 0; i < d->nifaces; i++)
		if ((int)d->iface[i]->ifindex == ifindex)
			return d->iface[i];
	return NULL;
}

/* IFLA_MTU of a link message, or 0. */
static uint32_t link_mtu(const struct nlmsghdr *h)
{
	const struct ifinfomsg *ifi = NLMSG_DATA(h);
	int len = (int)IFLA_PAYLOAD(h);
	uint32_t mtu = 0;

	for (const struct rtattr *a = IFLA_RTA(ifi); RTA_OK(a, len); a = RTA_NEXT(a, len))
		if (a->rta_type == IFLA_MTU && RTA_PAYLOAD(a) == sizeof(mtu))
			memcpy(&mtu, RTA_DATA(a), sizeof(mtu));
	return mtu;
}

static void handle(struct linkwatch *w, const struct nlmsghdr *h)
{
	const struct ifinfomsg *ifi = NLMSG_DATA(h);
	struct iface *i;
	uint32_t mtu;
	bool up;

	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*ifi)))
		return;
	i = find(w->d, ifi->ifi_index);
	/* Bridges send messages of their own about their ports. */
	if (!i || ifi->ifi_family != AF_UNSPEC)
		return;
	if (h->nlmsg_type == RTM_DELLINK) {
		log_err("%s: the interface is gone: when it is back, run `ghostnic "
			"attach %s` and restart ghostnicd",
			i->name, i->name);
		i->link = LINK_GONE;
		iface_tell_link(i);
		return;
	}
	up = ifi->ifi_flags & IFF_UP && ifi->ifi_flags & IFF_RUNNING;
	if (h->nlmsg_type != RTM_NEWLINK)
		return;
	/* The first message may be about anything: only "down" is news then. */
	if (i->link == LINK_UNKNOWN ? !up : up != (i->link == LINK_UP))
		log_info("%s: link is %s", i->name, up ? "up" : "down");
	i->link = up ? LINK_UP : LINK_DOWN;
	iface_tell_link(i);
	mtu = link_mtu(h);
	if (mtu && mtu != i->mtu && mtu != i->mtu_seen)
		log_warn("%s: MTU is %u now; frames longer than with %u go to the host "
			 "until it is attached again and ghostnicd restarted",
			 i->name, mtu, i->mtu);
	i->mtu_seen = mtu;
}

static void on_message(void *arg, uint32_t events)
{
	struct linkwatch *w = arg;
	char buf[8192] __attribute__((aligned(NLMSG_ALIGNTO)));
	ssize_t n = recv(w->fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n < 0)
		return; /* messages were lost: the next one tells the state */
	for (struct nlmsghdr *h = (void *)buf; NLMSG_OK(h, (size_t)n);
	     h = NLMSG_NEXT(h, n))
		handle(w, h);
}

int linkwatch_open(struct daemon *d, struct linkwatch **out)
{
	const struct sockaddr_nl addr = { .nl_family = AF_NETLINK,
					  .nl_groups = RTMGRP_LINK };
	struct linkwatch *w = calloc(1, sizeof(*w));
	int err;

	if (!w)
		return -ENOMEM;
	w->d = d;
	w->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (w->fd < 0) {
		err = -errno;
		goto free_watch;
	}
	if (bind(w->fd, (const struct sockaddr *)&addr, sizeof(addr))) {
		err = -errno;
		goto close_fd;
	}
	err = loop_watch(d->loop, w->fd, EPOLLIN, on_message, w, &w->watch);
	if (err)
		goto close_fd;
	*out = w;
	return 0;
close_fd:
	close(w->fd);
free_watch:
	free(w);
	return err;
}

void linkwatch_close(struct linkwatch *w)
{
	if (!w)
		return;
	loop_unwatch(w->d->loop, w->watch);
	close(w->fd);
	free(w);
}
