/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ctl_cmd: what the commands of the control protocol share. Control thread.
 *
 * A command's answer is an object with "ok", by a new reference, or NULL: out of memory.
 */
#ifndef GN_CTL_CMD_H
#define GN_CTL_CMD_H

#include <jansson.h>

#include "ctl.h"

/** ctl_error() - {"ok": false, "error": TEXT}; the text may quote the request */
json_t *ctl_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/** ctl_member() - of a request whose members have been checked; NULL: it has none */
const char *ctl_member(const json_t *req, const char *key);

/** ctl_find_iface() - by name, or the only one; NULL: @err is set to the answer */
struct iface *ctl_find_iface(struct daemon *d, const char *name, json_t **err);

/* The DMA log of an instance: ctl_dma.c. */
json_t *ctl_dma_start(struct daemon *d, const json_t *req, struct ctl_fds *fds);
json_t *ctl_dma_swap(struct daemon *d, const json_t *req, struct ctl_fds *fds);
json_t *ctl_dma_stop(struct daemon *d, const json_t *req, struct ctl_fds *fds);
json_t *ctl_dma_show(struct daemon *d, const json_t *req);

#endif
