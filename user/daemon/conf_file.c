// SPDX-License-Identifier: BSD-2-Clause
/*
 * conf_file: the INI file of --config.
 *
 * libinih splits lines into section, key and value. It tells its handler no
 * line number and nothing of a section without keys, so the reader that feeds it
 * counts lines and opens sections. Control thread only.
 */
#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdlib.h>
#include <string.h>

#include "conf_set.h"

#define MAX_SECTION 64 /* "instance " and a name, with room to be wrong */

enum section { SEC_NONE, SEC_DAEMON, SEC_IFACE, SEC_INSTANCE };

/* An instance is added when all interfaces are known: sections have no order. */
struct pending {
	struct instance_conf conf;
	unsigned int line;
};

struct reader {
	struct daemon_conf *c;
	FILE *f;
	const char *name;
	unsigned int line;
	enum section section;
	char section_name[MAX_SECTION]; /* as in the file, without brackets */
	const char *keys[16];		/* given in this section */
	unsigned int nkeys;
	struct iface_conf *iface;
	char ifaces[CONF_MAX_IFACES][IFNAMSIZ]; /* with a section of their own */
	unsigned int nifaces;
	bool daemon_seen;
	struct pending *pending;
	unsigned int npending;
	int ret;
	char *err;
	size_t errlen;
};

static int fail_at(struct reader *r, unsigned int line, int ret, const char *what)
{
	if (!r->ret) {
		conf_fail(r->err, r->errlen, "%s:%u: %s", r->name, line, what);
		r->ret = ret;
	}
	return r->ret;
}

static int fail(struct reader *r, int ret, const char *what)
{
	return fail_at(r, r->line, ret, what);
}

static int open_iface(struct reader *r, const char *name, char *msg, size_t len)
{
	int ret = conf_get_iface(r->c, name, &r->iface, msg, len);

	if (ret)
		return ret;
	for (unsigned int i = 0; i < r->nifaces; i++)
		if (!strcmp(r->ifaces[i], name))
			return conf_fail(msg, len,
					 "second section [interface %s]; join them",
					 name);
	strcpy(r->ifaces[r->nifaces++], name);
	r->section = SEC_IFACE;
	return 0;
}

static int open_instance(struct reader *r, const char *name, char *msg, size_t len)
{
	struct pending *grown, *p;

	grown = reallocarray(r->pending, r->npending + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	r->pending = grown;
	p = &grown[r->npending];
	memset(p, 0, sizeof(*p));
	p->line = r->line;
	r->npending++;
	r->section = SEC_INSTANCE;
	return conf_set_name(&p->conf, name, msg, len);
}

static void forget_keys(struct reader *r)
{
	while (r->nkeys)
		free((void *)r->keys[--r->nkeys]);
}

/* @line starts with '['. Brackets are checked here, so inih only sees good ones. */
static int open_section(struct reader *r, const char *line)
{
	static const char remedy[] = "want [daemon], [interface NAME] or [instance NAME]";
	const char *end = strchr(line, ']');
	char msg[CONF_ERR_MAX] = "out of memory";
	size_t n = end ? (size_t)(end - line) - 1 : 0;
	const char *arg;
	int ret = 0;

	if (!end || n >= sizeof(r->section_name))
		return fail(r, -EINVAL, remedy);
	for (end++; isspace((unsigned char)*end); end++)
		;
	if (*end && *end != ';' && *end != '#')
		return fail(r, -EINVAL,
			    "text after the bracket; put it on a line of its own");
	forget_keys(r);
	r->section = SEC_NONE;
	memcpy(r->section_name, line + 1, n);
	r->section_name[n] = '\0';
	arg = strchr(r->section_name, ' ');
	arg = arg ? arg + 1 : "";
	if (!strcmp(r->section_name, "daemon")) {
		if (r->daemon_seen)
			ret = conf_fail(msg, sizeof(msg),
					"second section [daemon]; join them");
		r->daemon_seen = true;
		r->section = SEC_DAEMON;
	} else if (!strncmp(r->section_name, "interface ", 10)) {
		ret = open_iface(r, arg, msg, sizeof(msg));
	} else if (!strncmp(r->section_name, "instance ", 9)) {
		ret = open_instance(r, arg, msg, sizeof(msg));
	} else {
		ret = conf_fail(msg, sizeof(msg), "unknown section [%s]; %s",
				r->section_name, remedy);
	}
	return ret ? fail(r, ret, msg) : 0;
}

/*
 * inih's fgets(): one line, without leading blanks, which it would take for a
 * continuation. NULL ends the file, and parsing after an error.
 */
static char *read_line(char *buf, int size, void *stream)
{
	struct reader *r = stream;
	size_t n = 0, max = (size_t)size - 1;
	int c;

	if (r->ret)
		return NULL;
	c = getc(r->f);
	if (c == EOF)
		return NULL;
	r->line++;
	/* A byte order mark is text to us but not to inih. */
	if (r->line == 1 && c == 0xef) {
		fail(r, -EINVAL, "byte order mark; save the file as UTF-8 without one");
		return NULL;
	}
	for (; c != EOF && c != '\n'; c = getc(r->f)) {
		if (n == 0 && isspace(c))
			continue;
		if (c == '\0') {
			fail(r, -EINVAL, "NUL byte; is this a text file?");
			return NULL;
		}
		if (n == max) {
			char msg[80];

			snprintf(msg, sizeof(msg),
				 "line too long; at most %zu characters fit", max);
			fail(r, -EINVAL, msg);
			return NULL;
		}
		buf[n++] = (char)c;
	}
	buf[n] = '\0';
	if (buf[0] == '[' && open_section(r, buf))
		return NULL;
	return buf;
}

static int note_key(struct reader *r, const char *key)
{
	char msg[CONF_ERR_MAX];
	char *copy;

	for (unsigned int i = 0; i < r->nkeys; i++) {
		if (strcmp(r->keys[i], key))
			continue;
		conf_fail(msg, sizeof(msg), "%s is given twice in [%s]; keep one", key,
			  r->section_name);
		return fail(r, -EINVAL, msg);
	}
	copy = strdup(key);
	if (!copy)
		return fail(r, -ENOMEM, "out of memory");
	/* No section has that many keys: unknown ones end the parse. */
	r->keys[r->nkeys++] = copy;
	return 0;
}

/* inih: non-zero means success. @section is inih's idea of it; ours is the same. */
static int handle(void *user, const char *section, const char *key, const char *value)
{
	struct reader *r = user;
	char msg[CONF_ERR_MAX] = "";
	int ret;

	if (r->ret)
		return 0;
	switch (r->section) {
	case SEC_DAEMON: ret = conf_set(r->c, key, value, msg, sizeof(msg)); break;
	case SEC_IFACE:
		if (!strcmp(key, "queues"))
			ret = conf_set_queues(r->iface, value, msg, sizeof(msg));
		else
			ret = conf_fail(msg, sizeof(msg),
					"unknown key \"%s\"; valid is: queues", key);
		break;
	case SEC_INSTANCE:
		ret = conf_set_instance(&r->pending[r->npending - 1].conf, key, value,
					msg, sizeof(msg));
		break;
	default:
		ret = conf_fail(msg, sizeof(msg),
				"\"%s\" before any section; start with [daemon]", key);
	}
	if (ret)
		return fail(r, ret, msg), 0;
	return !note_key(r, key);
}

static int add_pending(struct reader *r)
{
	char msg[CONF_ERR_MAX];
	int ret;

	for (unsigned int i = 0; i < r->npending; i++) {
		struct pending *p = &r->pending[i];

		conf_default_iface(r->c, &p->conf);
		ret = conf_check_instance(&p->conf, msg, sizeof(msg));
		if (!ret)
			ret = conf_add_instance(r->c, &p->conf, false, msg, sizeof(msg));
		if (!ret)
			ret = conf_check_iface(r->c, &p->conf, msg, sizeof(msg));
		if (ret)
			return fail_at(r, p->line, ret, msg);
	}
	return 0;
}

int conf_read(struct daemon_conf *c, FILE *f, const char *name, char *err, size_t errlen)
{
	struct reader r = { .c = c, .f = f, .name = name, .err = err, .errlen = errlen };
	int line;

	errno = 0;
	line = ini_parse_stream(read_line, &r, handle, &r);
	if (!r.ret && ferror(f)) {
		r.ret = errno ? -errno : -EIO;
		conf_fail(err, errlen, "%s: %s", name, strerror(-r.ret));
	}
	if (!r.ret && line < 0)
		fail(&r, -ENOMEM, "out of memory");
	if (!r.ret && line > 0)
		fail_at(&r, (unsigned int)line, -EINVAL,
			"neither a section, a comment nor KEY = VALUE");
	if (!r.ret)
		add_pending(&r);
	forget_keys(&r);
	free(r.pending);
	return r.ret;
}
