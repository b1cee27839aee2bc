/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * cmd: the subcommands of `ghostnic` and what they share.
 *
 * main.c owns the options and passes them read-only; one thread.
 */
#ifndef GN_LOADER_CMD_H
#define GN_LOADER_CMD_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Exit codes; ghostnic(8) documents them. */
enum {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_ABSENT = 3, /* not attached, or no daemon */
};

enum attach_mode { MODE_AUTO, MODE_NATIVE, MODE_GENERIC };

struct opts {
	bool json;
	bool force;
	bool once;
	bool watch;
	bool verbose;
	enum attach_mode mode;
	double interval_s;    /* of --watch and top */
	unsigned int count;   /* reports to print; 0: no end */
	const char *bpffs;    /* NULL: find it */
	const char *ctl;      /* NULL: the default */
	const char *iface;    /* NULL: the only one */
	const char *instance; /* NULL: not named */
	const char *owner;    /* of a DMA log, NULL: none */
	const char *file;     /* to write, NULL: none; capture: "-" is standard output */
	uint32_t snaplen;     /* bytes of a packet to capture */
	bool segments;	      /* capture: cut super-packets into packets */
};

/* Each returns an exit code; argv[0..argc) are the operands. */
int cmd_attach(const struct opts *o, int argc, char **argv);
int cmd_detach(const struct opts *o, int argc, char **argv);
int cmd_status(const struct opts *o, int argc, char **argv);
int cmd_stats(const struct opts *o, int argc, char **argv);
int cmd_flows(const struct opts *o, int argc, char **argv);
int cmd_instance(const struct opts *o, int argc, char **argv);
int cmd_metrics(const struct opts *o, int argc, char **argv);
int cmd_dma_log(const struct opts *o, int argc, char **argv);
int cmd_top(const struct opts *o, int argc, char **argv);
int cmd_capture(const struct opts *o, int argc, char **argv);

/** feature_names() - ethtool's names of a mask of enum link_feature; new array */
json_t *feature_names(uint32_t mask);

#endif
