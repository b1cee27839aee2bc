// SPDX-License-Identifier: BSD-2-Clause
/*
 * ghostnic: attach the XDP program, ask and order the daemon.
 *
 * This file parses options and picks the subcommand. All options are known to one
 * parser; each command says which of them it takes.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd.h"
#include "out.h"

/* Options a command takes beside those of every command. */
enum {
	TAKES_MODE = 1 << 0,
	TAKES_FORCE = 1 << 1,
	TAKES_WATCH = 1 << 2,
	TAKES_COUNT = 1 << 3,
	TAKES_ONCE = 1 << 4,
	TAKES_INTERVAL = 1 << 5,
	TAKES_IFACE = 1 << 6,
	TAKES_BPFFS = 1 << 7,
	TAKES_CTL = 1 << 8,
	TAKES_INSTANCE = 1 << 9,
	TAKES_OWNER = 1 << 10,
	TAKES_FILE = 1 << 11,
	TAKES_CAPTURE = 1 << 12,
};

static const struct cmd {
	const char *name;
	int (*run)(const struct opts *o, int argc, char **argv);
	int min, max; /* operands */
	unsigned int takes;
	const char *usage, *summary;
} cmds[] = {
	{ "attach", cmd_attach, 1, 1, TAKES_MODE | TAKES_FORCE | TAKES_BPFFS,
	  "attach IF [--mode auto|native|generic] [--force]",
	  "put the XDP program on interface IF; twice is fine" },
	{ "detach", cmd_detach, 1, 1, TAKES_BPFFS, "detach IF",
	  "take it off, remove its pins, give back what attach changed" },
	{ "status", cmd_status, 0, 1, TAKES_BPFFS | TAKES_CTL, "status [IF]",
	  "what is attached, how, and who is served" },
	{ "stats", cmd_stats, 0, 1, TAKES_WATCH | TAKES_COUNT | TAKES_BPFFS | TAKES_CTL,
	  "stats [IF] [--watch[=SECONDS]] [--count N]",
	  "every counter that is not 0; --watch: rates too, again and again" },
	{ "flows", cmd_flows, 0, 0, TAKES_CTL, "flows", "flows the daemon aggregates" },
	{ "instance", cmd_instance, 1, 2, TAKES_IFACE | TAKES_CTL,
	  "instance add NAME,mac=MAC[,vlan=N],port=PORT | del NAME | list [--iface IF]",
	  "add, remove and list the instances of a running daemon" },
	{ "dma-log", cmd_dma_log, 1, 1,
	  TAKES_INSTANCE | TAKES_IFACE | TAKES_OWNER | TAKES_FILE | TAKES_WATCH |
		  TAKES_COUNT | TAKES_FORCE | TAKES_CTL,
	  "dma-log start|swap|stop|show --instance NAME [--iface IF] [--owner WHO]\n"
	  "        swap: [-w FILE | --watch[=SECONDS] [--count N]]; stop: [-w FILE] "
	  "[--force]",
	  "track which pages of a guest the daemon writes; print those since the last "
	  "swap" },
	{ "metrics", cmd_metrics, 0, 0, TAKES_CTL, "metrics",
	  "the daemon's counters as Prometheus text" },
	{ "top", cmd_top, 0, 0,
	  TAKES_ONCE | TAKES_INTERVAL | TAKES_COUNT | TAKES_BPFFS | TAKES_CTL,
	  "top [--interval SECONDS] [--count N] [--once]",
	  "live view of rates and drops; q quits" },
	{ "capture", cmd_capture, 0, 0,
	  TAKES_INSTANCE | TAKES_FILE | TAKES_CAPTURE | TAKES_COUNT | TAKES_IFACE |
		  TAKES_CTL,
	  "capture --instance NAME -w FILE [-s BYTES] [-c COUNT] [--segments] [--iface "
	  "IF]",
	  "write an instance's frames, both directions, to a pcapng file; - is standard "
	  "output" },
};

#define NCMDS (sizeof(cmds) / sizeof(cmds[0]))

enum {
	OPT_MODE = 256,
	OPT_FORCE,
	OPT_WATCH,
	OPT_COUNT,
	OPT_ONCE,
	OPT_INTERVAL,
	OPT_IFACE,
	OPT_BPFFS,
	OPT_CTL,
	OPT_INSTANCE,
	OPT_OWNER,
	OPT_SEGMENTS
};

static const struct option longopts[] = {
	{ "json", no_argument, NULL, 'j' },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ "verbose", no_argument, NULL, 'v' },
	{ "mode", required_argument, NULL, OPT_MODE },
	{ "force", no_argument, NULL, OPT_FORCE },
	{ "watch", optional_argument, NULL, OPT_WATCH },
	{ "count", required_argument, NULL, OPT_COUNT },
	{ "once", no_argument, NULL, OPT_ONCE },
	{ "interval", required_argument, NULL, OPT_INTERVAL },
	{ "iface", required_argument, NULL, OPT_IFACE },
	{ "bpffs", required_argument, NULL, OPT_BPFFS },
	{ "ctl", required_argument, NULL, OPT_CTL },
	{ "instance", required_argument, NULL, OPT_INSTANCE },
	{ "owner", required_argument, NULL, OPT_OWNER },
	{ "write", required_argument, NULL, 'w' },
	{ "snaplen", required_argument, NULL, 's' },
	{ "segments", no_argument, NULL, OPT_SEGMENTS },
	{ NULL, 0, NULL, 0 },
};

static void usage_common(FILE *f, unsigned int takes)
{
	fputs("\noptions:\n"
	      "  -j, --json          JSON on standard output, errors and notes in it\n"
	      "  -v, --verbose       let libbpf and libxdp speak\n"
	      "  -h, --help          this text\n"
	      "  -V, --version       the version\n",
	      f);
	if (takes & TAKES_BPFFS)
		fputs("  --bpffs DIRECTORY   where pins are (or environment "
		      "GHOSTNIC_BPFFS)\n",
		      f);
	if (takes & TAKES_CTL)
		fputs("  --ctl SOCKET        control socket (or environment "
		      "GHOSTNIC_CTL)\n",
		      f);
	if (takes & TAKES_IFACE)
		fputs("  --iface IF          interface, if the daemon serves several\n",
		      f);
	if (takes & TAKES_INSTANCE)
		fputs("  --instance NAME     the instance\n", f);
	if (takes & TAKES_FILE)
		fputs("  -w, --write FILE    what to write the result to\n", f);
	if (takes & TAKES_OWNER)
		fputs("  --owner WHO         who harvests the log; nobody else may then\n"
		      "  --force             stop: although another owns it\n",
		      f);
	if (takes & TAKES_CAPTURE)
		fputs("  -s, --snaplen BYTES most bytes of a frame to keep (default "
		      "262144)\n"
		      "  -c, --count COUNT   stop after so many packets\n"
		      "  --segments          cut super-packets into packets\n",
		      f);
	if (takes & TAKES_MODE)
		fputs("  --mode MODE         native: in the driver; generic: any "
		      "interface;\n"
		      "                      auto (default): native if it works\n"
		      "  --force             attach anew, although attached\n",
		      f);
	if (takes & TAKES_ONCE)
		fputs("  --once              one frame, as when the output is no "
		      "terminal\n",
		      f);
}

static void usage_all(FILE *f)
{
	size_t i;

	fputs("usage: ghostnic COMMAND [options]\n\ncommands:\n", f);
	for (i = 0; i < NCMDS; i++)
		fprintf(f, "  %s\n        %s\n", cmds[i].usage, cmds[i].summary);
	usage_common(f, TAKES_BPFFS | TAKES_CTL);
	fputs("\nexit codes: 0 done, 1 failed, 2 usage, 3 not attached or no daemon\n",
	      f);
}

static void usage_cmd(FILE *f, const struct cmd *c)
{
	fprintf(f, "usage: ghostnic %s\n%s\n", c->usage, c->summary);
	usage_common(f, c->takes);
}

static unsigned int needs(int opt)
{
	switch (opt) {
	case OPT_MODE: return TAKES_MODE;
	case OPT_FORCE: return TAKES_FORCE;
	case OPT_WATCH: return TAKES_WATCH;
	case OPT_COUNT: return TAKES_COUNT;
	case OPT_ONCE: return TAKES_ONCE;
	case OPT_INTERVAL: return TAKES_INTERVAL;
	case OPT_IFACE: return TAKES_IFACE;
	case OPT_BPFFS: return TAKES_BPFFS;
	case OPT_CTL: return TAKES_CTL;
	case OPT_INSTANCE: return TAKES_INSTANCE;
	case OPT_OWNER: return TAKES_OWNER;
	case 'w': return TAKES_FILE;
	case OPT_SEGMENTS:
	case 's': return TAKES_CAPTURE;
	default: return 0;
	}
}

static bool parse_mode(const char *s, enum attach_mode *out)
{
	static const char *const name[] = { "auto", "native", "generic" };
	unsigned int i;

	for (i = 0; i < sizeof(name) / sizeof(name[0]); i++)
		if (!strcmp(s, name[i])) {
			*out = (enum attach_mode)i;
			return true;
		}
	return false;
}

static bool parse_seconds(const char *s, double *out)
{
	char *end;
	double v = strtod(s, &end);

	if (end == s || *end || !(v >= 0.01 && v <= 86400))
		return false;
	*out = v;
	return true;
}

static bool parse_count(const char *s, unsigned int *out)
{
	char *end;
	unsigned long v = strtoul(s, &end, 10);

	if (*s < '0' || *s > '9' || *end || !v || v > 1000000000)
		return false;
	*out = (unsigned int)v;
	return true;
}

static bool set_option(struct opts *o, int opt, const char *arg)
{
	switch (opt) {
	case 'j': o->json = true; return true;
	case 'v': o->verbose = true; return true;
	case OPT_MODE: return parse_mode(arg, &o->mode);
	case OPT_FORCE: o->force = true; return true;
	case OPT_WATCH:
		o->watch = true;
		return !arg || parse_seconds(arg, &o->interval_s);
	case OPT_COUNT: return parse_count(arg, &o->count);
	case OPT_ONCE: o->once = true; return true;
	case OPT_INTERVAL: return parse_seconds(arg, &o->interval_s);
	case OPT_IFACE: o->iface = arg; return true;
	case OPT_BPFFS: o->bpffs = arg; return true;
	case OPT_CTL: o->ctl = arg; return true;
	case OPT_INSTANCE: o->instance = arg; return true;
	case OPT_OWNER: o->owner = arg; return true;
	case 'w': o->file = arg; return true;
	case OPT_SEGMENTS: o->segments = true; return true;
	case 's': return parse_count(arg, &o->snaplen);
	default: return false;
	}
}

static const char *long_name(int opt)
{
	const struct option *l;

	for (l = longopts; l->name; l++)
		if (l->val == opt)
			return l->name;
	return "?";
}

/* First word that is no option; the parser has moved operands to the end. */
static const struct cmd *find_cmd(const char *name)
{
	size_t i;

	for (i = 0; i < NCMDS; i++)
		if (!strcmp(cmds[i].name, name))
			return &cmds[i];
	return NULL;
}

int main(int argc, char **argv)
{
	struct opts o = { .interval_s = 1, .snaplen = 262144 };
	unsigned int used = 0, bad;
	bool help = false;
	const struct cmd *c;
	int opt, rc;

	while ((opt = getopt_long(argc, argv, "jhVvw:s:c:", longopts, NULL)) != -1) {
		if (opt == '?')
			goto hint;
		if (opt == 'V') {
			puts("ghostnic " GN_VERSION);
			return EXIT_DONE;
		}
		if (opt == 'c')
			opt = OPT_COUNT;
		help |= opt == 'h';
		if (opt != 'h' && !set_option(&o, opt, optarg)) {
			fprintf(stderr,
				"ghostnic: --%s: \"%s\" is not one of its values\n",
				long_name(opt), optarg);
			goto hint;
		}
		used |= needs(opt);
	}
	out_init(o.json);
	if (optind == argc) {
		usage_all(help ? stdout : stderr);
		return help ? EXIT_DONE : EXIT_USAGE;
	}
	c = find_cmd(argv[optind]);
	if (!c) {
		fprintf(stderr, "ghostnic: no command \"%s\"\n", argv[optind]);
		goto hint;
	}
	if (help) {
		usage_cmd(stdout, c);
		return EXIT_DONE;
	}
	bad = used & ~c->takes;
	argc -= optind + 1;
	argv += optind + 1;
	if (bad || argc < c->min || argc > c->max) {
		fprintf(stderr, "ghostnic: %s %s\n", c->name,
			bad		? "does not take one of these options"
			: argc < c->min ? "needs an operand"
					: "does not take so many operands");
		usage_cmd(stderr, c);
		return EXIT_USAGE;
	}
	rc = c->run(&o, argc, argv);
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "ghostnic: cannot write the result\n");
		return EXIT_FAILED;
	}
	return rc;
hint:
	fprintf(stderr, "ghostnic: see ghostnic --help\n");
	return EXIT_USAGE;
}
