// SPDX-License-Identifier: BSD-2-Clause
/*
 * link: rtnetlink RTM_GETLINK and the ethtool ioctl. See link.h.
 */
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "link.h"

#define MAX_FEATURES 1024 /* more than any kernel has */

/* ---- rtnetlink ------------------------------------------------------------ */

struct request {
	struct nlmsghdr nh;
	struct ifinfomsg ifi;
	char attr[64];
};

static void add_attr(struct request *r, unsigned short type, const void *data, size_t len)
{
	size_t off = NLMSG_ALIGN(r->nh.nlmsg_len);
	struct rtattr *a = (struct rtattr *)((char *)r + off);

	a->rta_type = type;
	a->rta_len = (unsigned short)RTA_LENGTH(len);
	memcpy(RTA_DATA(a), data, len);
	r->nh.nlmsg_len = (uint32_t)(off + RTA_ALIGN(a->rta_len));
}

static uint32_t attr_u32(const struct rtattr *a)
{
	uint32_t v = 0;

	if (RTA_PAYLOAD(a) >= sizeof(v))
		memcpy(&v, RTA_DATA(a), sizeof(v));
	return v;
}

static void attr_str(const struct rtattr *a, char *buf, size_t size)
{
	size_t len = RTA_PAYLOAD(a);

	if (len >= size)
		len = size - 1;
	memcpy(buf, RTA_DATA(a), len);
	buf[len] = '\0';
}

/* What one answer carries; the peer's answer is read by the same parser. */
struct answer {
	struct link_info l;
	bool has_netnsid;
	int32_t netnsid;
};

static void parse_link(const struct nlmsghdr *nh, struct answer *out)
{
	const struct ifinfomsg *ifi = NLMSG_DATA(nh);
	const struct rtattr *a, *b;
	int len = (int)IFLA_PAYLOAD(nh), blen;

	*out = (struct answer){ .netnsid = -1 };
	out->l.ifindex = (unsigned int)ifi->ifi_index;
	out->l.up = ifi->ifi_flags & IFF_UP;
	for (a = IFLA_RTA(ifi); RTA_OK(a, len); a = RTA_NEXT(a, len)) {
		switch (a->rta_type & NLA_TYPE_MASK) {
		case IFLA_IFNAME: attr_str(a, out->l.name, sizeof(out->l.name)); break;
		case IFLA_MTU: out->l.mtu = attr_u32(a); break;
		case IFLA_LINK: out->l.peer_ifindex = attr_u32(a); break;
		case IFLA_LINK_NETNSID:
			out->has_netnsid = true;
			out->netnsid = (int32_t)attr_u32(a);
			break;
		case IFLA_LINKINFO:
			b = RTA_DATA(a);
			blen = (int)RTA_PAYLOAD(a);
			for (; RTA_OK(b, blen); b = RTA_NEXT(b, blen))
				if (b->rta_type == IFLA_INFO_KIND)
					attr_str(b, out->l.kind, sizeof(out->l.kind));
			break;
		}
	}
}

/* Ask for one link, by name, or by index in the namespace @netnsid (-1: ours). */
static int query_link(const char *name, uint32_t ifindex, int32_t netnsid,
		      struct answer *out)
{
	struct request r = {
		.nh = { .nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
			.nlmsg_type = RTM_GETLINK,
			.nlmsg_flags = NLM_F_REQUEST },
		.ifi = { .ifi_family = AF_UNSPEC, .ifi_index = (int)ifindex },
	};
	union {
		struct nlmsghdr nh;
		char bytes[32768];
	} buf;
	ssize_t n;
	int fd, err;

	if (name)
		add_attr(&r, IFLA_IFNAME, name, strlen(name) + 1);
	if (netnsid >= 0)
		add_attr(&r, IFLA_TARGET_NETNSID, &netnsid, sizeof(netnsid));
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0)
		return -errno;
	err = -EPROTO;
	if (send(fd, &r, r.nh.nlmsg_len, 0) < 0 ||
	    (n = recv(fd, &buf, sizeof(buf), 0)) < 0) {
		err = -errno;
		goto out;
	}
	if (!NLMSG_OK(&buf.nh, (size_t)n))
		goto out;
	if (buf.nh.nlmsg_type == NLMSG_ERROR &&
	    buf.nh.nlmsg_len >= NLMSG_LENGTH(sizeof(struct nlmsgerr))) {
		const struct nlmsgerr *e = NLMSG_DATA(&buf.nh);

		err = e->error < 0 ? e->error : -EPROTO;
	} else if (buf.nh.nlmsg_type == RTM_NEWLINK &&
		   buf.nh.nlmsg_len >= NLMSG_LENGTH(sizeof(struct ifinfomsg))) {
		parse_link(&buf.nh, out);
		err = 0;
	}
out:
	close(fd);
	return err;
}

/* ---- ethtool -------------------------------------------------------------- */

static int ethtool_ioctl(const char *ifname, void *data)
{
	struct ifreq ifr = { .ifr_data = data };
	int fd, err = 0;

	strncpy(ifr.ifr_name, ifname, IFNAMSIZ - 1);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (ioctl(fd, SIOCETHTOOL, &ifr))
		err = -errno;
	close(fd);
	return err;
}

static void queue_counts(const char *ifname, uint32_t *rx, uint32_t *tx)
{
	struct ethtool_channels ch = { .cmd = ETHTOOL_GCHANNELS };

	*rx = *tx = 0;
	if (ethtool_ioctl(ifname, &ch))
		return;
	*rx = ch.rx_count + ch.combined_count;
	*tx = ch.tx_count + ch.combined_count;
}

static const struct {
	const char *kernel, *ethtool, *why;
} feature[LINK_FEAT_MAX] = {
#define LINK_FEATURE_ROW(id, k, e, w) [LINK_FEAT_##id] = { k, e, w },
	LINK_FEATURES(LINK_FEATURE_ROW)
#undef LINK_FEATURE_ROW
};

const char *link_feature_name(enum link_feature f)
{
	return feature[f].ethtool;
}

const char *link_feature_why(enum link_feature f)
{
	return feature[f].why;
}

/* The kernel numbers features differently in every release; names are stable. */
struct feature_names {
	uint32_t n;
	struct ethtool_gstrings *s;
};

static int count_get(const char *ifname, uint32_t *n)
{
	struct ethtool_sset_info *info = calloc(1, sizeof(*info) + sizeof(*n));
	int err;

	if (!info)
		return -ENOMEM;
	info->cmd = ETHTOOL_GSSET_INFO;
	info->sset_mask = 1ULL << ETH_SS_FEATURES;
	err = ethtool_ioctl(ifname, info);
	if (!err && (!info->sset_mask || info->data[0] > MAX_FEATURES))
		err = -EOPNOTSUPP;
	if (!err)
		*n = info->data[0];
	free(info);
	return err;
}

static int names_get(const char *ifname, struct feature_names *out)
{
	struct ethtool_gstrings *s;
	uint32_t n;
	int err;

	err = count_get(ifname, &n);
	if (err)
		return err;
	s = calloc(1, sizeof(*s) + (size_t)n * ETH_GSTRING_LEN);
	if (!s)
		return -ENOMEM;
	s->cmd = ETHTOOL_GSTRINGS;
	s->string_set = ETH_SS_FEATURES;
	s->len = n;
	err = ethtool_ioctl(ifname, s);
	if (err) {
		free(s);
		return err;
	}
	*out = (struct feature_names){ n, s };
	return 0;
}

/* Number of the feature with the kernel's name @name, or -1. */
static int name_find(const struct feature_names *fn, const char *name)
{
	uint32_t i;

	for (i = 0; i < fn->n; i++)
		if (!strncmp((const char *)fn->s->data + (size_t)i * ETH_GSTRING_LEN,
			     name, ETH_GSTRING_LEN))
			return (int)i;
	return -1;
}

static int features_read(const char *ifname, const struct feature_names *fn,
			 struct ethtool_gfeatures **out)
{
	uint32_t blocks = (fn->n + 31) / 32;
	struct ethtool_gfeatures *g;
	int err;

	g = calloc(1, sizeof(*g) + blocks * sizeof(g->features[0]));
	if (!g)
		return -ENOMEM;
	g->cmd = ETHTOOL_GFEATURES;
	g->size = blocks;
	err = ethtool_ioctl(ifname, g);
	if (err) {
		free(g);
		return err;
	}
	*out = g;
	return 0;
}

int link_features_get(const char *ifname, uint32_t *on, uint32_t *fixed)
{
	struct ethtool_gfeatures *g;
	struct feature_names fn;
	uint32_t active = 0, stuck = 0, f;
	int err;

	err = names_get(ifname, &fn);
	if (err)
		return err;
	err = features_read(ifname, &fn, &g);
	if (err)
		goto out;
	for (f = 0; f < LINK_FEAT_MAX; f++) {
		int i = name_find(&fn, feature[f].kernel);
		const struct ethtool_get_features_block *b;

		if (i < 0)
			continue;
		b = &g->features[i / 32];
		if (b->active >> (i % 32) & 1)
			active |= 1U << f;
		if (!(b->available >> (i % 32) & 1) || b->never_changed >> (i % 32) & 1)
			stuck |= 1U << f;
	}
	*on = active;
	*fixed = stuck;
	free(g);
out:
	free(fn.s);
	return err;
}

int link_features_set(const char *ifname, uint32_t mask, bool on)
{
	struct ethtool_sfeatures *s;
	struct feature_names fn;
	uint32_t f, now, fixed, blocks;
	int err;

	if (!mask)
		return 0;
	err = names_get(ifname, &fn);
	if (err)
		return err;
	blocks = (fn.n + 31) / 32;
	s = calloc(1, sizeof(*s) + blocks * sizeof(s->features[0]));
	err = -ENOMEM;
	if (!s)
		goto out;
	s->cmd = ETHTOOL_SFEATURES;
	s->size = blocks;
	for (f = 0; f < LINK_FEAT_MAX; f++) {
		int i = mask >> f & 1 ? name_find(&fn, feature[f].kernel) : -1;

		if (i < 0)
			continue;
		s->features[i / 32].valid |= 1U << (i % 32);
		if (on)
			s->features[i / 32].requested |= 1U << (i % 32);
	}
	err = ethtool_ioctl(ifname, s);
	free(s);
	/* The call succeeds also when the driver kept a feature as it was. */
	if (!err)
		err = link_features_get(ifname, &now, &fixed);
	if (!err && !on && now & mask)
		err = -EOPNOTSUPP;
out:
	free(fn.s);
	return err;
}

int link_txvlan_on(const char *ifname)
{
	struct ethtool_gfeatures *g;
	struct feature_names fn;
	int err, i;

	err = names_get(ifname, &fn);
	if (err)
		return err;
	i = name_find(&fn, "tx-vlan-hw-insert");
	err = i < 0 ? -EOPNOTSUPP : features_read(ifname, &fn, &g);
	if (!err) {
		err = g->features[i / 32].active >> (i % 32) & 1;
		free(g);
	}
	free(fn.s);
	return err;
}

/* ---- both ----------------------------------------------------------------- */

int link_get(const char *ifname, struct link_info *out)
{
	struct answer a, p;
	uint32_t unused;
	int err;

	if (!*ifname || strlen(ifname) >= IFNAMSIZ)
		return -ENODEV;
	err = query_link(ifname, 0, -1, &a);
	if (err)
		return err;
	queue_counts(a.l.name, &a.l.rx_queues, &a.l.tx_queues);
	if (strcmp(a.l.kind, "veth"))
		a.l.peer_ifindex = 0;
	a.l.peer_elsewhere = a.has_netnsid;
	/* A negative identifier: the kernel will not name that namespace to us. */
	if (a.l.peer_ifindex && !(a.has_netnsid && a.netnsid < 0) &&
	    !query_link(NULL, a.l.peer_ifindex, a.has_netnsid ? a.netnsid : -1, &p)) {
		memcpy(a.l.peer, p.l.name, sizeof(a.l.peer));
		a.l.peer_mtu = p.l.mtu;
		if (!a.has_netnsid)
			queue_counts(p.l.name, &unused, &a.l.peer_tx_queues);
	}
	*out = a.l;
	return 0;
}
