// SPDX-License-Identifier: BSD-2-Clause
/*
 * owner: whose pins are those of a name? See owner.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "out.h"
#include "owner.h"

bool owner_whole(const struct xdp_state *x, const struct pin_ids *pins)
{
	return x->found == XDP_FOUND_OURS && pin_complete(pins) &&
	       !memcmp(&x->maps, pins, sizeof(*pins));
}

/* Are the pins of @name those of @l? By their program, which is on it, or as attach noted. */
static bool belongs(const char *bpffs, const char *name, const struct link_info *l,
		    const struct xdp_state *x)
{
	struct pin_state ps;
	struct pin_ids ids;

	pin_read_ids(bpffs, name, &ids);
	return owner_whole(x, &ids) ||
	       (!pin_read_state(bpffs, name, &ps) && ps.ifindex == l->ifindex &&
		!pin_state_foreign(&ps));
}

/* Pins of @l under another name. Return: 0, -errno */
static int rename_pins(const char *bpffs, const struct link_info *l,
		       const struct xdp_state *x)
{
	char **names;
	int n = pin_list(bpffs, &names), k = 0, err = 0;

	if (n < 0)
		return n;
	while (k < n && !belongs(bpffs, names[k], l, x))
		k++;
	if (k < n)
		err = pin_rename(bpffs, names[k], l->name);
	if (k < n && !err)
		out_note("%s was %s when it was attached; renamed its pins", l->name,
			 names[k]);
	pin_list_free(names);
	return err;
}

int owner_claim(const char *bpffs, const struct link_info *l, const struct xdp_state *x)
{
	struct pin_state ps;
	struct pin_ids ids;
	int err = 0;

	if (!belongs(bpffs, l->name, l, x))
		err = rename_pins(bpffs, l, x);
	pin_read_ids(bpffs, l->name, &ids);
	if (err || !owner_whole(x, &ids) || pin_read_state(bpffs, l->name, &ps) ||
	    (ps.ifindex == l->ifindex && !pin_state_foreign(&ps)))
		return err;
	ps.ifindex = l->ifindex;
	ps.netns = pin_netns();
	return pin_write_state(bpffs, l->name, &ps);
}

bool owner_other(const char *bpffs, const char *ifname, const struct link_info *l,
		 char *why, size_t size)
{
	char now[IF_NAMESIZE];
	struct xdp_state its;
	struct pin_state ps;
	struct pin_ids ids;

	if (pin_read_state(bpffs, ifname, &ps))
		return false;
	pin_read_ids(bpffs, ifname, &ids);
	if (pin_state_foreign(&ps)) {
		if (!xdp_maps_used(&ids))
			return false;
		snprintf(why, size,
			 "the pins of %s in %s are another network namespace's; name "
			 "another bpffs, with --bpffs or " BPFFS_ENV
			 ", or, if that namespace is gone: rm -r %s/ghostnic/%s",
			 ifname, bpffs, bpffs, ifname);
		return true;
	}
	if ((l && ps.ifindex == l->ifindex) || !if_indextoname(ps.ifindex, now) ||
	    xdp_inspect(ps.ifindex, &its) || !owner_whole(&its, &ids))
		return false;
	snprintf(why, size,
		 "the pins of that name are those of %s, which was %s when it was "
		 "attached; run: ghostnic attach %s",
		 now, ifname, now);
	return true;
}
