/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ctl: the control socket. UNIX stream, mode 0600, newline-delimited JSON.
 *
 * A request is {"cmd": NAME, ...}, at most CTL_MAX_LINE bytes; the answer is one
 * line, {"ok": true, ...} or {"ok": false, "error": TEXT}. ctl_handle() is the
 * whole protocol and does no I/O, so that tests and fuzzers call it directly; ctl_*
 * around it moves bytes for at most CTL_MAX_CLIENTS clients. Control thread.
 */
#ifndef GN_CTL_H
#define GN_CTL_H

#include "daemon.h"

#define CTL_MAX_LINE	4096 /* bytes of a request with its newline */
#define CTL_MAX_CLIENTS 16
#define CTL_MAX_FDS	2 /* that come with an answer */

struct ctl;

/* Descriptors of an answer; they belong to whoever has the struct. */
struct ctl_fds {
	unsigned int n;
	int fd[CTL_MAX_FDS];
};

/**
 * ctl_handle() - answer one request
 * @d:		the daemon
 * @line:	request, not NUL-terminated
 * @len:	bytes
 * @fds:	set to the descriptors that are to be sent with the answer's first byte;
 *		ctl_fds_close() is the caller's
 *
 * Commands: "version", "stats", "flows", "metrics" (Prometheus text in "text"),
 * "instance-add" ("spec", "iface"), "instance-del" ("name", "iface"), "instances",
 * "dma-log-start", "dma-log-swap", "dma-log-stop" ("instance", "iface", "owner"),
 * "dma-log-show" ("instance", "iface"): ctl_dma.c.
 *
 * Return: answer with its newline, malloc()ed, caller frees; NULL: out of memory
 */
char *ctl_handle(struct daemon *d, const char *line, size_t len, struct ctl_fds *fds);

/** ctl_fds_close() - close all; none are left */
void ctl_fds_close(struct ctl_fds *fds);

/** ctl_open() - listen at @path; replaces a dead socket. Return: 0, -EADDRINUSE, -errno
 */
int ctl_open(struct ctl **out, const char *path, struct daemon *d);

/** ctl_fd() - epoll descriptor: readable when ctl_serve() has work */
int ctl_fd(const struct ctl *c);

/** ctl_serve() - handle what is ready; never blocks. Return: false: someone cannot be
 * accepted now, so there will be work again at once; call it again after a pause */
bool ctl_serve(struct ctl *c);

/** ctl_close() - close, unlink; NULL is fine */
void ctl_close(struct ctl *c);

#endif
