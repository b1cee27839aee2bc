/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cmd: the subcommands of `vm-migrate` and what they share.
 *
 * Each command is one constant, struct cmd, with a table of its options; main.c lists the
 * commands, parses by that table, and writes the help from it. Options go into variables
 * of the command's file. One thread.
 */
#ifndef VMM_CMD_H
#define VMM_CMD_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit codes; vm-migrate(8) documents them. */
enum {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,    /* the source runs on, if there was one */
	EXIT_USAGE = 2,	    /* bad options or values */
	EXIT_ABSENT = 3,    /* nobody answers there */
	EXIT_CANCELLED = 4, /* the source runs on */
	EXIT_UNCERTAIN = 5, /* the line went silent at the hand-over: paused here */
	EXIT_LOST = 6,	    /* a lost write was found */
	EXIT_CANNOT = 7,    /* this kernel or machine cannot do that */
};

enum opt_type {
	OPT_FLAG, /* bool; takes no value */
	OPT_TEXT, /* const char *, not empty */
	OPT_UINT, /* unsigned int, decimal, within min..max */
	OPT_SIZE, /* uint64_t, bytes: a number with K, M, G or T (1024) after it, within
		   * min..max */
	OPT_SECS, /* double, 0.01 to 86400 */
	OPT_WORD, /* unsigned int: index into words */
	OPT_CALL, /* set() is called, each time */
};

struct opt {
	const char *name; /* after "--"; NULL ends a table */
	char letter;	  /* after "-", 0: none */
	enum opt_type type;
	void *to; /* where the value goes; passed to set() */
	const char *arg, *help;
	uint64_t min, max;	  /* max 0: no limit */
	const char *const *words; /* NULL ends it */
	/* 0, or -errno with the reason in why, without the option's name */
	int (*set)(void *to, const char *value, char *why, size_t why_len);
};

#define OPT(name_, letter_, type_, to_, arg_, help_, ...)                                \
	{                                                                                \
		.name = (name_), .letter = (letter_), .type = OPT_##type_, .to = (to_),  \
		.arg = (arg_), .help = (help_), ##__VA_ARGS__                            \
	}
#define OPT_END                                                                          \
	{                                                                                \
		.name = NULL                                                             \
	}

struct cmd {
	const char *name;
	int (*run)(int argc, char **argv); /* operands; returns an exit code */
	int min, max;			   /* operands */
	const struct opt *opts, *more;	   /* more: a table shared with others, or NULL */
	const char *usage, *summary;
};

extern const struct cmd cmd_run, cmd_recv, cmd_send, cmd_status, cmd_cancel, cmd_pause,
	cmd_resume, cmd_quit, cmd_qemu, cmd_dirty_rate;

/* ---- what they say: results on stdout, errors and notes on stderr ------------------ */

/** cmd_as_json() - was --json given? Then results, progress and errors are JSON lines */
bool cmd_as_json(void);
void cmd_set_json(bool json);

/** cmd_error() - the command failed: cause, then remedy; no newline */
void cmd_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/** cmd_note() - worth knowing, not a failure */
void cmd_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/** cmd_json() - print @obj as a line on stdout; takes the reference */
void cmd_json(json_t *obj);

/** cmd_size() - "1.5 GiB"; @buf has CMD_SIZE_MAX bytes */
#define CMD_SIZE_MAX 24
const char *cmd_size(double bytes, char buf[CMD_SIZE_MAX]);

/**
 * cmd_bar() - show progress on stderr if that is a terminal, on one line that the next
 * call overwrites
 * @done:	0 to 1, below 0: not known
 * @text:	beside it
 *
 * cmd_bar_end() leaves the line, if there is one; errors and notes do so before they
 * print.
 */
void cmd_bar(double done, const char *text);
void cmd_bar_end(void);

/* ---- a running VM's control socket --------------------------------------------------
 */

/**
 * cmd_call() - one request to the control socket @path, one answer
 * @request:	reference is taken
 * @answer:	new reference, set on EXIT_DONE
 *
 * Says what failed. Return: an exit code
 */
int cmd_call(const char *path, json_t *request, json_t **answer);

#endif
