// SPDX-License-Identifier: BSD-2-Clause
/*
 * conf_set: the settings themselves: their syntax, limits and clashes.
 *
 * Text comes from the user, the file or the control socket and is never
 * trusted; nothing here does I/O. Control thread only.
 */
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "conf_set.h"
#include "rate.h"

#define MAX_FLUSH_US 1000000
#define MIN_CHUNKS   512	/* per queue */
#define MAX_CHUNKS   (1U << 20) /* 4 GiB of packet memory per queue */
#define MAX_VLAN     4094	/* 802.1Q, 9.6: 4095 is reserved */

_Static_assert(sizeof(((struct daemon_conf *)0)->ctl) ==
		       sizeof(((struct sockaddr_un *)0)->sun_path),
	       "socket path");

/* Messages quote their input: what a terminal or a log might act on is hidden. */
int conf_fail(char *err, size_t errlen, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err, errlen, fmt, ap);
	va_end(ap);
	for (; *err; err++)
		if (*err < ' ' || *err > '~')
			*err = '?';
	return -EINVAL;
}

/* Decimal digits only: no sign, no blank, no 0x, no overflow. */
static int parse_number(const char *key, const char *s, unsigned long min,
			unsigned long max, unsigned long *out, char *err, size_t errlen)
{
	unsigned long v = 0;
	const char *p = s;

	for (; isdigit((unsigned char)*p) && v <= max; p++)
		v = v * 10 + (unsigned long)(*p - '0');
	if (p == s || *p || v < min || v > max)
		return conf_fail(err, errlen, "%s=\"%s\": want a number from %lu to %lu",
				 key, s, min, max);
	*out = v;
	return 0;
}

/* Bits per second: digits, and a k, M or G for thousands of them. */
static int parse_rate(const char *key, const char *s, uint64_t *out, char *err,
		      size_t errlen)
{
	uint64_t v = 0, unit = 1;
	const char *p = s;

	for (; isdigit((unsigned char)*p) && v <= RATE_MAX; p++)
		v = v * 10 + (uint64_t)(*p - '0');
	if (p != s && *p)
		unit = *p == 'k'   ? 1000
		       : *p == 'M' ? 1000000
		       : *p == 'G' ? 1000000000
				   : 0;
	if (p == s || (*p && p[1]) || !unit || v > RATE_MAX / unit || v * unit < RATE_MIN)
		return conf_fail(err, errlen,
				 "%s=\"%s\": want bits per second from 64k to 1000G, "
				 "such as 500M",
				 key, s);
	*out = v * unit;
	return 0;
}

static int parse_bool(const char *key, const char *s, bool *out, char *err, size_t errlen)
{
	if (!strcmp(s, "yes"))
		*out = true;
	else if (!strcmp(s, "no"))
		*out = false;
	else
		return conf_fail(err, errlen, "%s=\"%s\": want yes or no", key, s);
	return 0;
}

static int copy_path(const char *key, const char *s, char *dst, size_t size, char *err,
		     size_t errlen)
{
	if (*s != '/')
		return conf_fail(err, errlen, "%s=\"%s\": want an absolute path", key, s);
	if (strlen(s) >= size)
		return conf_fail(err, errlen,
				 "%s: the path has %zu bytes, at most %zu fit", key,
				 strlen(s), size - 1);
	strcpy(dst, s);
	return 0;
}

/* What the kernel takes (dev_valid_name()), less what would need quoting. */
static bool valid_ifname(const char *s)
{
	size_t n = strlen(s);

	if (!n || n >= IFNAMSIZ || !strcmp(s, ".") || !strcmp(s, ".."))
		return false;
	for (; *s; s++)
		if (!isgraph((unsigned char)*s) || strchr("/:,%\"\\", *s))
			return false;
	return true;
}

static int set_ifname(const char *key, const char *s, char *dst, char *err, size_t errlen)
{
	if (!valid_ifname(s))
		return conf_fail(
			err, errlen,
			"%s=\"%s\": not an interface name (1 to %d characters, no blank, "
			"slash, colon, comma, percent sign or quote)",
			key, s, IFNAMSIZ - 1);
	strcpy(dst, s);
	return 0;
}

/* ---- daemon-wide ------------------------------------------------------------ */

const char *conf_set_keys(void)
{
	return "poll, checksum, flush-us, chunks, ctl, bpffs, log-level";
}

int conf_set(struct daemon_conf *c, const char *key, const char *value, char *err,
	     size_t errlen)
{
	unsigned long v = 0;
	int ret;

	if (!strcmp(key, "poll")) {
		if (!strcmp(value, "busy"))
			c->poll = POLL_BUSY;
		else if (!strcmp(value, "adaptive"))
			c->poll = POLL_ADAPTIVE;
		else if (!strcmp(value, "wait"))
			c->poll = POLL_WAIT;
		else
			return conf_fail(err, errlen,
					 "poll=\"%s\": want busy, adaptive or wait",
					 value);
		return 0;
	}
	if (!strcmp(key, "checksum")) {
		if (!strcmp(value, "verify"))
			c->checksum = AGG_VERIFY;
		else if (!strcmp(value, "carry"))
			c->checksum = AGG_CARRY;
		else
			return conf_fail(err, errlen,
					 "checksum=\"%s\": want verify or carry", value);
		return 0;
	}
	if (!strcmp(key, "flush-us")) {
		ret = parse_number(key, value, 0, MAX_FLUSH_US, &v, err, errlen);
		if (!ret)
			c->flush_us = (uint32_t)v;
		return ret;
	}
	if (!strcmp(key, "chunks")) {
		ret = parse_number(key, value, MIN_CHUNKS, MAX_CHUNKS, &v, err, errlen);
		if (ret)
			return ret;
		if (v & (v - 1))
			return conf_fail(
				err, errlen,
				"chunks=\"%s\": want a power of two, such as 4096",
				value);
		c->chunks = (uint32_t)v;
		return 0;
	}
	if (!strcmp(key, "ctl"))
		return copy_path(key, value, c->ctl, sizeof(c->ctl), err, errlen);
	if (!strcmp(key, "bpffs"))
		return copy_path(key, value, c->bpffs, sizeof(c->bpffs), err, errlen);
	if (!strcmp(key, "log-level")) {
		if (log_parse_level(value, &c->log_level))
			return conf_fail(
				err, errlen,
				"log-level=\"%s\": want error, warn, info or debug",
				value);
		return 0;
	}
	return conf_fail(err, errlen, "unknown key \"%s\"; valid are: %s", key,
			 conf_set_keys());
}

/* ---- interfaces --------------------------------------------------------------- */

static struct iface_conf *find_iface(struct daemon_conf *c, const char *name)
{
	for (unsigned int i = 0; i < c->nifaces; i++)
		if (!strcmp(c->iface[i].name, name))
			return &c->iface[i];
	return NULL;
}

int conf_get_iface(struct daemon_conf *c, const char *name, struct iface_conf **out,
		   char *err, size_t errlen)
{
	struct iface_conf *i = find_iface(c, name);
	struct iface_conf new = { .queues = 0 };
	int ret;

	if (!i) {
		ret = set_ifname("iface", name, new.name, err, errlen);
		if (ret)
			return ret;
		if (c->nifaces == CONF_MAX_IFACES)
			return conf_fail(err, errlen,
					 "more than %d interfaces; run another ghostnicd "
					 "with another ctl path",
					 CONF_MAX_IFACES);
		i = &c->iface[c->nifaces++];
		*i = new;
	}
	*out = i;
	return 0;
}

int conf_set_queues(struct iface_conf *i, const char *value, char *err, size_t errlen)
{
	unsigned long v = 0;
	int ret = parse_number("queues", value, 0, GN_MAX_QUEUES, &v, err, errlen);

	if (!ret)
		i->queues = (unsigned int)v;
	return ret;
}

/* ---- instances ---------------------------------------------------------------- */

int conf_parse_mac(const char *s, uint8_t mac[6])
{
	uint8_t tmp[6];

	for (unsigned int i = 0; i < 6; i++, s += 3) {
		char digits[3];

		if (!isxdigit((unsigned char)s[0]) || !isxdigit((unsigned char)s[1]) ||
		    s[2] != (i < 5 ? ':' : '\0'))
			return -EINVAL;
		memcpy(digits, s, 2);
		digits[2] = '\0';
		tmp[i] = (uint8_t)strtoul(digits, NULL, 16);
	}
	memcpy(mac, tmp, 6);
	return 0;
}

int conf_set_name(struct instance_conf *in, const char *value, char *err, size_t errlen)
{
	const char *p = value;

	while (isalnum((unsigned char)*p) || (*p && strchr("_.-", *p)))
		p++;
	if (p == value || *p || (size_t)(p - value) >= sizeof(in->name))
		return conf_fail(err, errlen,
				 "\"%s\" is not an instance name; use 1 to %zu of A-Z "
				 "a-z 0-9 _ . -",
				 value, sizeof(in->name) - 1);
	strcpy(in->name, value);
	return 0;
}

static int set_mac(struct instance_conf *in, const char *value, char *err, size_t errlen)
{
	static const uint8_t zero[6];
	uint8_t mac[6];

	if (conf_parse_mac(value, mac))
		return conf_fail(err, errlen,
				 "mac=\"%s\": want six octets, such as 52:54:00:12:34:56",
				 value);
	if (mac[0] & 1 || !memcmp(mac, zero, 6))
		return conf_fail(err, errlen,
				 "mac=\"%s\": not a unicast address; the first octet "
				 "must be even and the address not zero",
				 value);
	memcpy(in->port.mac, mac, 6);
	memcpy(in->mac, mac, 6);
	return 0;
}

/* Answers of the control socket, which name it, have no other text. */
static bool valid_utf8(const char *s)
{
	json_t *text = json_string(s);
	bool ok = text;

	json_decref(text);
	return ok;
}

static int set_port(struct instance_conf *in, const char *value, char *err, size_t errlen)
{
	const char *arg = strchr(value, ':');
	size_t n = arg ? (size_t)(arg - value) : strlen(value);
	char kind[sizeof(in->port.kind)] = "";

	arg = arg ? arg + 1 : "";
	if (n < sizeof(kind))
		memcpy(kind, value, n);
	if (!port_find(kind))
		return conf_fail(err, errlen,
				 "port=\"%s\": no such kind of port; use tap:DEV, "
				 "vhost-user:SOCKET, shm:SOCKET or null",
				 value);
	if (strlen(arg) >= sizeof(in->port.arg))
		return conf_fail(err, errlen,
				 "port: at most %zu characters after the colon",
				 sizeof(in->port.arg) - 1);
	if (!strcmp(kind, "tap") && !valid_ifname(arg))
		return conf_fail(err, errlen,
				 "port=\"%s\": want tap:DEV, DEV an interface name of 1 "
				 "to %d characters",
				 value, IFNAMSIZ - 1);
	if (!valid_utf8(arg))
		return conf_fail(err, errlen, "port=\"%s\": the path is not UTF-8",
				 value);
	if (!strcmp(kind, "vhost-user") && *arg != '/')
		return conf_fail(
			err, errlen,
			"port=\"%s\": want vhost-user:SOCKET, SOCKET an absolute "
			"path",
			value);
	if (!strcmp(kind, "shm") && *arg != '/')
		return conf_fail(err, errlen,
				 "port=\"%s\": want shm:SOCKET, SOCKET an absolute path",
				 value);
	if (!strcmp(kind, "null") && *arg)
		return conf_fail(err, errlen,
				 "port=\"%s\": null takes nothing after a colon", value);
	strcpy(in->port.kind, kind);
	strcpy(in->port.arg, arg);
	return 0;
}

int conf_set_instance(struct instance_conf *in, const char *key, const char *value,
		      char *err, size_t errlen)
{
	bool *flag = !strcmp(key, "copy")	   ? &in->port.copy
		     : !strcmp(key, "client")	   ? &in->port.client
		     : !strcmp(key, "allow-spoof") ? &in->allow_spoof
						   : NULL;
	unsigned long v = 0;
	int ret;

	if (flag) {
		if (value)
			return parse_bool(key, value, flag, err, errlen);
		*flag = true;
		return 0;
	}
	if (strcmp(key, "mac") && strcmp(key, "vlan") && strcmp(key, "port") &&
	    strcmp(key, "iface") && strcmp(key, "hold") && strcmp(key, "rate"))
		return conf_fail(
			err, errlen,
			"unknown key \"%s\"; valid are: mac, vlan, port, client, "
			"copy, hold, rate, allow-spoof, iface",
			key);
	if (!value)
		return conf_fail(err, errlen, "%s has no value; write %s=VALUE", key,
				 key);
	if (!strcmp(key, "mac"))
		return set_mac(in, value, err, errlen);
	if (!strcmp(key, "port"))
		return set_port(in, value, err, errlen);
	if (!strcmp(key, "iface"))
		return set_ifname(key, value, in->iface, err, errlen);
	if (!strcmp(key, "rate"))
		return parse_rate(key, value, &in->rate, err, errlen);
	if (!strcmp(key, "hold")) {
		ret = parse_number(key, value, AGG_MAX_BUFS, MBUF_PROMISE(MAX_CHUNKS), &v,
				   err, errlen);
		if (!ret)
			in->port.hold = (uint32_t)v;
		return ret;
	}
	ret = parse_number(key, value, 1, MAX_VLAN, &v, err, errlen);
	if (!ret)
		in->vlan = (uint16_t)v;
	return ret;
}

int conf_check_instance(const struct instance_conf *in, char *err, size_t errlen)
{
	static const uint8_t zero[6];

	if (!memcmp(in->mac, zero, 6))
		return conf_fail(err, errlen, "instance %s has no address; add mac=MAC",
				 in->name);
	if (!*in->port.kind)
		return conf_fail(err, errlen,
				 "instance %s has no port; add port=tap:DEV, "
				 "port=vhost-user:SOCKET or port=null",
				 in->name);
	if (in->port.copy && strcmp(in->port.kind, "null"))
		return conf_fail(err, errlen, "instance %s: copy is for port=null only",
				 in->name);
	if (in->port.hold && strcmp(in->port.kind, "shm"))
		return conf_fail(err, errlen, "instance %s: hold is for port=shm only",
				 in->name);
	if ((in->rate || in->allow_spoof) && !strcmp(in->port.kind, "null"))
		return conf_fail(err, errlen,
				 "instance %s: rate and allow-spoof are for ports that "
				 "send, not for port=null",
				 in->name);
	if (in->port.client && strcmp(in->port.kind, "vhost-user"))
		return conf_fail(err, errlen,
				 "instance %s: client is for port=vhost-user only",
				 in->name);
	return 0;
}

int conf_parse_instance(const char *s, struct instance_conf *out, char *err,
			size_t errlen)
{
	struct instance_conf in = { .vlan = 0 };
	unsigned int seen = 0;
	char *text, *item, *rest, *value;
	int ret;

	text = strdup(s);
	if (!text)
		return conf_fail(err, errlen, "out of memory");
	rest = text;
	ret = conf_set_name(&in, strsep(&rest, ","), err, errlen);
	while (!ret && rest) {
		static const char *const keys[] = { "mac",    "vlan",	     "port",
						    "client", "copy",	     "hold",
						    "rate",   "allow-spoof", "iface" };

		item = strsep(&rest, ",");
		value = strchr(item, '=');
		if (value)
			*value++ = '\0';
		ret = conf_set_instance(&in, item, value, err, errlen);
		for (unsigned int k = 0; !ret && k < sizeof(keys) / sizeof(*keys); k++) {
			if (strcmp(item, keys[k]))
				continue;
			if (seen & 1U << k)
				ret = conf_fail(err, errlen,
						"%s is given twice; keep one", item);
			seen |= 1U << k;
		}
	}
	free(text);
	if (!ret)
		ret = conf_check_instance(&in, err, errlen);
	if (!ret)
		*out = in;
	return ret;
}

int conf_check_clash(const struct instance_conf *o, const struct instance_conf *in,
		     char *err, size_t errlen)
{
	if (!strcmp(o->iface, in->iface) && o->vlan == in->vlan &&
	    !memcmp(o->mac, in->mac, 6))
		return conf_fail(err, errlen,
				 "instances %s and %s have the same address and VLAN; "
				 "change one",
				 o->name, in->name);
	if (*in->port.arg && !strcmp(o->port.kind, in->port.kind) &&
	    !strcmp(o->port.arg, in->port.arg))
		return conf_fail(err, errlen,
				 "instances %s and %s have the same port %s:%s; "
				 "change one",
				 o->name, in->name, in->port.kind, in->port.arg);
	return 0;
}

int conf_add_instance(struct daemon_conf *c, const struct instance_conf *in, bool replace,
		      char *err, size_t errlen)
{
	struct instance_conf *same = NULL, *grown;

	for (unsigned int i = 0; i < c->ninstances; i++) {
		struct instance_conf *o = &c->instance[i];
		int ret;

		if (!strcmp(o->iface, in->iface) && !strcmp(o->name, in->name)) {
			if (!replace)
				return conf_fail(err, errlen,
						 "instance %s is configured twice; "
						 "rename or remove one",
						 in->name);
			same = o;
			continue;
		}
		ret = conf_check_clash(o, in, err, errlen);
		if (ret)
			return ret;
	}
	if (!same) {
		grown = reallocarray(c->instance, c->ninstances + 1, sizeof(*grown));
		if (!grown) {
			conf_fail(err, errlen, "out of memory");
			return -ENOMEM;
		}
		c->instance = grown;
		same = &c->instance[c->ninstances++];
	}
	*same = *in;
	return 0;
}

void conf_default_iface(const struct daemon_conf *c, struct instance_conf *in)
{
	if (!*in->iface && c->nifaces == 1)
		strcpy(in->iface, c->iface[0].name);
}

int conf_check_iface(const struct daemon_conf *c, const struct instance_conf *in,
		     char *err, size_t errlen)
{
	unsigned int n = 0;

	if (!*in->iface)
		return conf_fail(err, errlen,
				 "instance %s: which interface is it on? Add iface=IF",
				 in->name);
	for (unsigned int i = 0; i < c->nifaces; i++)
		n += !strcmp(c->iface[i].name, in->iface);
	if (!n)
		return conf_fail(err, errlen,
				 "instance %s: interface %s is not configured; add "
				 "[interface %s] or --iface %s",
				 in->name, in->iface, in->iface, in->iface);
	n = 0;
	for (unsigned int i = 0; i < c->ninstances; i++)
		n += !strcmp(c->instance[i].iface, in->iface);
	if (n > GN_MAX_INSTANCES)
		return conf_fail(err, errlen, "interface %s has more than %d instances",
				 in->iface, GN_MAX_INSTANCES);
	return 0;
}
