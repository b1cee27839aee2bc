// SPDX-License-Identifier: BSD-2-Clause
/*
 * lib_tls: credentials for this process's own connections to owners. Contract in lib.h.
 *
 * The agent says which it uses; the process reads the same files, so it must be allowed
 * to, or has a directory of its own in GHOSTMEM_TLS_DIR. They are loaded when the first
 * owner wants them and stay until the struct ghostmem is closed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib.h"

void lib_tls_learn(struct ghostmem *g, const struct local_msg *m)
{
	pthread_mutex_lock(&g->lock);
	g->tls_mode = m->tls_mode;
	memcpy(g->tls_dir, m->tls_dir, sizeof(g->tls_dir));
	memcpy(g->tls_hostname, m->tls_hostname, sizeof(g->tls_hostname));
	pthread_mutex_unlock(&g->lock);
}

int lib_tls_get(struct ghostmem *g, const struct net_tls **out)
{
	const char *own = getenv("GHOSTMEM_TLS_DIR");
	int err = 0;

	pthread_mutex_lock(&g->lock);
	if (!g->tls && g->tls_mode != TLS_OFF) {
		struct tls_conf conf = {
			.mode = (enum tls_mode)g->tls_mode,
			.dir = own ? own : g->tls_dir,
			.hostname = *g->tls_hostname ? g->tls_hostname : NULL,
		};

		err = net_tls_create(&conf, false, NULL, &g->tls);
	}
	*out = g->tls;
	pthread_mutex_unlock(&g->lock);
	return err == -EACCES ? -ENOKEY : err;
}
