/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * conf: what the user asked for, from the command line and --config FILE.
 *
 * The file is INI, read by libinih; sections [daemon], [interface NAME] and
 * [instance NAME] take the options' names as keys. The command line wins. An
 * error names the file, the line and the remedy. Control thread only.
 */
#ifndef GN_CONF_H
#define GN_CONF_H

#include <net/if.h>
#include <stdio.h>

#include "../lib/log.h"
#include "agg.h"
#include "port.h"

#define CONF_NAME_MAX	 32 /* instance name with its NUL */
#define CONF_MAX_IFACES	 16
#define CONF_DEFAULT_CTL "/run/ghostnic/ctl.sock"

enum poll_mode {
	POLL_BUSY,     /* spin */
	POLL_ADAPTIVE, /* spin under load, sleep when idle */
	POLL_WAIT,     /* sleep whenever a ring is empty */
};

struct instance_conf {
	char name[CONF_NAME_MAX]; /* [A-Za-z0-9_.-]+ */
	char iface[IFNAMSIZ];	  /* interface it lives on */
	uint8_t mac[6];		  /* unicast */
	uint16_t vlan;		  /* 1-4094; 0: untagged */
	uint64_t rate;		  /* it may send, bits/s; 0: no limit */
	bool allow_spoof;	  /* it may send from any address and VLAN */
	struct port_conf port;	  /* mac, vlan and mtu are filled by the daemon */
};

struct iface_conf {
	char name[IFNAMSIZ];
	unsigned int queues; /* 0: all RX queues of the interface */
};

struct daemon_conf {
	struct iface_conf iface[CONF_MAX_IFACES];
	unsigned int nifaces;
	struct instance_conf *instance; /* [ninstances], owned */
	unsigned int ninstances;
	enum poll_mode poll;	    /* default adaptive */
	enum agg_checksum checksum; /* default verify */
	uint32_t flush_us;	    /* default 0: end of burst */
	uint32_t chunks;	    /* per queue, a power of two; default 8192 */
	enum log_level log_level;   /* default info */
	bool foreground;	    /* do not go into the background when ready */
	bool check_only;	    /* --check: parse, report, exit */
	char ctl[108];		    /* control socket path */
	char bpffs[256];	    /* default "": bpffs_dir() looks for it */
};

/** conf_init() - defaults, no interface, no instance */
void conf_init(struct daemon_conf *c);

/**
 * conf_parse_instance() - "NAME,mac=MAC[,vlan=N],port=PORT[,KEY=VALUE...]", the keys
 * those of ghostnicd.conf(5), PORT "tap:DEV", "vhost-user:SOCKET" or "null"
 * @s:		text; on the command line and in the control protocol alike
 * @out:	filled; iface is "" if the text does not name one
 * @err:	message on failure, @errlen bytes
 *
 * Return: 0, -EINVAL
 */
int conf_parse_instance(const char *s, struct instance_conf *out, char *err,
			size_t errlen);

/**
 * conf_parse_mac() - six colon-separated octets
 * Return: 0, -EINVAL
 */
int conf_parse_mac(const char *s, uint8_t mac[6]);

/**
 * conf_read() - a configuration file
 * @c:		initialised; the file's settings are added
 * @f:		the file, at its start; not closed
 * @name:	for messages
 * @err:	"NAME:LINE: cause; remedy" on failure, @errlen bytes
 *
 * Return: 0, -EINVAL, -EIO, -ENOMEM; after failure @c is fit for conf_fini() only
 */
int conf_read(struct daemon_conf *c, FILE *f, const char *name, char *err, size_t errlen);

/**
 * conf_parse_args() - the command line, and the file it names
 * @c:		uninitialised; filled, defaults included; conf_fini() frees it,
 *		also after failure
 * @argc, @argv: of main()
 *
 * An --instance belongs to the --iface before it, or to its own iface= key.
 * Return: 0, -EINVAL (said on stderr), 1: --help or --version was answered
 */
int conf_parse_args(struct daemon_conf *c, int argc, char **argv);

/** conf_fini() - free what parsing allocated */
void conf_fini(struct daemon_conf *c);

#endif
