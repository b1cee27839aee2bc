// SPDX-License-Identifier: BSD-2-Clause
/* port: the kinds there are. Contract in port.h. */
#include <string.h>

#include "port.h"

static const struct port_ops *const kinds[] = { &port_tap_ops, &port_vhost_ops,
						&port_shm_ops, &port_null_ops };

const struct port_ops *port_find(const char *kind)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(kinds[i]->name, kind))
			return kinds[i];
	return NULL;
}
