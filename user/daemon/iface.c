// SPDX-License-Identifier: BSD-2-Clause
/*
 * iface: pins, workers, instances of one interface. Contract in iface.h.
 *
 * Order matters at both ends. Up: ports and workers know an instance before XDP
 * does, and threads run before their sockets are in the XSKMAP. Down: XDP forgets
 * first, then the workers, then the port is closed.
 */
#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "flood.h"
#include "iface.h"
#include "mirror.h"
#include "rx.h"
#include "../lib/bpffs.h"
#include "../lib/log.h"
#include "../lib/pin_state.h"

#define GENERATIONS (UINT16_MAX / GN_MAX_INSTANCES + 1) /* of an instance slot */
/* Share of a umem that open chains may hold: the rest keeps the rings full. */
#define HELD_SHARE 4

struct link_info {
	uint32_t mtu;
	unsigned int rx_queues;
	bool up;
	char driver[32];
};

/* What the kernel says of the interface. */
static int link_query(const char *ifname, struct link_info *out)
{
	struct ethtool_channels ch = { .cmd = ETHTOOL_GCHANNELS };
	struct ethtool_drvinfo drv = { .cmd = ETHTOOL_GDRVINFO };
	struct ifreq ifr = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), err = 0;

	if (fd < 0)
		return -errno;
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", ifname);
	if (ioctl(fd, SIOCGIFMTU, &ifr)) {
		err = -errno;
		goto close_fd;
	}
	*out = (struct link_info){ .mtu = (uint32_t)ifr.ifr_mtu, .rx_queues = 1 };
	out->up = !ioctl(fd, SIOCGIFFLAGS, &ifr) && ifr.ifr_flags & IFF_UP &&
		  ifr.ifr_flags & IFF_RUNNING;
	ifr.ifr_data = (void *)&ch;
	if (!ioctl(fd, SIOCETHTOOL, &ifr) && ch.rx_count + ch.combined_count)
		out->rx_queues = ch.rx_count + ch.combined_count;
	ifr.ifr_data = (void *)&drv;
	if (!ioctl(fd, SIOCETHTOOL, &ifr))
		snprintf(out->driver, sizeof(out->driver), "%s", drv.driver);
close_fd:
	close(fd);
	return err;
}

/* Open a pinned map. Return: descriptor or -errno */
static int open_pin(const char *bpffs, const char *ifname, const char *map)
{
	char path[BPFFS_MAX + 64];
	int err = bpffs_pin_path(path, sizeof(path), bpffs, ifname, map), fd;

	if (err)
		return err;
	fd = bpf_obj_get(path);
	return fd < 0 ? -errno : fd;
}

/*
 * Map the metadata streams. Without them, by kernel or by an attach in generic mode,
 * metadata is in front of the frames, so a failure costs speed only.
 */
static void map_streams(struct iface *i, const char *bpffs)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info);
	int fd = open_pin(bpffs, i->name, BPFFS_STREAM);
	void *p;

	if (fd < 0)
		return;
	if (!bpf_obj_get_info_by_fd(fd, &info, &len) &&
	    info.value_size == sizeof(struct gn_stream)) {
		p = mmap(NULL, (size_t)info.max_entries * sizeof(struct gn_stream),
			 PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (p != MAP_FAILED) {
			i->streams = p;
			i->nstreams = info.max_entries;
		}
	}
	close(fd);
	if (!i->streams)
		log_warn("%s: the metadata stream cannot be mapped (%s): slower", i->name,
			 strerror(errno));
}

/*
 * Are the pins of the name this interface's? Else the program in place, if there is one, and
 * whoever is served by it are another interface's. Return: 0, -errno, logged
 */
static int check_owner(const struct iface *i, const char *bpffs)
{
	int fd = open_pin(bpffs, i->name, PIN_STATE), err;
	struct pin_state st;

	if (fd < 0)
		return 0;
	err = pin_state_read(fd, &st);
	close(fd);
	if (err) /* of another version, which the ABI will tell */
		return 0;
	if (pin_state_foreign(&st)) {
		log_err("%s: its pins in %s are another network namespace's: name "
			"another bpffs with --bpffs, or run `ghostnic attach %s`, which "
			"tells more",
			i->name, bpffs, i->name);
		return -EXDEV;
	}
	if (st.ifindex != i->ifindex) {
		log_err("%s: its pins are those of another interface that had the name: "
			"run `ghostnic attach %s`",
			i->name, i->name);
		return -ESTALE;
	}
	return 0;
}

/* Open the maps; check that the program in place speaks this ABI. */
static int open_maps(struct iface *i, const struct daemon_conf *d)
{
	char bpffs[BPFFS_MAX];
	void *config;
	int err, fd;

	err = bpffs_dir(d->bpffs, bpffs, sizeof(bpffs));
	if (err) {
		log_err("%s: no bpffs: %s", i->name, bpffs_remedy(err));
		return err;
	}
	fd = open_pin(bpffs, i->name, BPFFS_CONFIG);
	if (fd < 0) {
		log_err("%s: the XDP program is not attached (%s): run `ghostnic attach "
			"%s`",
			i->name, strerror(-fd), i->name);
		return fd;
	}
	err = check_owner(i, bpffs);
	if (err) {
		close(fd);
		return err;
	}
	config =
		mmap(NULL, sizeof(*i->config), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	err = config == MAP_FAILED ? -errno : 0;
	close(fd);
	if (!err)
		i->config = config;
	if (err || i->config->abi != GN_ABI) {
		log_err("%s: the XDP program in place is not of this version (%s): run "
			"`ghostnic detach %s`, then `ghostnic attach %s`",
			i->name, err ? strerror(-err) : "another ABI", i->name, i->name);
		return err ? err : -EPROTO;
	}
	if (i->config->max_frame != i->mtu + 22)
		log_warn("%s: its MTU was %u when the program was attached, now it is "
			 "%u: attach again",
			 i->name, i->config->max_frame - 22, i->mtu);
	if (i->config->flags & GN_CONFIG_STREAM)
		map_streams(i, bpffs);
	i->map_xsks = open_pin(bpffs, i->name, BPFFS_XSKS);
	i->map_instances = open_pin(bpffs, i->name, BPFFS_INSTANCES);
	if (i->map_xsks < 0 || i->map_instances < 0) {
		err = i->map_xsks < 0 ? i->map_xsks : i->map_instances;
		log_err("%s: its pinned maps are incomplete (%s): run `ghostnic attach "
			"%s` again",
			i->name, strerror(-err), i->name);
		return err;
	}
	return 0;
}

/* The map of instances was changed: what CPUs remember of it is out of date. */
static void next_generation(struct iface *i)
{
	uint32_t next = i->config->generation + 1;

	/* Release pairs with XDP's reading it before the map. 0 would turn remembering
	 * off. */
	__atomic_store_n(&i->config->generation, next ? next : 1, __ATOMIC_RELEASE);
}

/* Entries that a killed daemon left. */
static void clear_instances(struct iface *i)
{
	struct gn_instance_key key;

	while (!bpf_map_get_next_key(i->map_instances, NULL, &key))
		if (bpf_map_delete_elem(i->map_instances, &key))
			break;
	next_generation(i);
}

/*
 * Make the maps ours. Only when our sockets have the queues: until then a living daemon
 * may, and what the maps hold is its own.
 */
static void take_maps(struct iface *i, const struct daemon_conf *d)
{
	if (d->checksum == AGG_VERIFY)
		__atomic_or_fetch(&i->config->flags, GN_CONFIG_VERIFY, __ATOMIC_RELAXED);
	else
		__atomic_and_fetch(&i->config->flags, ~GN_CONFIG_VERIFY,
				   __ATOMIC_RELAXED);
	clear_instances(i);
}

/* CPU for the next worker: round robin over those this process may use, from the last
 * one down, because interrupts tend to start at the first. -1: there is only one. */
static int next_cpu(void)
{
	static int last = CPU_SETSIZE; /* control thread only */
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) || CPU_COUNT(&set) < 2)
		return -1;
	do
		last = last ? last - 1 : CPU_SETSIZE - 1;
	while (!CPU_ISSET((unsigned int)last, &set));
	return last;
}

static int create_workers(struct iface *i, const struct daemon_conf *d)
{
	for (unsigned int q = 0; q < i->nworkers; q++) {
		const struct worker_conf conf = {
			.ifname = i->name,
			.queue = q,
			.cpu = next_cpu(),
			.chunks = d->chunks,
			.mtu = i->mtu,
			.poll = d->poll,
			.flood_fd = q ? -1 : i->flood_fd,
			.stream = q < i->nstreams ? (struct gn_stream *)i->streams + q : NULL,
			.agg = {
				.checksum = d->checksum,
				.trust_partial = i->local_link,
				.max_held = d->chunks / HELD_SHARE,
				.hold_ns = (uint64_t)d->flush_us * 1000,
			},
		};
		int err = worker_create(&conf, &i->worker[q]);

		if (err)
			return err;
		log_info("%s: queue %u: AF_XDP in %s mode%s, %u chunks on %u KiB pages",
			 i->name, q, i->worker[q]->xsk.zerocopy ? "zero-copy" : "copy",
			 i->worker[q]->xsk.multi_buffer ? ", multi-buffer" : "",
			 d->chunks, i->worker[q]->umem.page_size / 1024);
	}
	return 0;
}

int iface_open(const struct iface_conf *conf, const struct daemon_conf *d,
	       struct loop *loop, struct iface **out)
{
	struct iface *i = calloc(1, sizeof(*i));
	struct link_info link;
	int err;

	if (!i)
		return -ENOMEM;
	snprintf(i->name, sizeof(i->name), "%s", conf->name);
	i->loop = loop;
	i->map_xsks = i->map_instances = i->flood_fd = -1;
	err = link_query(i->name, &link);
	i->ifindex = if_nametoindex(i->name);
	if (err || !i->ifindex) {
		err = err ? err : -ENODEV;
		log_err("%s: %s: `ip link` shows the interfaces there are", i->name,
			strerror(-err));
		goto fail;
	}
	i->mtu = link.mtu;
	i->link = link.up ? LINK_UP : LINK_DOWN;
	i->local_link = !strcmp(link.driver, "veth");
	i->nworkers = conf->queues ? conf->queues : link.rx_queues;
	if (i->nworkers > GN_MAX_QUEUES)
		i->nworkers = GN_MAX_QUEUES;
	if (i->nworkers < link.rx_queues)
		log_warn("%s: %u of %u receive queues are served, the host gets the "
			 "others' frames",
			 i->name, i->nworkers, link.rx_queues);
	err = open_maps(i, d);
	if (err)
		goto fail;
	i->flood_fd = flood_open(i->ifindex);
	if (i->flood_fd < 0) {
		err = i->flood_fd;
		log_err("%s: no packet socket: %s; CAP_NET_RAW is needed", i->name,
			strerror(-err));
		goto fail;
	}
	i->worker = calloc(i->nworkers, sizeof(struct worker *));
	err = i->worker ? create_workers(i, d) : -ENOMEM;
	if (err)
		goto fail;
	take_maps(i, d);
	*out = i;
	return 0;
fail:
	iface_close(i);
	return err;
}

int iface_start(struct iface *i)
{
	for (unsigned int q = 0; q < i->nworkers; q++) {
		int err = worker_start(i->worker[q]);

		if (err) {
			log_err("%s: no thread for queue %u: %s", i->name, q,
				strerror(-err));
			return err;
		}
	}
	for (unsigned int q = 0; q < i->nworkers; q++) {
		int fd = i->worker[q]->xsk.fd;

		if (bpf_map_update_elem(i->map_xsks, &q, &fd, BPF_ANY)) {
			log_err("%s: socket of queue %u: %s", i->name, q,
				strerror(errno));
			return -errno;
		}
		i->nreceiving = q + 1;
	}
	return 0;
}

static struct gn_instance_key key_of(const struct instance *in)
{
	struct gn_instance_key key;

	memset(&key, 0, sizeof(key));
	memcpy(key.mac, in->conf.mac, 6);
	key.vlan = htons(in->conf.vlan);
	return key;
}

/* Tell XDP of an instance, or of what its port takes now. */
static int publish(const struct instance *in)
{
	const struct gn_instance_key key = key_of(in);
	const struct gn_instance value = {
		.id = in->id,
		.flags = (uint16_t)(in->port->gso |
				    (in->port->reads ? GN_INSTANCE_READS : 0) |
				    (in->port->logged ? GN_INSTANCE_LOGGED : 0)),
	};
	int err = bpf_map_update_elem(in->iface->map_instances, &key, &value, BPF_ANY)
			  ? -errno
			  : 0;

	next_generation(in->iface);
	return err;
}

/* port_env.changed() */
static void env_changed(void *owner)
{
	struct instance *in = owner;
	int err = publish(in);

	if (err)
		log_err("%s: instance %s: XDP's instance map: %s", in->iface->name,
			in->conf.name, strerror(-err));
}

struct env_call {
	void (*fn)(void *arg);
	void *arg;
};

static void do_env_call(struct worker *w, void *arg)
{
	const struct env_call *c = arg;

	rx_flush(w, UINT64_MAX);
	c->fn(c->arg);
}

/* port_env.call() */
static void env_call(void *owner, unsigned int queue, void (*fn)(void *arg), void *arg)
{
	const struct instance *in = owner;
	struct env_call c = { .fn = fn, .arg = arg };

	worker_call(in->iface->worker[queue], do_env_call, &c);
}

/* port_env.mem() */
static void env_mem(void *owner, unsigned int queue, struct mbuf_pool **pool,
		    const struct umem **umem)
{
	const struct instance *in = owner;

	*pool = &in->iface->worker[queue]->pool;
	*umem = &in->iface->worker[queue]->umem;
}

/* Undo the first @nworkers workers' knowledge of an instance, close it, forget it. */
static void drop_instance(struct iface *i, struct instance *in, unsigned int nworkers)
{
	const struct gn_instance_key key = key_of(in);
	uint16_t slot = GN_INSTANCE_INDEX(in->id);

	bpf_map_delete_elem(i->map_instances, &key);
	next_generation(i);
	flood_set_mac(i->flood_fd, i->ifindex, in->conf.mac, false);
	mirror_stop(in);
	for (unsigned int q = 0; q < nworkers; q++)
		worker_del_instance(i->worker[q], in);
	in->port->ops->close(in->port);
	i->instance[slot] = NULL;
	i->generation[slot] = (uint8_t)((i->generation[slot] + 1) % GENERATIONS);
	free(in);
}

void iface_stop(struct iface *i)
{
	for (unsigned int q = 0; q < i->nreceiving; q++)
		bpf_map_delete_elem(i->map_xsks, &q);
	i->nreceiving = 0;
	for (unsigned int q = 0; i->worker && q < i->nworkers; q++)
		if (i->worker[q])
			worker_stop(i->worker[q]);
}

void iface_close(struct iface *i)
{
	if (!i)
		return;
	iface_stop(i);
	for (unsigned int s = 0; s < GN_MAX_INSTANCES; s++)
		if (i->instance[s])
			drop_instance(i, i->instance[s], i->nworkers);
	for (unsigned int q = 0; i->worker && q < i->nworkers; q++)
		worker_destroy(i->worker[q]);
	free(i->worker);
	if (i->config)
		munmap(i->config, sizeof(*i->config));
	if (i->streams)
		munmap(i->streams, (size_t)i->nstreams * sizeof(struct gn_stream));
	if (i->flood_fd >= 0)
		close(i->flood_fd);
	if (i->map_instances >= 0)
		close(i->map_instances);
	if (i->map_xsks >= 0)
		close(i->map_xsks);
	free(i);
}

struct instance *iface_find_instance(struct iface *i, const char *name)
{
	for (unsigned int s = 0; s < GN_MAX_INSTANCES; s++)
		if (i->instance[s] && !strcmp(i->instance[s]->conf.name, name))
			return i->instance[s];
	return NULL;
}

/* Return: the first free slot, -ENOSPC */
static int find_slot(const struct iface *i)
{
	for (int s = 0; s < GN_MAX_INSTANCES; s++)
		if (!i->instance[s])
			return s;
	return -ENOSPC;
}

static void tell_link(struct port *p, const struct iface *i)
{
	if (p->ops->link)
		p->ops->link(p, i->link != LINK_DOWN && i->link != LINK_GONE);
}

int iface_add_instance(struct iface *i, const struct instance_conf *conf, char *err,
		       size_t errlen)
{
	int slot = find_slot(i), ret;
	const struct port_ops *ops = port_find(conf->port.kind);
	struct instance *in;

	if (slot < 0) {
		snprintf(err, errlen,
			 "%s has %d instances already, the most there can be", i->name,
			 GN_MAX_INSTANCES);
		return slot;
	}
	if (!ops) {
		snprintf(err, errlen, "no port of kind %s", conf->port.kind);
		return -EINVAL;
	}
	in = calloc(1, sizeof(*in));
	if (!in)
		return -ENOMEM;
	in->conf = *conf;
	in->iface = i;
	in->rate.bits = conf->rate;
	in->env = (struct port_env){ i->loop, in, env_call, env_changed, env_mem };
	in->id = (uint16_t)(slot | i->generation[slot] * GN_MAX_INSTANCES);
	memcpy(in->conf.port.mac, conf->mac, 6);
	in->conf.port.vlan = conf->vlan;
	in->conf.port.mtu = i->mtu;
	ret = ops->open(&in->conf.port, &in->env, i->nworkers, &in->port);
	if (ret) {
		snprintf(err, errlen, "port %s:%s: %s", conf->port.kind, conf->port.arg,
			 strerror(-ret));
		free(in);
		return ret;
	}
	i->instance[slot] = in;
	tell_link(in->port, i);
	for (unsigned int q = 0; q < i->nworkers; q++)
		worker_add_instance(i->worker[q], in);
	ret = flood_set_mac(i->flood_fd, i->ifindex, in->conf.mac, true);
	if (ret)
		log_warn("%s: the NIC does not take %s's address into its filter (%s): "
			 "set it promiscuous",
			 i->name, in->conf.name, strerror(-ret));
	ret = publish(in);
	if (ret) {
		snprintf(err, errlen, "XDP's instance map: %s", strerror(-ret));
		drop_instance(i, in, i->nworkers);
		return ret;
	}
	return 0;
}

void iface_tell_link(struct iface *i)
{
	for (unsigned int s = 0; s < GN_MAX_INSTANCES; s++)
		if (i->instance[s])
			tell_link(i->instance[s]->port, i);
}

int iface_del_instance(struct iface *i, const char *name)
{
	struct instance *in = iface_find_instance(i, name);

	if (!in)
		return -ENOENT;
	drop_instance(i, in, i->nworkers);
	return 0;
}
