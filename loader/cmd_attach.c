// SPDX-License-Identifier: BSD-2-Clause
/*
 * ghostnic attach, detach: put the program on an interface, take it off.
 *
 * Both begin by looking at what is really there, never at what an earlier call
 * may have finished, and both first clear what they do not recognise as whole: a
 * call after a crash is the same as any other call. pin.h has the order.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "cmd.h"
#include "link.h"
#include "out.h"
#include "owner.h"
#include "pin.h"
#include "preflight.h"
#include "xdp.h"

#define MAX_TRIES 8 /* copies of our program on one interface */

/* Common start: bpffs, libraries, lock. Return: exit code, with a message */
static int begin(const struct opts *o, char bpffs[BPFFS_MAX], int *lock)
{
	int err = bpffs_dir(o->bpffs, bpffs, BPFFS_MAX);

	if (err) {
		out_error("no bpffs: %s", bpffs_remedy(err));
		return EXIT_FAILED;
	}
	xdp_init(bpffs, o->verbose);
	err = pin_lock(bpffs, lock);
	if (err) {
		out_error("cannot lock %s/ghostnic: %s; run as root", bpffs,
			  strerror(-err));
		return EXIT_FAILED;
	}
	return EXIT_DONE;
}

json_t *feature_names(uint32_t mask)
{
	json_t *a = json_array();
	enum link_feature f;

	for (f = 0; f < LINK_FEAT_MAX; f++)
		if (mask >> f & 1)
			json_array_append_new(a, json_string(link_feature_name(f)));
	return a;
}

/* Give back the features that attach took, if these pins are this interface's. */
static void restore_features(const char *bpffs, const char *ifname,
			     const struct link_info *l)
{
	struct pin_state ps;
	int err;

	if (!l || pin_read_state(bpffs, ifname, &ps) || !ps.features_off ||
	    ps.ifindex != l->ifindex || ps.netns != pin_netns())
		return;
	err = link_features_set(ifname, ps.features_off, true);
	if (err)
		out_note("cannot restore the offloads of %s: %s; see ethtool -k %s",
			 ifname, strerror(-err), ifname);
}

/*
 * Take everything of ours off, whatever state it is in. Sockets leave the map
 * before the program goes, so that no frame is under way to a socket whose
 * interface no longer knows it.
 *
 * @l: NULL if the interface is gone. @removed: programs taken off.
 */
static int clear(const char *bpffs, const char *ifname, const struct link_info *l,
		 unsigned int *removed)
{
	unsigned int ifindex = l ? l->ifindex : 0, tries;
	struct xdp_state x = { 0 };
	struct pin_ids ids;
	int err, fd;

	*removed = 0;
	fd = pin_open(bpffs, ifname, BPFFS_XSKS);
	if (fd >= 0) {
		xdp_empty_xsks(fd);
		close(fd);
	}
	for (tries = 0; l && tries < MAX_TRIES; tries++) {
		err = xdp_inspect(ifindex, &x);
		if (err)
			return err;
		if (x.found == XDP_FOUND_ORPHAN) {
			err = xdp_remove_orphan(ifindex, &x);
		} else if (x.found == XDP_FOUND_OURS) {
			err = xdp_detach(ifindex);
			*removed += !err;
		} else {
			break;
		}
		if (err)
			return err;
	}
	pin_read_ids(bpffs, ifname, &ids);
	xdp_clean_leftovers(bpffs, &ids, ifindex);
	restore_features(bpffs, ifname, l);
	return pin_remove(bpffs, ifname);
}

/* Pin the record of what is to change, then change it. */
static int prepare(const char *bpffs, const struct link_info *l, uint32_t switch_off)
{
	struct pin_state ps = {
		.abi = PIN_STATE_ABI,
		.ifindex = l->ifindex,
		.netns = pin_netns(),
		.features_off = switch_off,
	};
	enum link_feature f;
	int err;

	err = pin_create(bpffs, l->name, &ps);
	if (err) {
		out_error("cannot pin under %s: %s; try --verbose", bpffs,
			  strerror(-err));
		return err;
	}
	err = link_features_set(l->name, switch_off, false);
	if (err) {
		out_error(
			"cannot switch off receive offloads of %s: %s; see ethtool -k %s",
			l->name, strerror(-err), l->name);
		return err;
	}
	for (f = 0; f < LINK_FEAT_MAX; f++)
		if (switch_off >> f & 1)
			out_note("switched %s off on %s: %s; detach switches it on again",
				 link_feature_name(f), l->name, link_feature_why(f));
	return 0;
}

/* Would generic mode work where native mode failed with @err? */
static bool worth_generic(int err)
{
	return err != -EPERM && err != -EACCES && err != -EBUSY && err != -EEXIST &&
	       err != -ENODEV && err != -ENOMEM && err != -ENOENT && err != -EINTR;
}

static int load(const char *bpffs, const struct facts *f, enum xdp_attach_mode *mode)
{
	struct xdp_attach_req req = {
		.ifindex = f->link.ifindex,
		.ifname = f->link.name,
		.bpffs = bpffs,
		.rx_queues = f->link.rx_queues,
		.frags = f->kernel >= KERNEL_FRAGS,
		.config = { .abi = GN_ABI, .max_frame = f->link.mtu + FRAME_OVERHEAD },
	};
	char why[700];
	int err;

	if (getrandom(req.config.hash_key, sizeof(req.config.hash_key), 0) !=
	    sizeof(req.config.hash_key)) {
		out_error("no random numbers for the identifiers' key");
		return -EIO;
	}
	req.mode = f->mode == MODE_GENERIC ? XDP_MODE_SKB : XDP_MODE_NATIVE;
	/* Beside programs in generic mode there is only generic mode. */
	if (f->mode == MODE_AUTO && f->xdp.mode == XDP_MODE_SKB)
		req.mode = XDP_MODE_SKB;
	err = xdp_attach(&req);
	if (err && f->mode == MODE_AUTO && req.mode == XDP_MODE_NATIVE &&
	    worth_generic(err)) {
		preflight_explain(f, err, xdp_message(), why, sizeof(why));
		req.mode = XDP_MODE_SKB;
		err = xdp_attach(&req);
		if (!err)
			out_note("native mode does not work (%s); attached in generic "
				 "mode, "
				 "which is slower",
				 why);
	}
	if (err) {
		preflight_explain(f, err, xdp_message(), why, sizeof(why));
		out_error("cannot attach to %s: %s", f->link.name, why);
		return err;
	}
	*mode = req.mode;
	return 0;
}

static void say_attached(const struct opts *o, const struct facts *f, const char *bpffs,
			 enum xdp_attach_mode mode, bool already)
{
	const struct link_info *l = &f->link;

	if (o->json)
		out_json(json_pack("{s:s, s:s, s:b, s:i, s:s}", "interface", l->name,
				   "mode", xdp_mode_name(mode), "already", already, "mtu",
				   (int)l->mtu, "bpffs", bpffs));
	else
		printf("%s: %s in %s mode\n", l->name,
		       already ? "already attached" : "attached", xdp_mode_name(mode));
}

/* The MTU may have changed since; the key stays, sockets and flows go on. One field by
 * a mapping: the daemon may be writing another. */
static void refresh_config(const char *bpffs, const struct link_info *l)
{
	uint32_t max_frame = l->mtu + FRAME_OVERHEAD, len;
	struct bpf_map_info info = { 0 };
	int fd = pin_open(bpffs, l->name, BPFFS_CONFIG);
	struct gn_config *c;

	if (fd < 0)
		return;
	len = sizeof(info);
	if (bpf_obj_get_info_by_fd(fd, &info, &len) || info.value_size != sizeof(*c))
		goto out;
	c = mmap(NULL, sizeof(*c), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (c == MAP_FAILED)
		goto out;
	if (c->abi == GN_ABI && c->max_frame != max_frame) {
		__atomic_store_n(&c->max_frame, max_frame, __ATOMIC_RELAXED);
		out_note("%s: took over its MTU of %u; restart ghostnicd, which sized "
			 "its buffers by the old one",
			 l->name, l->mtu);
	}
	munmap(c, sizeof(*c));
out:
	close(fd);
}

/* Is what is attached what the user asks for this time? */
static bool mode_fits(enum attach_mode want, enum xdp_attach_mode have)
{
	return want == MODE_AUTO || (want == MODE_GENERIC) == (have == XDP_MODE_SKB);
}

static int attach_locked(const struct opts *o, const char *bpffs, struct facts *f)
{
	const char *ifname = f->link.name;
	enum xdp_attach_mode mode;
	struct verdict v;
	struct pin_ids ids;
	unsigned int i, removed;
	char why[512];
	int err;

	err = xdp_inspect(f->link.ifindex, &f->xdp);
	if (!err)
		err = owner_claim(bpffs, &f->link, &f->xdp);
	if (err)
		goto fail;
	if (owner_other(bpffs, ifname, &f->link, why, sizeof(why))) {
		out_error("%s", why);
		return EXIT_FAILED;
	}
	pin_read_ids(bpffs, ifname, &ids);
	if (owner_whole(&f->xdp, &ids) && !o->force) {
		if (!mode_fits(o->mode, f->xdp.mode)) {
			out_error("%s is attached in %s mode; use --force to attach it "
				  "anew",
				  ifname, xdp_mode_name(f->xdp.mode));
			return EXIT_FAILED;
		}
		refresh_config(bpffs, &f->link);
		say_attached(o, f, bpffs, f->xdp.mode, true);
		return EXIT_DONE;
	}
	/* Judge first: a refusal leaves things as they are. */
	preflight_check(f, &v);
	if (v.error[0]) {
		out_error("%s", v.error);
		return EXIT_FAILED;
	}
	if (f->xdp.found == XDP_FOUND_OURS && !owner_whole(&f->xdp, &ids))
		out_note("%s had the program without its pins; attaching it anew",
			 ifname);
	else if (f->xdp.found != XDP_FOUND_OURS && pin_exists(bpffs, ifname))
		out_note("removed stale pins of %s", ifname);
	err = clear(bpffs, ifname, &f->link, &removed);
	if (err)
		goto fail;
	/* What was just given back is on again; what is attached may have changed. */
	if (link_features_get(ifname, &f->features_on, &f->features_fixed))
		f->features_on = f->features_fixed = 0;
	err = xdp_inspect(f->link.ifindex, &f->xdp);
	if (err)
		goto fail;
	preflight_check(f, &v);
	if (v.error[0]) {
		out_error("%s", v.error);
		return EXIT_FAILED;
	}
	if (!prepare(bpffs, &f->link, v.switch_off) && !load(bpffs, f, &mode)) {
		for (i = 0; i < v.nnotes; i++)
			out_note("%s", v.note[i]);
		if (!xdp_inspect(f->link.ifindex, &f->xdp) && !f->xdp.dispatcher)
			out_note("this kernel lets programs share no interface (it "
				 "refuses "
				 "libxdp's dispatcher): %s takes no XDP program beside "
				 "this",
				 ifname);
		if (removed)
			out_note("a ghostnicd that served %s must be restarted", ifname);
		say_attached(o, f, bpffs, mode, false);
		return EXIT_DONE;
	}
	clear(bpffs, ifname, &f->link, &removed);
	return EXIT_FAILED;
fail:
	out_error("cannot inspect or clear %s: %s%s", ifname, strerror(-err),
		  err == -EPERM ? "; run as root" : "; try --verbose");
	return EXIT_FAILED;
}

static bool have_caps(const struct facts *f, const char *what)
{
	const char *missing = preflight_caps(f);

	if (!*missing)
		return true;
	out_error("%s needs %s; run as root or grant them: setcap "
		  "cap_bpf,cap_net_admin,cap_perfmon,cap_sys_admin+ep ghostnic",
		  what, missing);
	return false;
}

int cmd_attach(const struct opts *o, int argc, char **argv)
{
	struct facts f = { .mode = o->mode };
	char bpffs[BPFFS_MAX];
	int lock, err, rc;

	err = preflight_gather(argv[0], &f);
	if (err) {
		out_error("%s: %s; see: ip link", argv[0],
			  err == -ENODEV ? "no such interface in this network namespace"
					 : strerror(-err));
		return EXIT_FAILED;
	}
	if (!have_caps(&f, "attach"))
		return EXIT_FAILED;
	rc = begin(o, bpffs, &lock);
	if (rc)
		return rc;
	rc = attach_locked(o, bpffs, &f);
	close(lock);
	return rc;
}

static int detach_locked(const struct opts *o, const char *bpffs, const char *ifname,
			 const struct facts *f, bool gone)
{
	struct xdp_state x = { 0 };
	struct pin_state ps = { 0 };
	unsigned int removed = 0;
	char why[512];
	bool pins;
	int err = 0;

	if (!gone) {
		err = xdp_inspect(f->link.ifindex, &x);
		if (!err)
			err = owner_claim(bpffs, &f->link, &x);
	}
	if (!err &&
	    owner_other(bpffs, ifname, gone ? NULL : &f->link, why, sizeof(why))) {
		out_error("%s", why);
		return EXIT_FAILED;
	}
	pins = pin_exists(bpffs, ifname);
	if (!err && !pins && x.found != XDP_FOUND_OURS && x.found != XDP_FOUND_ORPHAN) {
		out_error(gone ? "%s: no such interface, and no pins of it"
			       : "%s is not attached",
			  ifname);
		return EXIT_ABSENT;
	}
	pin_read_state(bpffs, ifname, &ps);
	if (!err)
		err = clear(bpffs, ifname, gone ? NULL : &f->link, &removed);
	if (err) {
		out_error("cannot detach %s: %s%s%s; %s", ifname, strerror(-err),
			  *xdp_message() ? ": " : "", xdp_message(),
			  err == -EPERM ? "run as root: finding what is attached needs "
					  "CAP_SYS_ADMIN"
					: "try --verbose");
		return EXIT_FAILED;
	}
	if (o->json)
		out_json(json_pack("{s:s, s:b, s:b, s:o}", "interface", ifname, "program",
				   removed > 0, "pins", pins, "features_restored",
				   feature_names(gone ? 0 : ps.features_off)));
	else
		printf("%s: %s\n", ifname,
		       removed ? "detached"
		       : gone  ? "the interface is gone; removed its pins"
			       : "was not attached; removed what was left of it");
	return EXIT_DONE;
}

int cmd_detach(const struct opts *o, int argc, char **argv)
{
	struct facts f = { .mode = MODE_AUTO };
	char bpffs[BPFFS_MAX];
	int lock, err, rc;

	err = preflight_gather(argv[0], &f);
	if (err && err != -ENODEV) {
		out_error("%s: %s", argv[0], strerror(-err));
		return EXIT_FAILED;
	}
	if (!have_caps(&f, "detach"))
		return EXIT_FAILED;
	rc = begin(o, bpffs, &lock);
	if (rc)
		return rc;
	rc = detach_locked(o, bpffs, argv[0], &f, err == -ENODEV);
	close(lock);
	return rc;
}
