// SPDX-License-Identifier: BSD-2-Clause
/*
 * preflight: checks before attach, explanations after a failure. See preflight.h.
 */
#include <cap-ng.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "preflight.h"

int preflight_gather(const char *ifname, struct facts *f)
{
	enum attach_mode mode = f->mode;
	struct utsname u;
	unsigned int major = 0, minor = 0;
	int err;

	*f = (struct facts){ .mode = mode, .peer_txvlan = -1 };
	capng_get_caps_process();
	f->cap_bpf = capng_have_capability(CAPNG_EFFECTIVE, CAP_BPF) ||
		     capng_have_capability(CAPNG_EFFECTIVE, CAP_SYS_ADMIN);
	f->cap_net_admin = capng_have_capability(CAPNG_EFFECTIVE, CAP_NET_ADMIN);
	if (!uname(&u))
		sscanf(u.release, "%u.%u", &major, &minor);
	f->kernel = major << 8 | minor;
	err = link_get(ifname, &f->link);
	if (err)
		return err;
	if (link_features_get(f->link.name, &f->features_on, &f->features_fixed))
		f->features_on = f->features_fixed = 0;
	if (f->link.peer_ifindex && !f->link.peer_elsewhere && f->link.peer[0])
		f->peer_txvlan = link_txvlan_on(f->link.peer);
	return 0;
}

const char *preflight_caps(const struct facts *f)
{
	if (!f->cap_bpf && !f->cap_net_admin)
		return "CAP_BPF and CAP_NET_ADMIN";
	if (!f->cap_bpf)
		return "CAP_BPF";
	return f->cap_net_admin ? "" : "CAP_NET_ADMIN";
}

__attribute__((format(printf, 2, 3))) static void note(struct verdict *v, const char *fmt,
						       ...)
{
	va_list ap;

	if (v->nnotes >= sizeof(v->note) / sizeof(v->note[0]))
		return;
	va_start(ap, fmt);
	vsnprintf(v->note[v->nnotes++], sizeof(v->note[0]), fmt, ap);
	va_end(ap);
}

/* Another program in the way. Return: true if so */
static bool check_busy(const struct facts *f, struct verdict *v)
{
	const struct xdp_state *x = &f->xdp;
	const char *ifname = f->link.name;
	const char *off = x->mode == XDP_MODE_SKB ? "xdpgeneric" : "xdp";

	switch (x->found) {
	case XDP_FOUND_FOREIGN:
		snprintf(v->error, sizeof(v->error),
			 "%s is busy: XDP program \"%s\" (id %u) is attached %s; "
			 "remove it: ip link set dev %s %s off",
			 ifname, x->name, x->main_id,
			 x->dispatcher ? "in a way libxdp does not know"
				       : "without libxdp's dispatcher",
			 ifname, off);
		return true;
	case XDP_FOUND_HIDDEN:
		snprintf(v->error, sizeof(v->error),
			 "%s is busy: a libxdp dispatcher (id %u) is attached whose pins "
			 "are "
			 "on another bpffs; name that one with --bpffs or " BPFFS_ENV
			 " and LIBXDP_BPFFS, or remove it: ip link set dev %s %s off",
			 ifname, x->main_id, ifname, off);
		return true;
	default: return false;
	}
}

void preflight_check(const struct facts *f, struct verdict *v)
{
	const struct link_info *l = &f->link;
	bool veth = !strcmp(l->kind, "veth");
	enum link_feature i;

	*v = (struct verdict){ 0 };
	if (check_busy(f, v))
		return;
	if (f->kernel < KERNEL_FRAGS && l->mtu > MTU_ONE_PAGE &&
	    f->mode != MODE_GENERIC) {
		snprintf(v->error, sizeof(v->error),
			 "the MTU of %s, %u, is too large: kernels before 5.18 need at "
			 "most "
			 "%u for XDP; run: ip link set dev %s mtu 1500, or use --mode "
			 "generic",
			 l->name, l->mtu, MTU_ONE_PAGE, l->name);
		return;
	}
	if (veth && f->mode != MODE_GENERIC && l->rx_queues && l->peer_tx_queues &&
	    l->rx_queues < l->peer_tx_queues) {
		snprintf(v->error, sizeof(v->error),
			 "%s has %u receive queues, fewer than the %u transmit queues of "
			 "its "
			 "peer %s; run: ethtool -L %s rx %u",
			 l->name, l->rx_queues, l->peer_tx_queues, l->peer, l->name,
			 l->peer_tx_queues);
		return;
	}
	for (i = 0; i < LINK_FEAT_MAX; i++) {
		if (!(f->features_on >> i & 1))
			continue;
		/* A veth hands over tags by its peer's setting, not its own. */
		if (i == LINK_FEAT_RXVLAN && veth)
			continue;
		if (!(f->features_fixed >> i & 1)) {
			v->switch_off |= 1U << i;
		} else if (i == LINK_FEAT_RXVLAN) {
			note(v,
			     "%s cannot switch off %s: frames with a VLAN tag stay with "
			     "the host",
			     l->name, link_feature_name(i));
		} else {
			snprintf(v->error, sizeof(v->error),
				 "%s has %s on and cannot switch it off: %s; use another "
				 "interface",
				 l->name, link_feature_name(i), link_feature_why(i));
			return;
		}
	}
	if (veth && f->peer_txvlan != 0)
		note(v,
		     "frames that the other end of %s tags hide their VLAN tag from XDP "
		     "unless its offload is off; for instances with a VLAN run there: "
		     "ethtool "
		     "-K %s txvlan off",
		     l->name, l->peer[0] ? l->peer : "PEER");
	if (!l->up)
		note(v, "%s is down; no frames come until: ip link set dev %s up",
		     l->name, l->name);
	if (l->rx_queues > GN_MAX_QUEUES)
		note(v,
		     "%s has %u receive queues; frames of instances on queues %u and up "
		     "stay with the host; run: ethtool -L %s combined %u",
		     l->name, l->rx_queues, GN_MAX_QUEUES, l->name, GN_MAX_QUEUES);
}

void preflight_explain(const struct facts *f, int err, const char *kernel_msg, char *buf,
		       size_t size)
{
	const struct link_info *l = &f->link;
	const char *dot = kernel_msg[0] ? "; the kernel says: " : "";
	char why[384];

	switch (err) {
	case -EPERM:
	case -EACCES:
		snprintf(why, sizeof(why),
			 "not permitted; run as root (the kernel wants CAP_BPF, "
			 "CAP_NET_ADMIN, CAP_PERFMON, and CAP_SYS_ADMIN to find programs "
			 "already attached)");
		break;
	case -EOPNOTSUPP:
		snprintf(why, sizeof(why),
			 "the driver of %s has no native XDP; use --mode "
			 "generic",
			 l->name);
		break;
	case -ERANGE:
		snprintf(why, sizeof(why),
			 "the MTU of %s or of its peer is too large for XDP "
			 "(it is %u); run: ip link set dev %s mtu 1500",
			 l->name, l->peer_mtu > l->mtu ? l->peer_mtu : l->mtu, l->name);
		break;
	case -ENOSPC:
		snprintf(why, sizeof(why),
			 "%s has too few receive queues (%u), a veth needs "
			 "as many as its peer %s has transmit queues; run: ethtool -L %s "
			 "rx N",
			 l->name, l->rx_queues, l->peer, l->name);
		break;
	case -EBUSY:
	case -EEXIST:
		snprintf(why, sizeof(why),
			 "another XDP program is attached; remove it: ip "
			 "link set dev %s xdp off",
			 l->name);
		break;
	case -ENODEV:
	case -ENXIO: snprintf(why, sizeof(why), "the interface has gone"); break;
	case -ENOENT:
		snprintf(why, sizeof(why),
			 "libxdp does not find its files; install the "
			 "package that has xdp-dispatcher.o (Debian: libxdp1)");
		break;
	case -EINVAL:
		if (l->mtu > MTU_ONE_PAGE) {
			snprintf(why, sizeof(why),
				 "refused, maybe because the driver takes "
				 "no XDP at an MTU of %u; run: ip link set dev %s mtu "
				 "1500, "
				 "or use --mode generic",
				 l->mtu, l->name);
			break;
		}
		/* fall through */
	default:
		snprintf(why, sizeof(why), "%s; try --verbose, or --mode generic",
			 strerror(-err));
	}
	snprintf(buf, size, "%s%s%s", why, dot, kernel_msg);
}
