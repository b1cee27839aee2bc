/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * call: ghostnic_request() with JSON values instead of text, errors in words.
 *
 * Any thread; no state.
 */
#ifndef GN_LOADER_CALL_H
#define GN_LOADER_CALL_H

#include <jansson.h>
#include <stdbool.h>

#include "../user/lib/ghostnic.h"

/**
 * ctl_call() - one request, one parsed answer
 * @path:	control socket or NULL, as for ghostnic_request()
 * @request:	object; borrowed
 * @answer:	new reference, set on success to an object whose "ok" is true
 * @err:	on failure: what went wrong and what to do, @errlen bytes
 *
 * Return: 0; -EREMOTEIO: the daemon refused (@err has its words); -EPROTO: the
 * answer is no JSON object with "ok"; else as ghostnic_request()
 */
int ctl_call(const char *path, const json_t *request, json_t **answer, char *err,
	     size_t errlen);

/** ctl_call_fds() - the same; @fds, @max, @nfds as for ghostnic_request_fds() */
int ctl_call_fds(const char *path, const json_t *request, json_t **answer, int *fds,
		 unsigned int max, unsigned int *nfds, char *err, size_t errlen);

/** ctl_no_daemon() - does this failure of ctl_call() mean that none is running? */
bool ctl_no_daemon(int err);

#endif
