// SPDX-License-Identifier: BSD-2-Clause
/* ghostmem: memory shared between nodes, from the command line. See ghostmem(1). */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../bus.h"
#include "cmd.h"

static const struct cmd *const cmds[] = {
	&cmd_export, &cmd_import, &cmd_ls,    &cmd_stat, &cmd_get,
	&cmd_put,    &cmd_watch,  &cmd_bench, &cmd_move, &cmd_revoke,
};

#define NCMDS (sizeof(cmds) / sizeof(cmds[0]))

static const struct help {
	char letter;
	const char *name, *arg, *text;
} helps[] = {
	{ 'a', "agent", "PATH", "socket of the agent; GHOSTMEM_AGENT" },
	{ 'k', "key-file", "FILE", "the region's key; else in GHOSTMEM_KEY" },
	{ 'K', "read-key-file", "FILE", "a second key, for readers" },
	{ 'r', "read-only", NULL, "import to read" },
	{ 'p', "page-size", "SIZE", "export: 4K, or 2M: huge pages" },
	{ 'f', "file", "FILE", "export: what it begins with; get, put: bytes" },
	{ 't', "text", NULL, "put: the last operand is the text, not a file" },
	{ 'x', "exec", "COMMAND", "run it by sh, then end" },
	{ 'T', "to", "NODE", "move: the node that shall serve it" },
	{ 'n', "count", "N", "how many: operations; values to print" },
	{ 'i', "interval", "MS", "between two looks; 100" },
	{ 'j', "json", NULL, "results and errors as JSON lines" },
	{ 'h', "help", NULL, "this text" },
};

#define NHELPS (sizeof(helps) / sizeof(helps[0]))

static void usage_cmd(FILE *f, const struct cmd *c)
{
	fprintf(f, "usage: ghostmem %s [OPTION...] %s\n%s\n\noptions:\n", c->name,
		c->operands, c->summary);
	for (size_t i = 0; i < NHELPS; i++) {
		const struct help *h = &helps[i];
		char left[40];

		if (!strchr(c->opts, h->letter) && !strchr("ajh", h->letter))
			continue;
		snprintf(left, sizeof(left), "-%c, --%s%s%s", h->letter, h->name,
			 h->arg ? " " : "", h->arg ? h->arg : "");
		fprintf(f, "  %-26s %s\n", left, h->text);
	}
}

static void usage(FILE *f)
{
	fputs("usage: ghostmem COMMAND [OPTION...] [OPERAND...]\n\ncommands:\n", f);
	for (size_t i = 0; i < NCMDS; i++)
		fprintf(f, "  %-7s %-24s %s\n", cmds[i]->name, cmds[i]->operands,
			cmds[i]->summary);
	fputs("\nghostmem COMMAND --help lists its options. REGION is a name, or a bus "
	      "address\nthat begins with 0x. Exit codes: 0 done, 1 failed, 2 usage, 3 no "
	      "agent,\n4 refused, 5 no such region or address, 6 owner gone\n",
	      f);
}

static int say_error(const struct cmd_opts *o, const char *what, int err, int code,
		     const char *remedy)
{
	if (o->json) {
		json_t *v = json_pack("{s:s,s:s,s:i}", "error", what, "reason",
				      strerror(-err), "exit", code);

		if (remedy)
			json_object_set_new(v, "remedy", json_string(remedy));
		cmd_json(v);
	} else {
		fprintf(stderr, "ghostmem: %s: %s%s%s\n", what, strerror(-err),
			remedy ? "\n  " : "", remedy ? remedy : "");
	}
	return code;
}

int cmd_file_error(const struct cmd_opts *o, int err, const char *path)
{
	return say_error(o, path, err, EXIT_FAILED, NULL);
}

int cmd_error(const struct cmd_opts *o, int err, const char *fmt, ...)
{
	const char *remedy = NULL;
	char what[256];
	int code = EXIT_FAILED;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(what, sizeof(what), fmt, ap);
	va_end(ap);
	switch (err) {
	case -ECONNREFUSED:
	case -ECONNRESET:
		code = EXIT_NO_AGENT;
		remedy = "is ghostmemd running? --agent or GHOSTMEM_AGENT names its "
			 "socket";
		break;
	case -EACCES:
		code = EXIT_REFUSED;
		remedy = "the key is not the region's; --key-file or GHOSTMEM_KEY gives "
			 "it";
		break;
	case -EPROTO:
		code = EXIT_REFUSED;
		remedy = "do both nodes use TLS, and fitting credentials? The log of "
			 "ghostmemd says what is wrong";
		break;
	case -ENOKEY:
		code = EXIT_REFUSED;
		remedy = "the owner wants TLS: this user needs to read the agent's "
			 "--tls-dir, or has credentials in GHOSTMEM_TLS_DIR";
		break;
	case -EPERM:
		code = EXIT_REFUSED;
		remedy = "the key, or the import, is for reading; or this process may "
			 "have no userfaultfd (vm.unprivileged_userfaultfd)";
		break;
	case -ENOENT:
	case -ESTALE:
		code = EXIT_UNKNOWN;
		remedy = "ghostmem ls shows the regions there are";
		break;
	case -ERANGE:
		code = EXIT_UNKNOWN;
		remedy = "ghostmem ls shows the region's size";
		break;
	case -EIO:
	case -ETIMEDOUT:
		code = EXIT_GONE;
		remedy = "the owner does not answer, or bytes were lost with a node that "
			 "wrote them";
		break;
	case -EEXIST: remedy = "choose another name, or revoke that region"; break;
	case -EREMOTE:
		code = EXIT_UNKNOWN;
		remedy = "another node serves it: ask that node's agent; ghostmem ls "
			 "shows "
			 "which";
		break;
	case -EHOSTUNREACH:
		remedy = "no agent of that name is alive in the directory, or it cannot "
			 "be "
			 "reached";
		break;
	case -EBUSY:
		remedy = "it is being moved, or imported twice where it shall go";
		break;
	case -ENOBUFS:
		remedy = "a region with pages of 2 MiB needs as many free huge pages on "
			 "each node that maps it: sysctl vm.nr_hugepages=N sets some "
			 "aside";
		break;
	case -EOPNOTSUPP: remedy = "the agent of this node cannot do that"; break;
	}
	return say_error(o, what, err, code, remedy);
}

void cmd_json(json_t *v)
{
	json_dumpf(v, stdout, JSON_COMPACT);
	putchar('\n');
	fflush(stdout);
	json_decref(v);
}

int cmd_number(const char *s, uint64_t *out)
{
	static const char units[] = "KMGT";
	const char *u;
	uint64_t v;
	char *end;

	errno = 0;
	v = strtoull(s, &end, 0);
	if (*s < '0' || *s > '9' || errno)
		return -EINVAL;
	if (*end) {
		u = strchr(units, *end);
		if (!u || end[1] || v >> (64 - 10 * (u - units + 1)))
			return -EINVAL;
		v <<= 10 * (u - units + 1);
	}
	*out = v;
	return 0;
}

int cmd_open(const struct cmd_opts *o, const char *which, unsigned int flags,
	     struct ghostmem **g, struct ghostmem_region **r)
{
	struct ghostmem_import i = { .key = o->key.bytes,
				     .key_len = o->key.len,
				     .flags = flags };
	int err;

	if (!o->key.len) {
		fputs("ghostmem: a region has a key: --key-file FILE, or GHOSTMEM_KEY\n",
		      stderr);
		return EXIT_USAGE;
	}
	if (strncmp(which, "0x", 2))
		i.name = which;
	else if (cmd_number(which, &i.bus))
		return cmd_error(o, -ENOENT, "%s", which);
	err = ghostmem_open(o->agent, g);
	if (err)
		return cmd_error(o, err == -ENOENT ? -ECONNREFUSED : err, "agent");
	err = ghostmem_import(*g, &i, r);
	if (!err)
		return 0;
	ghostmem_close(*g);
	return cmd_error(o, err, "region %s", which);
}

/* ---- options --------------------------------------------------------------------------
 */

static int read_key(const char *path, struct gm_key *out)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	uint8_t buf[GM_KEY_MAX + 2];
	ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf));

	if (fd >= 0)
		close(fd);
	if (n > 0 && buf[n - 1] == '\n')
		n--;
	if (n < 1 || n > GM_KEY_MAX) {
		fprintf(stderr, "ghostmem: %s: %s\n", path,
			n < 0 ? strerror(errno) : "a key has 1 to 64 bytes");
		return -EINVAL;
	}
	out->len = (uint8_t)n;
	memcpy(out->bytes, buf, (size_t)n);
	return 0;
}

static int number_arg(const char *s, unsigned int *out)
{
	uint64_t v;

	if (cmd_number(s, &v) || !v || v > 1000000000) {
		fprintf(stderr, "ghostmem: %s: a number from 1 to 10^9 is expected\n", s);
		return -EINVAL;
	}
	*out = (unsigned int)v;
	return 0;
}

static int parse(const struct cmd *c, int argc, char **argv, struct cmd_opts *o)
{
	struct option longs[NHELPS + 1] = { 0 };
	char shorts[3 * NHELPS + 1] = "", *at = shorts;
	const char *key = getenv("GHOSTMEM_KEY");
	int opt;

	for (size_t i = 0; i < NHELPS; i++) {
		const struct help *h = &helps[i];

		longs[i] = (struct option){ h->name,
					    h->arg ? required_argument : no_argument,
					    NULL, h->letter };
		*at++ = h->letter;
		if (h->arg)
			*at++ = ':';
	}
	*at = 0;
	if (key && *key && strlen(key) <= GM_KEY_MAX) {
		o->key.len = (uint8_t)strlen(key);
		memcpy(o->key.bytes, key, o->key.len);
	}
	while ((opt = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		if (opt != '?' && opt && !strchr(c->opts, opt) && !strchr("ajh", opt)) {
			fprintf(stderr, "ghostmem %s: has no option -%c\n", c->name, opt);
			opt = '?';
		}
		switch (opt) {
		case 'a': o->agent = optarg; break;
		case 'k':
			if (read_key(optarg, &o->key))
				return EXIT_USAGE;
			break;
		case 'K':
			if (read_key(optarg, &o->read_key))
				return EXIT_USAGE;
			break;
		case 'p':
			if (cmd_number(optarg, &o->page) || !gm_page_shift(o->page)) {
				fprintf(stderr, "ghostmem: page size %s: 4K or 2M\n",
					optarg);
				return EXIT_USAGE;
			}
			break;
		case 'r': o->read_only = true; break;
		case 'f': o->file = optarg; break;
		case 't': o->text = true; break;
		case 'T': o->to = optarg; break;
		case 'x': o->run = optarg; break;
		case 'n':
			if (number_arg(optarg, &o->count))
				return EXIT_USAGE;
			break;
		case 'i':
			if (number_arg(optarg, &o->interval_ms))
				return EXIT_USAGE;
			break;
		case 'j': o->json = true; break;
		case 'h': usage_cmd(stdout, c); return -1;
		default: usage_cmd(stderr, c); return EXIT_USAGE;
		}
	}
	if (argc - optind < c->min || argc - optind > c->max) {
		usage_cmd(stderr, c);
		return EXIT_USAGE;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct cmd_opts o = { .interval_ms = 100 };
	const struct cmd *c = NULL;
	int err;

	signal(SIGPIPE, SIG_IGN);
	if (argc < 2) {
		usage(stderr);
		return EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
		usage(stdout);
		return 0;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		puts("ghostmem " GN_VERSION);
		return 0;
	}
	for (size_t i = 0; i < NCMDS; i++)
		if (!strcmp(argv[1], cmds[i]->name))
			c = cmds[i];
	if (!c) {
		fprintf(stderr, "ghostmem: no command \"%s\"\n", argv[1]);
		usage(stderr);
		return EXIT_USAGE;
	}
	err = parse(c, argc - 1, argv + 1, &o);
	if (err)
		return err < 0 ? 0 : err;
	err = c->run(&o, argc - 1 - optind, argv + 1 + optind);
	gm_key_wipe(&o.key);
	gm_key_wipe(&o.read_key);
	if (fflush(stdout) && !err)
		return EXIT_FAILED;
	return err;
}
