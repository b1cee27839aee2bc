/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cmd: the subcommands of `ghostmem` and what they share. One constant per command; cmd.c
 * lists them and parses the options, which are the same few for all. One thread.
 */
#ifndef GM_CMD_H
#define GM_CMD_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../ghostmem.h"
#include "../key.h"

/* Exit codes; ghostmem(1) documents them. */
enum {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_NO_AGENT = 3, /* the agent of this node does not answer */
	EXIT_REFUSED = 4,  /* wrong key, or not the right to write */
	EXIT_UNKNOWN = 5,  /* no such region, revoked, beyond its end */
	EXIT_GONE = 6,	   /* the owner is gone, or bytes were lost */
};

struct cmd_opts {
	bool json, read_only, text;
	const char *agent; /* NULL: default */
	const char *file;  /* export: what it begins with; get, put: bytes */
	const char *to;	   /* move: node */
	uint64_t page;	   /* export: bytes; 0: not said */
	const char *run;   /* export, import: command to run with the window there */
	struct gm_key key;
	struct gm_key read_key; /* len 0: none */
	unsigned int count, interval_ms;
};

struct cmd {
	const char *name, *operands, *summary;
	int min, max;	  /* operands */
	const char *opts; /* letters it takes, of cmd.c's table */
	int (*run)(const struct cmd_opts *o, int argc, char **argv);
};

extern const struct cmd cmd_export, cmd_import, cmd_ls, cmd_stat, cmd_get, cmd_put,
	cmd_watch, cmd_bench, cmd_revoke, cmd_move;

/** cmd_error() - say what failed, then a remedy if there is one for @err.
 * Return: the exit code for @err */
int cmd_error(const struct cmd_opts *o, int err, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/** cmd_file_error() - as cmd_error(), for a file of this machine */
int cmd_file_error(const struct cmd_opts *o, int err, const char *path);

/** cmd_json() - print @v as a line; takes the reference */
void cmd_json(json_t *v);

/** cmd_number() - bytes, offsets: decimal or 0x; K, M, G, T after it. Return: 0, -EINVAL
 */
int cmd_number(const char *s, uint64_t *out);

/** cmd_revoke_here() - end a region of this node. Return: 0; -ENOENT, -EREMOTE: it is not,
 * or not here; -ECONNREFUSED: no agent; -errno */
int cmd_revoke_here(const struct cmd_opts *o, const char *name);

/** cmd_open() - agent, then region by name or bus address ("0x..."). Return: 0 or, said
 * already, an exit code */
int cmd_open(const struct cmd_opts *o, const char *which, unsigned int flags,
	     struct ghostmem **g, struct ghostmem_region **r);

#endif
