// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz the control protocol: each line of the input is a request to one daemon at
 * rest, so that later ones find what earlier ones left. An answer is always one
 * line, JSON, and says whether it worked.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "../../user/daemon/ctl.h"
#include "../../user/lib/log.h"
#include "../unit/still.h"

#define MAX_REQUESTS 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(char *answer)
{
	size_t n = strlen(answer);
	json_t *o;

	if (!n || strchr(answer, '\n') != answer + n - 1)
		abort();
	o = json_loadb(answer, n, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_boolean(json_object_get(o, "ok")) ||
	    json_is_true(json_object_get(o, "ok")) == !!json_object_get(o, "error"))
		abort();
	json_decref(o);
	free(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct still s;

	if (!s.d.nifaces) {
		log_set_level(LOG_LVL_ERROR);
		still_init(&s, "veth0");
	}
	still_add(&s, "vm1,mac=52:54:00:12:34:56,port=null", 0);
	still_add(&s, "vm2,mac=52:54:00:12:34:57,vlan=7,port=null,copy", 1);
	still_flow(&s, 0, 1, 0, 1);
	for (int i = 0; size && i < MAX_REQUESTS; i++) {
		const uint8_t *end = memchr(data, '\n', size);
		size_t len = end ? (size_t)(end - data) : size;
		char *line = malloc(len ? len : 1), *answer;
		struct ctl_fds fds;

		/* Exactly the request, so that a sanitizer sees the byte beyond. */
		if (!line)
			break;
		memcpy(line, data, len);
		answer = ctl_handle(&s.d, line, len, &fds);
		free(line);
		if (!answer || fds.n)
			abort();
		check(answer);
		data += len + !!end;
		size -= len + !!end;
	}
	still_clear(&s);
	return 0;
}
