// SPDX-License-Identifier: BSD-2-Clause
/* text: see text.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

char *text_clean(char *s)
{
	for (char *p = s; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	return s;
}

int text_size(const char *s, uint64_t *bytes)
{
	static const char units[] = "KMGT";
	unsigned int shift = 0;
	char *end;
	uint64_t v;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	errno = 0;
	v = strtoull(s, &end, 10);
	if (errno)
		return -EINVAL;
	if (*end) {
		const char *u = strchr(units, *end & ~0x20);

		/* A space becomes the end of the units. */
		if (!u || !*u || end[1])
			return -EINVAL;
		shift = 10 * (unsigned int)(u - units + 1);
		if (v > UINT64_MAX >> shift)
			return -EINVAL;
	}
	*bytes = v << shift;
	return 0;
}
