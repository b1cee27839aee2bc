// SPDX-License-Identifier: BSD-2-Clause
/*
 * sandbox: what ghostnicd gives to jail.h.
 *
 * Everything with more rights than the filter leaves happens before: programs
 * and pins are opened, AF_XDP and packet sockets bound, the control socket listens.
 * What stays is the packet path, the control socket, and adding and removing
 * instances: a TAP device, an entry in a map, an address in the NIC's filter.
 * Control thread, before others exist.
 */
#include <cap-ng.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "sandbox.h"
#include "../lib/jail.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static const int keep_caps[] = { CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF };

/* Any arguments, beyond what jail.c allows everybody. */
static const int allowed[] = {
	SCMP_SYS(sched_setaffinity), /* workers are pinned */
};

#define BPF(x)                                                                           \
	{                                                                                \
		SCMP_SYS(bpf), 0, JAIL_INT, (x), 0                                       \
	}

static const struct jail_rule rules[] = {
	/* To connected sockets and AF_XDP's doorbell, never to an address. */
	{ SCMP_SYS(sendto), 4, UINT64_MAX, 0, 0 },
	/* No new code. */
	{ SCMP_SYS(mmap), 2, PROT_EXEC, 0, 0 },
	{ SCMP_SYS(mprotect), 2, PROT_EXEC, 0, 0 },
	/* Threads, not processes. */
	{ SCMP_SYS(clone), 0, CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM, 0 },
	/* /dev/net/tun and sysfs; no file is made or emptied. */
	{ SCMP_SYS(openat), 2, O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY), 0, 0 },
	/* Room in a file that is open (vu_keep.c), never a hole. */
	{ SCMP_SYS(fallocate), 1, JAIL_INT, 0, 0 },
	/* A handle for SIOCSIFMTU; sockets of ports. Never one that leaves the host. */
	JAIL_SOCKET(AF_UNIX),
	{ SCMP_SYS(prctl), 0, JAIL_INT, PR_SET_NAME, 0 },
	/* glibc asks for the stack's limit when it makes a thread, and sets none. */
	{ SCMP_SYS(prlimit64), 2, UINT64_MAX, 0, 0 },
	/* A TAP port and what it asks of its device; terminals are stdio's question. */
	JAIL_IOCTL(TUNSETIFF),
	JAIL_IOCTL(TUNGETIFF),
	JAIL_IOCTL(TUNGETFEATURES),
	JAIL_IOCTL(TUNSETOFFLOAD),
	JAIL_IOCTL(TUNSETVNETHDRSZ),
	JAIL_IOCTL(TUNSETVNETLE),
	JAIL_IOCTL(TUNSETSNDBUF),
	JAIL_IOCTL(TUNSETQUEUE),
	JAIL_IOCTL(SIOCGIFFLAGS),
	JAIL_IOCTL(SIOCSIFFLAGS),
	JAIL_IOCTL(SIOCGIFMTU),
	JAIL_IOCTL(SIOCSIFMTU),
	JAIL_IOCTL(SIOCGIFHWADDR),
	JAIL_IOCTL(SIOCSIFHWADDR),
	JAIL_IOCTL(SIOCGIFINDEX),
	JAIL_IOCTL(SIOCETHTOOL),
	JAIL_IOCTL(FIONREAD),
	JAIL_IOCTL(FIONBIO),
	JAIL_IOCTL(TCGETS),
	BPF(BPF_MAP_LOOKUP_ELEM),
	BPF(BPF_MAP_UPDATE_ELEM),
	BPF(BPF_MAP_DELETE_ELEM),
	BPF(BPF_MAP_GET_NEXT_KEY),
};

int sandbox_enter(void)
{
	static const struct jail jail = {
		.calls = allowed,
		.ncalls = ARRAY_SIZE(allowed),
		.rules = rules,
		.nrules = ARRAY_SIZE(rules),
	};
	int err = jail_drop_caps(keep_caps, ARRAY_SIZE(keep_caps));

	return err ? err : jail_filter(&jail);
}
