// SPDX-License-Identifier: BSD-2-Clause
/*
 * ghostnic status: what is attached where, and whether it fits together.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "call.h"
#include "cmd.h"
#include "link.h"
#include "out.h"
#include "owner.h"
#include "pin.h"
#include "xdp.h"

/* Everything known of one interface. */
struct report {
	const char *ifname;
	bool exists; /* in this network namespace */
	struct link_info link;
	struct xdp_state xdp;
	int xdp_err;
	bool pins;
	struct pin_ids ids;
	struct pin_state state;
	struct gn_config config; /* abi 0: not readable */
	const json_t *served;	 /* the daemon's view, or NULL */
};

static bool attached(const struct report *r)
{
	return r->xdp.found == XDP_FOUND_OURS;
}

/* In one word; ghostnic(8) explains them. */
static const char *word(const struct report *r)
{
	if (r->xdp_err)
		return "unknown";
	if (attached(r))
		return owner_whole(&r->xdp, &r->ids) ? "attached" : "incomplete";
	if (r->xdp.found == XDP_FOUND_ORPHAN)
		return "incomplete";
	return r->pins ? "stale" : "detached";
}

static void read_config(const char *bpffs, struct report *r)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info), key = 0;
	int fd = pin_open(bpffs, r->ifname, BPFFS_CONFIG);

	if (fd < 0)
		return;
	if (bpf_obj_get_info_by_fd(fd, &info, &len) ||
	    info.value_size != sizeof(r->config) ||
	    bpf_map_lookup_elem(fd, &key, &r->config))
		r->config.abi = 0;
	close(fd);
}

static void gather(const char *bpffs, const char *ifname, const json_t *daemon,
		   struct report *r)
{
	json_t *i;
	size_t k;

	*r = (struct report){ .ifname = ifname };
	r->exists = !link_get(ifname, &r->link);
	if (r->exists)
		r->xdp_err = xdp_inspect(r->link.ifindex, &r->xdp);
	r->pins = pin_exists(bpffs, ifname);
	pin_read_ids(bpffs, ifname, &r->ids);
	pin_read_state(bpffs, ifname, &r->state);
	read_config(bpffs, r);
	json_array_foreach(json_object_get(daemon, "interfaces"), k, i)
	{
		const char *n = json_string_value(json_object_get(i, "name"));

		if (n && !strcmp(n, ifname))
			r->served = i;
	}
}

static void format_mac(const uint8_t *m, char buf[18])
{
	snprintf(buf, 18, "%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4],
		 m[5]);
}

static const char *instance_name(const struct report *r, int id)
{
	const json_t *list = json_object_get(r->served, "instances");
	json_t *in;
	size_t k;

	json_array_foreach(
		list, k,
		in) if (json_integer_value(json_object_get(in, "id")) ==
			id) return json_string_value(json_object_get(in, "name"));
	return NULL;
}

/* The entries of map "instances"; names come from the daemon. */
static json_t *instances(const char *bpffs, const struct report *r)
{
	static const struct {
		uint32_t flag;
		const char *name;
	} gso[] = {
		{ GN_INSTANCE_TSO4, "tso4" },
		{ GN_INSTANCE_TSO6, "tso6" },
		{ GN_INSTANCE_USO, "uso" },
	};
	int fd = pin_open(bpffs, r->ifname, BPFFS_INSTANCES);
	struct gn_instance_key key, *prev = NULL;
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);
	json_t *list = json_array();
	struct gn_instance in;
	unsigned int n;
	size_t g;

	if (fd < 0)
		return list;
	if (bpf_obj_get_info_by_fd(fd, &info, &len) || info.key_size != sizeof(key) ||
	    info.value_size != sizeof(in))
		goto out;
	/* Bounded: the walk starts again when its key is deleted meanwhile. */
	for (n = 0; n < 2 * GN_MAX_INSTANCES && !bpf_map_get_next_key(fd, prev, &key);
	     n++) {
		json_t *names = json_array();
		const char *name;
		char mac[18];

		prev = &key;
		if (bpf_map_lookup_elem(fd, &key, &in)) {
			json_decref(names);
			continue;
		}
		for (g = 0; g < sizeof(gso) / sizeof(gso[0]); g++)
			if (in.flags & gso[g].flag)
				json_array_append_new(names, json_string(gso[g].name));
		format_mac(key.mac, mac);
		name = instance_name(r, in.id);
		json_array_append_new(list,
				      json_pack("{s:s?, s:s, s:i, s:i, s:o, s:b}", "name",
						name, "mac", mac, "vlan",
						(int)__builtin_bswap16(key.vlan), "id",
						(int)in.id, "gso", names, "logged",
						!!(in.flags & GN_INSTANCE_LOGGED)));
	}
out:
	close(fd);
	return list;
}

static json_t *queues(const struct report *r)
{
	const json_t *list = json_object_get(r->served, "queues");
	json_t *out = json_array(), *q;
	size_t k;

	json_array_foreach(list, k, q) json_array_append_new(
		out, json_pack("{s:O, s:O?, s:O?}", "queue", json_object_get(q, "queue"),
			       "zerocopy", json_object_get(q, "zerocopy"), "multi_buffer",
			       json_object_get(q, "multi_buffer")));
	return out;
}

static json_t *to_json(const char *bpffs, const struct report *r)
{
	return json_pack("{s:s, s:s, s:b, s:b, s:s, s:i, s:b, s:i, s:i, s:i, s:i, s:i, "
			 "s:b, s:o, s:o, s:o}",
			 "name", r->ifname, "state", word(r), "attached", attached(r),
			 "exists", r->exists, "mode",
			 attached(r) ? xdp_mode_name(r->xdp.mode) : "none", "program_id",
			 (int)r->xdp.prog_id, "dispatcher", r->xdp.dispatcher,
			 "other_programs", (int)r->xdp.others, "abi", (int)r->config.abi,
			 "mtu", (int)r->link.mtu, "max_frame", (int)r->config.max_frame,
			 "rx_queues", (int)r->link.rx_queues, "daemon", r->served != NULL,
			 "queues", queues(r), "instances", instances(bpffs, r),
			 "features_off", feature_names(r->state.features_off));
}

static void stale_hint(const struct report *r)
{
	char now[IF_NAMESIZE];

	if (pin_state_foreign(&r->state))
		out_note("%s: its pins are another network namespace's, or left of one "
			 "that is gone; run: ghostnic attach %s",
			 r->ifname, r->ifname);
	else if (!r->exists && r->state.ifindex && if_indextoname(r->state.ifindex, now))
		out_note("%s: its pins are those of %s, which was %s when it was "
			 "attached; run: ghostnic attach %s",
			 r->ifname, now, r->ifname, now);
	else
		out_note("%s: pins without their program%s; run: ghostnic detach %s",
			 r->ifname,
			 r->exists ? ""
				   : ", the interface is gone or in another namespace",
			 r->ifname);
}

static void hints(const struct report *r)
{
	const char *w = word(r), *n = r->ifname;

	if (r->xdp_err)
		out_note("%s: cannot look at its programs: %s; run as root", n,
			 strerror(-r->xdp_err));
	else if (!strcmp(w, "incomplete"))
		out_note("%s: program and pins do not belong together; run: ghostnic "
			 "attach %s",
			 n, n);
	else if (!strcmp(w, "stale"))
		stale_hint(r);
	if (r->config.abi && r->config.abi != GN_ABI)
		out_note("%s: attached by another version (ABI %u, this is %u); run: "
			 "ghostnic "
			 "attach --force %s",
			 n, r->config.abi, GN_ABI, n);
	else if (attached(r) && r->config.abi &&
		 r->config.max_frame != r->link.mtu + FRAME_OVERHEAD)
		out_note("%s: the MTU changed since attach; run: ghostnic attach %s", n,
			 n);
}

static void print_instances(const json_t *list)
{
	json_t *in;
	size_t k;

	json_array_foreach(list, k, in)
	{
		const char *name = json_string_value(json_object_get(in, "name"));
		long long vlan = json_integer_value(json_object_get(in, "vlan"));

		printf("  instance   %s  %s", name ? name : "(no daemon serves it)",
		       json_string_value(json_object_get(in, "mac")));
		if (vlan)
			printf("  vlan %lld", vlan);
		putchar('\n');
	}
}

static void print_text(const char *bpffs, const struct report *r)
{
	json_t *list, *q;
	size_t k;

	printf("%s: %s", r->ifname, word(r));
	if (attached(r)) {
		printf(", %s mode, program %u", xdp_mode_name(r->xdp.mode),
		       r->xdp.prog_id);
		if (r->xdp.others)
			printf(" beside %u other%s", r->xdp.others,
			       r->xdp.others > 1 ? "s" : "");
	}
	putchar('\n');
	if (!attached(r))
		return;
	printf("  MTU        %u, ABI %u, %u receive queue%s, link %s\n", r->link.mtu,
	       r->config.abi, r->link.rx_queues, r->link.rx_queues == 1 ? "" : "s",
	       r->link.up ? "up" : "down");
	json_array_foreach(json_object_get(r->served, "queues"), k, q) printf(
		"  socket     queue %lld, %s\n",
		(long long)json_integer_value(json_object_get(q, "queue")),
		json_is_true(json_object_get(q, "zerocopy")) ? "zero copy" : "copy");
	if (!r->served)
		printf("  socket     none: no daemon serves %s\n", r->ifname);
	list = instances(bpffs, r);
	print_instances(list);
	json_decref(list);
}

/* Interfaces with pins, and those that have the program without. */
static json_t *names_to_report(const char *bpffs)
{
	struct if_nameindex *ifs = if_nameindex(), *i;
	json_t *set = json_object();
	struct xdp_state x;
	char **names;
	int n, k;

	n = pin_list(bpffs, &names);
	for (k = 0; k < n; k++)
		json_object_set_new(set, names[k], json_true());
	if (n >= 0)
		pin_list_free(names);
	for (i = ifs; i && i->if_index; i++)
		if (!xdp_inspect(i->if_index, &x) && x.found == XDP_FOUND_OURS)
			json_object_set_new(set, i->if_name, json_true());
	if_freenameindex(ifs);
	return set;
}

static json_t *daemon_json(const struct opts *o, const json_t *stats)
{
	return json_pack("{s:b, s:s, s:O?}", "running", stats != NULL, "socket",
			 ghostnic_socket(o->ctl), "version",
			 json_object_get(stats, "version"));
}

static json_t *ask_daemon(const struct opts *o)
{
	json_t *req = json_pack("{s:s}", "cmd", "stats"), *stats = NULL;
	char msg[256];
	int err = ctl_call(o->ctl, req, &stats, msg, sizeof(msg));

	json_decref(req);
	if (err && !ctl_no_daemon(err))
		out_note("%s", msg);
	return stats;
}

int cmd_status(const struct opts *o, int argc, char **argv)
{
	json_t *names, *stats, *list = json_array(), *v;
	char bpffs[BPFFS_MAX];
	int err, rc = EXIT_DONE;
	struct report r;
	const char *name;

	err = bpffs_dir(o->bpffs, bpffs, sizeof(bpffs));
	if (err) {
		out_error("no bpffs: %s", bpffs_remedy(err));
		json_decref(list);
		return EXIT_FAILED;
	}
	xdp_init(bpffs, o->verbose);
	stats = ask_daemon(o);
	if (argc) {
		names = json_object();
		json_object_set_new(names, argv[0], json_true());
	} else {
		names = names_to_report(bpffs);
	}
	json_object_foreach(names, name, v)
	{
		gather(bpffs, name, stats, &r);
		if (argc && !r.exists && !r.pins) {
			out_error("%s: no such interface in this network namespace",
				  name);
			rc = EXIT_FAILED;
			goto out;
		}
		if (o->json)
			json_array_append_new(list, to_json(bpffs, &r));
		else
			print_text(bpffs, &r);
		hints(&r);
		if (argc && !attached(&r))
			rc = EXIT_ABSENT;
	}
	if (o->json) {
		out_json(json_pack("{s:s, s:o, s:O}", "bpffs", bpffs, "daemon",
				   daemon_json(o, stats), "interfaces", list));
	} else {
		if (!json_object_size(names))
			puts("nothing is attached");
		if (json_is_object(stats))
			printf("ghostnicd: running\n");
		else
			printf("ghostnicd: not running (%s)\n", ghostnic_socket(o->ctl));
	}
out:
	json_decref(names);
	json_decref(stats);
	json_decref(list);
	return rc;
}
