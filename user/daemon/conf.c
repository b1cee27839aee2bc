// SPDX-License-Identifier: BSD-2-Clause
/*
 * conf: the command line.
 *
 * Read twice: first for --config, so that the file comes first and the command
 * line wins; then for the rest. Control thread only.
 */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "conf_set.h"

enum option_id {
	OPT_IFACE = 256, /* above every short option */
	OPT_INSTANCE,
	OPT_QUEUES,
	OPT_CONFIG,
	OPT_CHECK,
	OPT_FOREGROUND,
	OPT_HELP,
	OPT_VERSION,
	OPT_SETTING, /* conf_set(), by the option's name */
};

static const struct option options[] = {
	{ "iface", required_argument, NULL, OPT_IFACE },
	{ "instance", required_argument, NULL, OPT_INSTANCE },
	{ "queues", required_argument, NULL, OPT_QUEUES },
	{ "flush-us", required_argument, NULL, OPT_SETTING },
	{ "poll", required_argument, NULL, OPT_SETTING },
	{ "checksum", required_argument, NULL, OPT_SETTING },
	{ "chunks", required_argument, NULL, OPT_SETTING },
	{ "ctl", required_argument, NULL, OPT_SETTING },
	{ "bpffs", required_argument, NULL, OPT_SETTING },
	{ "log-level", required_argument, NULL, OPT_SETTING },
	{ "config", required_argument, NULL, OPT_CONFIG },
	{ "check", no_argument, NULL, OPT_CHECK },
	{ "foreground", no_argument, NULL, OPT_FOREGROUND },
	{ "help", no_argument, NULL, OPT_HELP },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static const char usage[] =
	"Usage: ghostnicd --iface IF --instance NAME,mac=MAC[,vlan=N],port=PORT "
	"[OPTION]...\n"
	"       ghostnicd --config FILE [OPTION]...\n"
	"\n"
	"Receive offload in software: aggregates the packets of each instance and gives\n"
	"them to its port. Run \"ghostnic attach IF\" first.\n"
	"\n"
	"  --iface IF          interface to serve; may be repeated\n"
	"  --queues N          receive queues of the --iface before it (default: all)\n"
	"  --instance SPEC     VM or container on the --iface before it; may be "
	"repeated:\n"
	"                      "
	"NAME,mac=MAC[,vlan=N],port=PORT[,rate=BITS][,allow-spoof]\n"
	"                      [,iface=IF], PORT being tap:DEV, "
	"vhost-user:SOCKET[,client],\n"
	"                      shm:SOCKET[,hold=N] or null[,copy]\n"
	"  --flush-us N        let a chain wait so long for its next segment\n"
	"                      (default 0: until the end of the burst)\n"
	"  --poll MODE         busy, adaptive (default) or wait\n"
	"  --checksum MODE     verify (default): sum payloads before they merge;\n"
	"                      carry: add the sums up, the receiver checks\n"
	"  --chunks N          packet buffers per queue, a power of two (default 8192)\n"
	"  --ctl PATH          control socket (default " CONF_DEFAULT_CTL ")\n"
	"  --bpffs DIR         where \"ghostnic attach\" pinned its maps\n"
	"  --log-level LEVEL   error, warn, info (default) or debug\n"
	"  --config FILE       read FILE first, see ghostnicd.conf(5)\n"
	"  --check             check the configuration and exit\n"
	"  --foreground        stay in the foreground; without it ghostnicd returns "
	"when\n"
	"                      it is ready and goes on in the background\n"
	"  --help, --version   print this, or the version, and exit\n"
	"\n"
	"Exit status: 0 stopped by a signal, or the request was answered; 1 could not\n"
	"start, or failed; 2 wrong command line or configuration.\n";

void conf_init(struct daemon_conf *c)
{
	*c = (struct daemon_conf){
		.poll = POLL_ADAPTIVE,
		.checksum = AGG_VERIFY,
		.chunks = 8192,
		.log_level = LOG_LVL_INFO,
		.ctl = CONF_DEFAULT_CTL,
	};
}

void conf_fini(struct daemon_conf *c)
{
	free(c->instance);
	c->instance = NULL;
	c->ninstances = 0;
}

/* Pass one. Return: 0, -EINVAL, 1: answered */
static int find_config(int argc, char **argv, const char **file)
{
	int o;

	optind = 0;
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case '?': fputs("Try \"ghostnicd --help\".\n", stderr); return -EINVAL;
		case OPT_HELP: fputs(usage, stdout); return 1;
		case OPT_VERSION:
			printf("ghostnicd %s (ABI %d)\n", GN_VERSION, GN_ABI);
			return 1;
		case OPT_CONFIG:
			if (*file) {
				fputs("ghostnicd: --config is given twice; keep one\n",
				      stderr);
				return -EINVAL;
			}
			*file = optarg;
			break;
		default: break;
		}
	}
	if (optind < argc) {
		fprintf(stderr,
			"ghostnicd: \"%s\" belongs to no option. Try \"ghostnicd "
			"--help\".\n",
			argv[optind]);
		return -EINVAL;
	}
	return 0;
}

static int read_file(struct daemon_conf *c, const char *file, char *err, size_t errlen)
{
	FILE *f = fopen(file, "re");
	int ret;

	if (!f)
		return conf_fail(err, errlen, "%s: %s", file, strerror(errno));
	ret = conf_read(c, f, file, err, errlen);
	fclose(f);
	return ret;
}

/* Pass two, one option. @cli collects instances, @iface is the --iface before. */
static int apply(struct daemon_conf *c, struct daemon_conf *cli, int o, const char *name,
		 struct iface_conf **iface, char *err, size_t errlen)
{
	struct instance_conf in;
	int ret;

	switch (o) {
	case OPT_IFACE: return conf_get_iface(c, optarg, iface, err, errlen);
	case OPT_QUEUES:
		if (!*iface)
			return conf_fail(err, errlen,
					 "--queues belongs after an --iface");
		return conf_set_queues(*iface, optarg, err, errlen);
	case OPT_INSTANCE:
		ret = conf_parse_instance(optarg, &in, err, errlen);
		if (ret)
			return ret;
		if (!*in.iface && *iface)
			strcpy(in.iface, (*iface)->name);
		conf_default_iface(c, &in);
		return conf_add_instance(cli, &in, false, err, errlen);
	case OPT_SETTING: return conf_set(c, name, optarg, err, errlen);
	case OPT_CHECK: c->check_only = true; return 0;
	case OPT_FOREGROUND: c->foreground = true; return 0;
	default: return 0; /* pass one had it */
	}
}

static int parse(struct daemon_conf *c, int argc, char **argv, const char *file,
		 char *err, size_t errlen)
{
	struct daemon_conf cli = { .ninstances = 0 };
	struct iface_conf *iface = NULL;
	int o, index = 0, ret = 0;

	if (file) {
		ret = read_file(c, file, err, errlen);
		if (ret)
			return ret;
	}
	optind = 0;
	while (!ret && (o = getopt_long(argc, argv, "", options, &index)) != -1)
		ret = apply(c, &cli, o, options[index].name, &iface, err, errlen);
	if (!ret && !c->nifaces)
		ret = conf_fail(err, errlen,
				"no interface; add --iface IF or --config FILE with "
				"[interface IF]");
	for (unsigned int i = 0; !ret && i < cli.ninstances; i++) {
		ret = conf_add_instance(c, &cli.instance[i], true, err, errlen);
		if (!ret)
			ret = conf_check_iface(c, &cli.instance[i], err, errlen);
	}
	conf_fini(&cli);
	return ret;
}

int conf_parse_args(struct daemon_conf *c, int argc, char **argv)
{
	char err[CONF_ERR_MAX] = "";
	const char *file = NULL;
	int ret;

	conf_init(c);
	ret = find_config(argc, argv, &file);
	if (ret)
		return ret;
	ret = parse(c, argc, argv, file, err, sizeof(err));
	if (ret)
		fprintf(stderr, "ghostnicd: %s\n", err);
	return ret ? -EINVAL : 0;
}
