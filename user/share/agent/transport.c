// SPDX-License-Identifier: BSD-2-Clause
/* transport: addresses and credentials. Contract in transport.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "counters.h"
#include "transport.h"
#include "../../lib/log.h"

static void refused(const char *peer, const char *why)
{
	counters.bad_tls++;
	log_limited(LOG_LVL_WARN, "%s: %s", peer, why);
}

/* With credentials tcp: is no address to listen at: it becomes tls:. */
static int copy_addr(char to[NET_ADDR_MAX], const char *addr, bool tls)
{
	if (!strncmp(addr, "tls:", 4) && !tls) {
		log_err("%s: TLS needs credentials: --tls, --tls-dir", addr);
		return -EINVAL;
	}
	if (strlen(addr) >= NET_ADDR_MAX) {
		log_err("%.40s...: the address is too long", addr);
		return -EINVAL;
	}
	strcpy(to, addr);
	if (tls && !strncmp(to, "tcp:", 4))
		memcpy(to, "tls:", 4);
	return 0;
}

/* Beside the applications' socket: who may use that may use these. */
static void set_near(const struct agent_config *cfg, struct transport *t)
{
	const char *slash = strrchr(cfg->local, '/');
	uint32_t hash = 2166136261u; /* FNV-1a */

	t->near[0] = 0;
	if (cfg->no_shortcut || !slash)
		return;
	for (const char *s = cfg->directory; *s; s++)
		hash = (hash ^ (uint8_t)*s) * 16777619u;
	if (snprintf(t->near, sizeof(t->near), "unix:%.*s/peer-%08x-",
		     (int)(slash - cfg->local), cfg->local, hash) >= (int)sizeof(t->near))
		t->near[0] = 0;
}

int transport_near(const struct transport *t, const char *node, char out[NET_ADDR_MAX])
{
	if (!t->near[0] || snprintf(out, NET_ADDR_MAX, "%s%s", t->near, node) >= 108)
		return -ENOENT;
	return 0;
}

void transport_prefer(const struct transport *t, const char *node,
		      char addr[NET_ADDR_MAX])
{
	char near[NET_ADDR_MAX], both[2 * NET_ADDR_MAX];

	if (strchr(addr, ',') || transport_near(t, node, near) ||
	    access(near + strlen("unix:"), F_OK))
		return;
	if (snprintf(both, sizeof(both), "%s,%s", near, addr) < NET_ADDR_MAX)
		strcpy(addr, both);
}

int transport_open(const struct agent_config *cfg, struct transport *t)
{
	bool tls = cfg->tls.mode != TLS_OFF;
	char given[NET_ADDR_MAX];
	int err = copy_addr(t->listen, cfg->listen, tls);

	t->tls = NULL;
	set_near(cfg, t);
	if (!err)
		err = copy_addr(given, cfg->advertise ? cfg->advertise : cfg->listen,
				tls);
	if (!err) {
		err = net_resolve(given, t->advertise);
		if (err)
			log_err("%s: no such address", given);
	}
	if (err || !tls)
		return err;
	if (strlen(cfg->tls.dir) >= LOCAL_PATH ||
	    (cfg->tls.hostname && strlen(cfg->tls.hostname) >= GM_NAME_MAX)) {
		log_err("--tls-dir or --tls-name is too long");
		return -EINVAL;
	}
	err = net_tls_create(&cfg->tls, true, refused, &t->tls);
	if (err)
		log_err("%s", tls_error());
	return err;
}

void transport_close(struct transport *t)
{
	net_tls_destroy(t->tls);
	t->tls = NULL;
}

void transport_explain(const struct transport *t, const char *addr)
{
	if (!t->tls && !strncmp(addr, "tls:", 4))
		refused(addr, "it wants TLS, and this node has no credentials: --tls");
}

void transport_describe(const struct agent_config *cfg, struct local_msg *m)
{
	m->tls_mode = (uint8_t)cfg->tls.mode;
	memset(m->tls_dir, 0, sizeof(m->tls_dir));
	memset(m->tls_hostname, 0, sizeof(m->tls_hostname));
	if (cfg->tls.mode == TLS_OFF)
		return;
	strncpy(m->tls_dir, cfg->tls.dir, sizeof(m->tls_dir) - 1);
	if (cfg->tls.hostname)
		strncpy(m->tls_hostname, cfg->tls.hostname, sizeof(m->tls_hostname) - 1);
}
