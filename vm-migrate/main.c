// SPDX-License-Identifier: BSD-2-Clause
/*
 * vm-migrate: live migration that proves it lost nothing.
 *
 * This file picks the subcommand and parses its options by the command's own table.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../user/lib/log.h"
#include "cmd/cmd.h"
#include "text.h"

static const struct cmd *const cmds[] = {
	&cmd_run,   &cmd_recv,	 &cmd_send, &cmd_status, &cmd_cancel,
	&cmd_pause, &cmd_resume, &cmd_quit, &cmd_qemu,	 &cmd_dirty_rate,
};

#define NCMDS	 (sizeof(cmds) / sizeof(cmds[0]))
#define MAX_OPTS 64
#define OPT_BASE 256 /* getopt's value of the first option */

static bool as_json, verbose, help, version;

static const struct opt common[] = {
	OPT("json", 'j', FLAG, &as_json, NULL,
	    "results, progress and errors as JSON lines on standard output"),
	OPT("verbose", 'v', FLAG, &verbose, NULL, "say more on standard error"),
	OPT("help", 'h', FLAG, &help, NULL, "this text"),
	OPT("version", 'V', FLAG, &version, NULL, "which version this is"),
	OPT_END,
};

/* ---- help -------------------------------------------------------------------------- */

static void print_opts(FILE *f, const struct opt *o)
{
	char left[64];

	for (; o && o->name; o++) {
		int n = snprintf(left, sizeof(left), "  %c%c%c --%s%s%s",
				 o->letter ? '-' : ' ', o->letter ? o->letter : ' ',
				 o->letter ? ',' : ' ', o->name, o->arg ? " " : "",
				 o->arg ? o->arg : "");

		if (n > 30)
			fprintf(f, "%s\n%31s", left, "");
		else
			fprintf(f, "%-31s", left);
		for (const char *s = o->help; *s; s++) {
			putc(*s, f);
			if (*s == '\n')
				fprintf(f, "%31s", "");
		}
		putc('\n', f);
	}
}

static void usage_cmd(FILE *f, const struct cmd *c)
{
	fprintf(f, "usage: vm-migrate %s\n%s\n\noptions:\n", c->usage, c->summary);
	print_opts(f, c->opts);
	print_opts(f, c->more);
	print_opts(f, common);
}

static void usage_all(FILE *f)
{
	fputs("usage: vm-migrate COMMAND [options]\n\ncommands:\n", f);
	for (size_t i = 0; i < NCMDS; i++)
		fprintf(f, "  %s\n        %s\n", cmds[i]->usage, cmds[i]->summary);
	fputs("\nvm-migrate COMMAND --help lists a command's options.\n"
	      "\nexit codes: 0 done, 1 failed (the source runs on), 2 usage, 3 nobody\n"
	      "answers there, 4 cancelled (the source runs on), 5 uncertain (the line "
	      "went\n"
	      "silent at the hand-over; the source is paused), 6 a lost write was "
	      "found,\n"
	      "7 this kernel or machine cannot do that\n",
	      f);
}

/* ---- values ------------------------------------------------------------------------ */

static int set_word(const struct opt *o, const char *s, char *why, size_t len)
{
	size_t at = 0;

	for (unsigned int i = 0; o->words[i]; i++)
		if (!strcmp(o->words[i], s)) {
			*(unsigned int *)o->to = i;
			return 0;
		}
	at += (size_t)snprintf(why, len, "\"%s\" is none of:", s);
	for (unsigned int i = 0; o->words[i] && at < len; i++)
		at += (size_t)snprintf(why + at, len - at, " %s", o->words[i]);
	return -EINVAL;
}

static int set_number(const struct opt *o, const char *s, char *why, size_t len)
{
	char *end;
	uint64_t v;

	if (o->type == OPT_SIZE) {
		if (text_size(s, &v)) {
			snprintf(why, len, "\"%s\" is no size, such as 512M or 4G", s);
			return -EINVAL;
		}
	} else {
		errno = 0;
		v = strtoull(s, &end, 10);
		if (*s < '0' || *s > '9' || *end || errno || v > UINT32_MAX) {
			snprintf(why, len, "\"%s\" is no number", s);
			return -EINVAL;
		}
	}
	if (v < o->min || (o->max && v > o->max)) {
		snprintf(why, len, "%s is out of range: %llu to %llu", s,
			 (unsigned long long)o->min,
			 (unsigned long long)(o->max ? o->max : UINT64_MAX));
		return -ERANGE;
	}
	if (o->type == OPT_SIZE)
		*(uint64_t *)o->to = v;
	else
		*(unsigned int *)o->to = (unsigned int)v;
	return 0;
}

static int set_secs(const struct opt *o, const char *s, char *why, size_t len)
{
	char *end;
	double v = strtod(s, &end);

	if (end == s || *end || !(v >= 0.01 && v <= 86400)) {
		snprintf(why, len, "\"%s\" is no time: 0.01 to 86400 seconds", s);
		return -EINVAL;
	}
	*(double *)o->to = v;
	return 0;
}

static int set_opt(const struct opt *o, const char *s, char *why, size_t len)
{
	switch (o->type) {
	case OPT_FLAG: *(bool *)o->to = true; return 0;
	case OPT_TEXT:
		if (!*s) {
			snprintf(why, len, "needs a value that is not empty");
			return -EINVAL;
		}
		*(const char **)o->to = s;
		return 0;
	case OPT_UINT:
	case OPT_SIZE: return set_number(o, s, why, len);
	case OPT_SECS: return set_secs(o, s, why, len);
	case OPT_WORD: return set_word(o, s, why, len);
	case OPT_CALL: return o->set(o->to, s, why, len);
	}
	return -EINVAL;
}

/* ---- the parser -------------------------------------------------------------------- */

struct parser {
	const struct opt *opt[MAX_OPTS];
	struct option lopt[MAX_OPTS + 1];
	char sopt[2 * MAX_OPTS + 2];
	unsigned int n;
};

static void parser_add(struct parser *p, const struct opt *o)
{
	size_t at = strlen(p->sopt);

	for (; o && o->name && p->n < MAX_OPTS; o++) {
		bool takes = o->type != OPT_FLAG;

		p->opt[p->n] = o;
		p->lopt[p->n] = (struct option){
			.name = o->name,
			.has_arg = takes ? required_argument : no_argument,
			.val = OPT_BASE + (int)p->n,
		};
		p->n++;
		if (o->letter) {
			p->sopt[at++] = o->letter;
			if (takes)
				p->sopt[at++] = ':';
		}
	}
}

static const struct opt *parser_find(const struct parser *p, int v)
{
	if (v >= OPT_BASE)
		return p->opt[v - OPT_BASE];
	for (unsigned int i = 0; i < p->n; i++)
		if (p->opt[i]->letter == v)
			return p->opt[i];
	return NULL;
}

/* Return: 0, -EINVAL after saying why. Operands are then argv[optind] on */
static int parse(const struct cmd *c, int argc, char **argv)
{
	static struct parser p; /* getopt_long keeps pointers into it */
	char why[256];
	int v;

	parser_add(&p, c ? c->opts : NULL);
	parser_add(&p, c ? c->more : NULL);
	parser_add(&p, common);
	while ((v = getopt_long(argc, argv, p.sopt, p.lopt, NULL)) != -1) {
		const struct opt *o = v == '?' ? NULL : parser_find(&p, v);

		if (!o)
			return -EINVAL; /* getopt has said why */
		if (set_opt(o, optarg, why, sizeof(why))) {
			fprintf(stderr, "vm-migrate: --%s: %s\n", o->name, why);
			return -EINVAL;
		}
	}
	return 0;
}

static const struct cmd *find_cmd(const char *name)
{
	for (size_t i = 0; i < NCMDS; i++)
		if (!strcmp(cmds[i]->name, name))
			return cmds[i];
	return NULL;
}

static int hint(const struct cmd *c)
{
	fprintf(stderr, "vm-migrate: see vm-migrate %s%s--help\n", c ? c->name : "",
		c ? " " : "");
	return EXIT_USAGE;
}

int main(int argc, char **argv)
{
	/* The command comes first, as its options are not known before. */
	const bool named = argc > 1 && argv[1][0] != '-';
	const struct cmd *c = named ? find_cmd(argv[1]) : NULL;
	int rc;

	if (named && !c) {
		fprintf(stderr, "vm-migrate: no command \"%s\"\n", text_clean(argv[1]));
		return hint(NULL);
	}
	if (named) {
		argv[1] = argv[0]; /* getopt's messages begin with it */
		argc--;
		argv++;
	}
	if (parse(c, argc, argv))
		return hint(c);
	if (version) {
		puts("vm-migrate " GN_VERSION);
		return EXIT_DONE;
	}
	if (!c && !help && optind < argc) {
		fputs("vm-migrate: the command goes before its options\n", stderr);
		return hint(NULL);
	}
	if (!c) {
		usage_all(help ? stdout : stderr);
		return help ? EXIT_DONE : EXIT_USAGE;
	}
	if (help) {
		usage_cmd(stdout, c);
		return EXIT_DONE;
	}
	argc -= optind;
	argv += optind;
	if (argc < c->min || argc > c->max) {
		fprintf(stderr, "vm-migrate: %s %s\n", c->name,
			argc < c->min ? "needs an operand"
				      : "does not take so many operands");
		return hint(c);
	}
	signal(SIGPIPE, SIG_IGN);
	log_set_level(verbose ? LOG_LVL_DEBUG : LOG_LVL_WARN);
	cmd_set_json(as_json);
	rc = c->run(argc, argv);
	cmd_bar_end();
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "vm-migrate: cannot write the result\n");
		return rc ? rc : EXIT_FAILED;
	}
	return rc;
}
