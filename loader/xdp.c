// SPDX-License-Identifier: BSD-2-Clause
/*
 * xdp: attach, recognise and detach our program. See xdp.h.
 *
 * Our program is recognised by its name and the names of its maps, and a
 * particular load of it by the identifiers of its maps, which the kernel never
 * gives twice.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bpf/ghostnic.skel.h"
#include "xdp.h"

#define MAX_MAPS 16

static bool speak;
static char kernel_msg[256];

/* ---- messages of the libraries -------------------------------------------- */

static int on_libbpf(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	static const char tag[] = "Kernel error message: ";
	char line[512], *p;
	va_list copy;

	va_copy(copy, ap);
	vsnprintf(line, sizeof(line), fmt, copy);
	va_end(copy);
	p = strstr(line, tag);
	if (p) {
		snprintf(kernel_msg, sizeof(kernel_msg), "%s", p + sizeof(tag) - 1);
		kernel_msg[strcspn(kernel_msg, "\n")] = '\0';
	}
	if (speak && level != LIBBPF_DEBUG)
		fputs(line, stderr);
	return 0;
}

static int on_libxdp(enum libxdp_print_level level, const char *fmt, va_list ap)
{
	return speak && level != LIBXDP_DEBUG ? vfprintf(stderr, fmt, ap) : 0;
}

void xdp_init(const char *bpffs, bool verbose)
{
	speak = verbose;
	libbpf_set_print(on_libbpf);
	libxdp_set_print(on_libxdp);
	/* libxdp reads this once, at its first use. A place that the user chose
	 * for it stays: other tools look for the dispatcher there. */
	setenv(XDP_BPFFS_ENVVAR, bpffs, 0);
}

const char *xdp_message(void)
{
	return kernel_msg;
}

const char *xdp_mode_name(enum xdp_attach_mode mode)
{
	switch (mode) {
	case XDP_MODE_NATIVE: return "native";
	case XDP_MODE_SKB: return "generic";
	case XDP_MODE_HW: return "offload";
	default: return "none";
	}
}

/* ---- recognising ---------------------------------------------------------- */

static void note_map(uint32_t id, struct pin_ids *ids)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);
	int fd = bpf_map_get_fd_by_id(id);

	if (fd < 0)
		return;
	if (!bpf_obj_get_info_by_fd(fd, &info, &len)) {
		if (!strcmp(info.name, BPFFS_XSKS))
			ids->xsks = id;
		else if (!strcmp(info.name, BPFFS_INSTANCES))
			ids->instances = id;
		else if (!strcmp(info.name, BPFFS_COUNTERS))
			ids->counters = id;
		else if (!strcmp(info.name, BPFFS_CONFIG))
			ids->config = id;
		else if (!strcmp(info.name, BPFFS_STREAM))
			ids->stream = id;
	}
	close(fd);
}

/* Is the program behind @fd ours, whoever loaded it? Fills @id and @ids if so. */
static bool is_ours(int fd, uint32_t *id, struct pin_ids *ids)
{
	uint32_t map[MAX_MAPS] = { 0 }, i;
	struct bpf_prog_info info = {
		.nr_map_ids = MAX_MAPS,
		.map_ids = (uint64_t)(uintptr_t)map,
	};
	uint32_t len = sizeof(info);
	struct pin_ids found = { 0 };

	if (fd < 0 || bpf_obj_get_info_by_fd(fd, &info, &len) ||
	    strcmp(info.name, XDP_PROG_NAME))
		return false;
	for (i = 0; i < info.nr_map_ids && i < MAX_MAPS; i++)
		note_map(map[i], &found);
	if (!pin_complete(&found))
		return false;
	*id = info.id;
	*ids = found;
	return true;
}

void xdp_prog_name(uint32_t id, char *buf, size_t size)
{
	struct bpf_prog_info info = { 0 };
	uint32_t len = sizeof(info);
	int fd = bpf_prog_get_fd_by_id(id);

	snprintf(buf, size, "?");
	if (fd < 0)
		return;
	if (!bpf_obj_get_info_by_fd(fd, &info, &len))
		snprintf(buf, size, "%s", info.name);
	close(fd);
}

/* Does any program hang on the dispatcher @id, pinned wherever? */
static bool dispatcher_used(uint32_t id)
{
	uint32_t link = 0;
	bool used = false;

	while (!used && !bpf_link_get_next_id(link, &link)) {
		struct bpf_link_info info = { 0 };
		uint32_t len = sizeof(info);
		int fd = bpf_link_get_fd_by_id(link);

		if (fd < 0)
			continue;
		used = !bpf_obj_get_info_by_fd(fd, &info, &len) &&
		       info.type == BPF_LINK_TYPE_TRACING &&
		       info.tracing.target_obj_id == id;
		close(fd);
	}
	return used;
}

static int main_program(unsigned int ifindex, struct xdp_state *st)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, q);
	int err = bpf_xdp_query((int)ifindex, 0, &q);

	if (err)
		return err;
	if (q.drv_prog_id) {
		st->main_id = q.drv_prog_id;
		st->mode = XDP_MODE_NATIVE;
	} else if (q.skb_prog_id) {
		st->main_id = q.skb_prog_id;
		st->mode = XDP_MODE_SKB;
	} else if (q.hw_prog_id) {
		st->main_id = q.hw_prog_id;
		st->mode = XDP_MODE_HW;
	}
	return 0;
}

int xdp_inspect(unsigned int ifindex, struct xdp_state *st)
{
	struct xdp_program *p, *main_prog;
	struct xdp_multiprog *mp;
	int err;

	*st = (struct xdp_state){ 0 };
	err = main_program(ifindex, st);
	if (err || !st->main_id)
		return err;
	xdp_prog_name(st->main_id, st->name, sizeof(st->name));
	mp = xdp_multiprog__get_from_ifindex((int)ifindex);
	err = (int)libxdp_get_error(mp);
	if (err == -EPERM || err == -EACCES || err == -ENOMEM)
		return err;
	if (err) {
		/* A dispatcher by its name; libxdp does not find its pins. */
		st->dispatcher = !strcmp(st->name, "xdp_dispatcher");
		st->found = !st->dispatcher		   ? XDP_FOUND_FOREIGN
			    : dispatcher_used(st->main_id) ? XDP_FOUND_HIDDEN
							   : XDP_FOUND_ORPHAN;
		return 0;
	}
	if (xdp_multiprog__is_legacy(mp)) {
		main_prog = xdp_multiprog__main_prog(mp);
		st->found = main_prog && is_ours(xdp_program__fd(main_prog), &st->prog_id,
						 &st->maps)
				    ? XDP_FOUND_OURS
				    : XDP_FOUND_FOREIGN;
	} else {
		st->dispatcher = true;
		for (p = xdp_multiprog__next_prog(NULL, mp); p;
		     p = xdp_multiprog__next_prog(p, mp)) {
			if (st->found != XDP_FOUND_OURS &&
			    is_ours(xdp_program__fd(p), &st->prog_id, &st->maps))
				st->found = XDP_FOUND_OURS;
			else
				st->others++;
		}
		if (st->found != XDP_FOUND_OURS && !st->others)
			st->found = XDP_FOUND_ORPHAN;
	}
	xdp_multiprog__close(mp);
	return 0;
}

/* ---- attach --------------------------------------------------------------- */

/* Create, pin and fill "config", or take the pinned one of a first try in another mode.
 */
static int make_config(const struct xdp_attach_req *r, int *out)
{
	struct gn_config conf = r->config;
	char path[BPFFS_MAX + 64];
	uint32_t key = 0;
	int fd, err;

	/* Generic mode may run one queue on several CPUs at a time. */
	if (r->mode == XDP_MODE_NATIVE)
		conf.flags |= GN_CONFIG_STREAM;
	err = bpffs_pin_path(path, sizeof(path), r->bpffs, r->ifname, BPFFS_CONFIG);
	if (err)
		return err;
	fd = pin_open(r->bpffs, r->ifname, BPFFS_CONFIG);
	if (fd < 0) {
		LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_MMAPABLE);

		fd = bpf_map_create(BPF_MAP_TYPE_ARRAY, BPFFS_CONFIG, sizeof(key),
				    sizeof(conf), 1, &opts);
		if (fd < 0)
			return fd;
		err = bpf_obj_pin(fd, path);
	}
	if (!err)
		err = bpf_map_update_elem(fd, &key, &conf, BPF_ANY);
	if (err) {
		close(fd);
		return err;
	}
	*out = fd;
	return 0;
}

/* libbpf pins these when it creates them, before it loads the program. */
static int set_pin_paths(const struct xdp_attach_req *r, struct ghostnic_bpf *skel)
{
	const struct {
		struct bpf_map *map;
		const char *name;
	} m[] = {
		{ skel->maps.xsks, BPFFS_XSKS },
		{ skel->maps.instances, BPFFS_INSTANCES },
		{ skel->maps.counters, BPFFS_COUNTERS },
		{ skel->maps.stream, BPFFS_STREAM },
	};
	char path[BPFFS_MAX + 64];
	unsigned int i;
	int err = 0;

	for (i = 0; !err && i < sizeof(m) / sizeof(m[0]); i++) {
		err = bpffs_pin_path(path, sizeof(path), r->bpffs, r->ifname, m[i].name);
		if (!err)
			err = bpf_map__set_pin_path(m[i].map, path);
	}
	return err;
}

int xdp_attach(const struct xdp_attach_req *r)
{
	struct ghostnic_bpf *skel;
	struct xdp_program *prog;
	int config = -1, err;

	kernel_msg[0] = '\0';
	skel = ghostnic_bpf__open();
	if (!skel)
		return -errno;
	err = set_pin_paths(r, skel);
	if (!err && r->rx_queues && r->rx_queues < GN_MAX_QUEUES)
		err = bpf_map__set_max_entries(skel->maps.stream, r->rx_queues);
	if (!err)
		err = make_config(r, &config);
	if (!err)
		err = bpf_map__reuse_fd(skel->maps.config, config);
	if (err)
		goto out_skel;
	prog = xdp_program__from_bpf_obj(skel->obj,
					 bpf_program__section_name(skel->progs.ghostnic));
	err = (int)libxdp_get_error(prog);
	if (err)
		goto out_skel;
	/* libbpf takes this from the section's name only as it loads; libxdp asks before,
	 * and would load its dispatcher for single-buffer frames, so small MTUs, only. */
	err = xdp_program__set_xdp_frags_support(prog, r->frags);
	if (!err)
		err = xdp_program__attach(prog, (int)r->ifindex, r->mode, 0);
	xdp_program__close(prog);
out_skel:
	if (config >= 0)
		close(config);
	ghostnic_bpf__destroy(skel);
	return err;
}

/* ---- detach --------------------------------------------------------------- */

int xdp_detach(unsigned int ifindex)
{
	struct xdp_program *p, *ours = NULL;
	enum xdp_attach_mode mode;
	struct xdp_multiprog *mp;
	struct pin_ids ids;
	uint32_t id;
	int err;

	kernel_msg[0] = '\0';
	mp = xdp_multiprog__get_from_ifindex((int)ifindex);
	err = (int)libxdp_get_error(mp);
	if (err)
		return err;
	mode = xdp_multiprog__attach_mode(mp);
	if (xdp_multiprog__is_legacy(mp)) {
		p = xdp_multiprog__main_prog(mp);
		if (p && is_ours(xdp_program__fd(p), &id, &ids))
			ours = p;
	} else {
		for (p = xdp_multiprog__next_prog(NULL, mp); p && !ours;
		     p = xdp_multiprog__next_prog(p, mp))
			if (is_ours(xdp_program__fd(p), &id, &ids))
				ours = p;
	}
	err = -ENOENT;
	if (ours)
		err = xdp_program__detach(ours, (int)ifindex, mode, 0);
	xdp_multiprog__close(mp);
	return err;
}

int xdp_remove_orphan(unsigned int ifindex, const struct xdp_state *st)
{
	LIBBPF_OPTS(bpf_xdp_attach_opts, o);
	uint32_t flags =
		st->mode == XDP_MODE_SKB ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE;
	int err, fd = bpf_prog_get_fd_by_id(st->main_id);

	if (fd < 0)
		return fd;
	/* Only this dispatcher: another tool may have replaced it meanwhile. */
	o.old_prog_fd = fd;
	err = bpf_xdp_detach((int)ifindex, flags, &o);
	close(fd);
	return err;
}

void xdp_empty_xsks(int fd)
{
	uint32_t q;

	for (q = 0; q < GN_MAX_QUEUES; q++)
		bpf_map_delete_elem(fd, &q);
}
