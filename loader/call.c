// SPDX-License-Identifier: BSD-2-Clause
/*
 * call: requests to the daemon, and what their failures mean. See call.h.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "call.h"

bool ctl_no_daemon(int err)
{
	return err == -ENOENT || err == -ECONNREFUSED;
}

static void explain(int e, const char *path, char *err, size_t errlen)
{
	switch (e) {
	case -ENOENT:
	case -ECONNREFUSED:
		snprintf(err, errlen,
			 "no daemon answers on %s; start ghostnicd, or name "
			 "its socket with --ctl or " GHOSTNIC_SOCKET_ENV,
			 path);
		break;
	case -EACCES:
	case -EPERM:
		snprintf(err, errlen, "may not open %s; run as the daemon's user (root)",
			 path);
		break;
	case -ETIMEDOUT:
		snprintf(err, errlen,
			 "the daemon on %s did not answer in time; "
			 "see its log",
			 path);
		break;
	case -EPIPE:
		snprintf(err, errlen,
			 "the daemon on %s closed the connection; it has too "
			 "many clients or ended, see its log",
			 path);
		break;
	default: snprintf(err, errlen, "control socket %s: %s", path, strerror(-e));
	}
}

int ctl_call_fds(const char *path, const json_t *request, json_t **answer, int *fds,
		 unsigned int max, unsigned int *nfds, char *err, size_t errlen)
{
	char *text = json_dumps(request, JSON_COMPACT), *line;
	const char *msg;
	json_t *a, *ok;
	int e;

	path = ghostnic_socket(path);
	if (!text) {
		snprintf(err, errlen, "out of memory");
		return -ENOMEM;
	}
	e = ghostnic_request_fds(path, text, -1, &line, fds, max, nfds);
	free(text);
	if (e) {
		explain(e, path, err, errlen);
		return e;
	}
	a = json_loads(line, 0, NULL);
	free(line);
	ok = json_object_get(a, "ok");
	if (json_is_true(ok)) {
		*answer = a;
		return 0;
	}
	assert(*nfds <= max);
	while (*nfds)
		close(fds[--*nfds]);
	msg = json_string_value(json_object_get(a, "error"));
	if (json_is_false(ok)) {
		snprintf(err, errlen, "%s", msg ? msg : "refused without a reason");
		e = -EREMOTEIO;
	} else {
		snprintf(err, errlen, "%s does not speak ghostnic's protocol", path);
		e = -EPROTO;
	}
	json_decref(a);
	return e;
}

int ctl_call(const char *path, const json_t *request, json_t **answer, char *err,
	     size_t errlen)
{
	unsigned int n;

	return ctl_call_fds(path, request, answer, NULL, 0, &n, err, errlen);
}
