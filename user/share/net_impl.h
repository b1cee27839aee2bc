/* SPDX-License-Identifier: BSD-2-Clause */
/* net_impl: between net_tcp.c and the transports it hands connections to. */
#ifndef GM_NET_IMPL_H
#define GM_NET_IMPL_H

#include "net.h"

extern const struct net_ops net_tls_ops; /* net_tls.c */

/** net_tls_refuse() - tell whoever wants to know; @t may be NULL */
void net_tls_refuse(const struct net_tls *t, const char *peer, const char *why);

/** net_tls_host() - whom the certificate at @addr is for, if nothing else is said.
 * Return: 0, -EINVAL */
int net_tls_host(const char *addr, char host[NET_ADDR_MAX]);

#endif
