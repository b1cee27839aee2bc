/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * conf_set: what the command line (conf.c) and the file (conf_file.c) share, so
 * that a setting means the same and is refused with the same words in both.
 *
 * Each returns 0, or -EINVAL (or -ENOMEM where it allocates) with a message,
 * cause and remedy, in @err. Control thread only.
 */
#ifndef GN_CONF_SET_H
#define GN_CONF_SET_H

#include "conf.h"

#define CONF_ERR_MAX 512 /* bytes of a message */

/** conf_fail() - write a message; always -EINVAL */
int conf_fail(char *err, size_t errlen, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/** conf_set() - a daemon-wide setting: "poll", "checksum", "flush-us", ... */
int conf_set(struct daemon_conf *c, const char *key, const char *value, char *err,
	     size_t errlen);

/** conf_set_keys() - the keys that conf_set() knows, for messages */
const char *conf_set_keys(void);

/** conf_get_iface() - find or add; @out is valid until conf_fini() */
int conf_get_iface(struct daemon_conf *c, const char *name, struct iface_conf **out,
		   char *err, size_t errlen);

/** conf_set_queues() - queues of an interface */
int conf_set_queues(struct iface_conf *i, const char *value, char *err, size_t errlen);

/** conf_set_name() - name of an instance */
int conf_set_name(struct instance_conf *in, const char *value, char *err, size_t errlen);

/** conf_set_instance() - a key of a section [instance NAME]; @value NULL: yes */
int conf_set_instance(struct instance_conf *in, const char *key, const char *value,
		      char *err, size_t errlen);

/** conf_check_instance() - complete and consistent in itself? */
int conf_check_instance(const struct instance_conf *in, char *err, size_t errlen);

/** conf_check_clash() - may @in be added where @o is? Not if it has its address and VLAN
 * on the same interface, or its port on any; names are another matter */
int conf_check_clash(const struct instance_conf *o, const struct instance_conf *in,
		     char *err, size_t errlen);

/**
 * conf_add_instance() - copy @in into @c
 * @replace:	takes the place of one with the same name and interface, which
 *		is an error otherwise
 *
 * Refuses what clashes with another instance: address or port.
 */
int conf_add_instance(struct daemon_conf *c, const struct instance_conf *in, bool replace,
		      char *err, size_t errlen);

/** conf_default_iface() - "" means the interface, if there is just one */
void conf_default_iface(const struct daemon_conf *c, struct instance_conf *in);

/** conf_check_iface() - is the interface of @in configured? */
int conf_check_iface(const struct daemon_conf *c, const struct instance_conf *in,
		     char *err, size_t errlen);

#endif
