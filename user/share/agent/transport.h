/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * transport: how this node is reached, and reaches others: addresses and credentials, as
 * they follow from the configuration. The agent's thread.
 */
#ifndef GM_TRANSPORT_H
#define GM_TRANSPORT_H

#include "agent.h"
#include "../local.h"

struct transport {
	char listen[NET_ADDR_MAX];
	char advertise[NET_ADDR_MAX]; /* net_resolve() */
	struct net_tls *tls;	      /* NULL: none */
	/* unix:DIRECTORY/peer-HASH-, and the node's name: where the agents of one host
	 * that have the same directory find one another. Empty: not wanted */
	char near[NET_ADDR_MAX];
};

/** transport_open() - Return: 0, -EINVAL, -EACCES: credentials; -errno (logged) */
int transport_open(const struct agent_config *cfg, struct transport *t);
void transport_close(struct transport *t);

/** transport_near() - address of @node on this host. Return: 0, -ENOENT: there is none */
int transport_near(const struct transport *t, const char *node, char out[NET_ADDR_MAX]);

/** transport_prefer() - @addr of @node: with the one on this host before it, if there is
 * one */
void transport_prefer(const struct transport *t, const char *node,
		      char addr[NET_ADDR_MAX]);

/** transport_explain() - log and count why an owner at @addr cannot be one of ours: it
 * wants TLS, and we have no credentials */
void transport_explain(const struct transport *t, const char *addr);

/** transport_describe() - what an application needs to know of it, in a reply */
void transport_describe(const struct agent_config *cfg, struct local_msg *m);

#endif
