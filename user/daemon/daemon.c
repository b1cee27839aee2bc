// SPDX-License-Identifier: BSD-2-Clause
/*
 * daemon: lookups over all interfaces. Control thread.
 */
#include <string.h>

#include "daemon.h"

struct iface *daemon_find_iface(struct daemon *d, const char *name)
{
	if (!name || !*name)
		return d->nifaces == 1 ? d->iface[0] : NULL;
	for (unsigned int i = 0; i < d->nifaces; i++)
		if (!strcmp(d->iface[i]->name, name))
			return d->iface[i];
	return NULL;
}
