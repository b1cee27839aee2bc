// SPDX-License-Identifier: BSD-2-Clause
/*
 * ctl_proto: ctl_handle(), the whole control protocol without its socket.
 *
 * A request is text from another process and nothing in it is believed: its
 * length, nesting, members and their types are checked before a command sees it.
 * Control thread.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "conf_set.h"
#include "ctl_cmd.h"
#include "metrics.h"

#define MAX_DEPTH 4    /* of brackets; no command needs more than one */
#define MAX_FLOWS 1000 /* in one answer */

struct command {
	const char *name;
	const char *members; /* what it takes beside "cmd", space-separated */
	json_t *(*run)(struct daemon *d, const json_t *req); /* answer or NULL */
	/* instead of run(): an answer that may bring descriptors */
	json_t *(*run_fds)(struct daemon *d, const json_t *req, struct ctl_fds *fds);
};

json_t *ctl_error(const char *fmt, ...)
{
	char text[CONF_ERR_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	/* Half a character at a cut, or none at all, would be no JSON. */
	for (char *p = text; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	return json_pack("{s:b, s:s}", "ok", 0, "error", text);
}

/* Takes the reference of @value. */
static json_t *answer(const char *key, json_t *value)
{
	return value ? json_pack("{s:b, s:o}", "ok", 1, key, value) : NULL;
}

const char *ctl_member(const json_t *req, const char *key)
{
	return json_string_value(json_object_get(req, key));
}

/* ---- commands --------------------------------------------------------------- */

static json_t *run_version(struct daemon *d, const json_t *req)
{
	return json_pack("{s:b, s:s, s:i}", "ok", 1, "version", GN_VERSION, "abi",
			 GN_ABI);
}

static json_t *run_stats(struct daemon *d, const json_t *req)
{
	json_t *o = json_pack("{s:b}", "ok", 1), *m = metrics_json(d);

	if (!o || !m || json_object_update(o, m)) {
		json_decref(o);
		o = NULL;
	}
	json_decref(m);
	return o;
}

static json_t *run_metrics(struct daemon *d, const json_t *req)
{
	char *text = metrics_text(d);
	json_t *o = text ? answer("text", json_string(text)) : NULL;

	free(text);
	return o;
}

static json_t *run_instances(struct daemon *d, const json_t *req)
{
	return answer("instances", metrics_instances(d));
}

/* A worker's flows, copied while it does nothing else. */
struct flow_copy {
	struct flow flow[FLOW_SETS * FLOW_WAYS];
	unsigned int n;
};

static void copy_flows(struct worker *w, void *arg)
{
	struct flow_copy *c = arg;

	c->n = 0;
	for (unsigned int i = 0; i < FLOW_SETS * FLOW_WAYS; i++)
		if (w->flows.flow[i].id)
			c->flow[c->n++] = w->flows.flow[i];
}

struct found_flow {
	struct flow flow;
	const struct iface *iface;
	unsigned int queue;
};

static int newest_first(const void *a, const void *b)
{
	const struct found_flow *x = a, *y = b;

	return (x->flow.last_ns < y->flow.last_ns) - (x->flow.last_ns > y->flow.last_ns);
}

static json_t *json_flow(const struct found_flow *f, uint64_t now_ns)
{
	const struct instance *in =
		f->iface->instance[GN_INSTANCE_INDEX(f->flow.instance)];
	uint64_t idle_ns = now_ns > f->flow.last_ns ? now_ns - f->flow.last_ns : 0;
	char text[128];

	flow_format(&f->flow, text, sizeof(text));
	return json_pack("{s:s, s:i, s:s, s:s, s:s, s:I, s:I, s:I, s:I}", "interface",
			 f->iface->name, "queue", (int)f->queue, "instance",
			 in && in->id == f->flow.instance ? in->conf.name : "?", "proto",
			 f->flow.flags & GN_F_TCP ? "tcp" : "udp", "flow", text,
			 "packets", (json_int_t)f->flow.packets, "frames",
			 (json_int_t)f->flow.frames, "bytes", (json_int_t)f->flow.bytes,
			 "idle_ms", (json_int_t)(idle_ns / 1000000));
}

/* All workers' flows; @out is NULL if there is none. Return: 0, -ENOMEM */
static int find_flows(struct daemon *d, struct found_flow **out, size_t *n)
{
	struct flow_copy *copy = malloc(sizeof(*copy));
	struct found_flow *all = NULL, *grown;
	int ret = copy ? 0 : -ENOMEM;

	*n = 0;
	for (unsigned int a = 0; !ret && a < d->nifaces; a++) {
		for (unsigned int q = 0; !ret && q < d->iface[a]->nworkers; q++) {
			struct worker *w = d->iface[a]->worker[q];

			worker_call(w, copy_flows, copy);
			if (!copy->n)
				continue;
			grown = reallocarray(all, *n + copy->n, sizeof(*grown));
			if (!grown) {
				ret = -ENOMEM;
				break;
			}
			all = grown;
			for (unsigned int i = 0; i < copy->n; i++)
				all[(*n)++] = (struct found_flow){
					.flow = copy->flow[i],
					.iface = d->iface[a],
					.queue = w->conf.queue,
				};
		}
	}
	free(copy);
	if (ret)
		free(all);
	else
		*out = all;
	return ret;
}

static json_t *run_flows(struct daemon *d, const json_t *req)
{
	json_t *list = json_array();
	struct found_flow *all = NULL;
	struct timespec ts;
	uint64_t now_ns;
	size_t n;

	if (!list || find_flows(d, &all, &n)) {
		json_decref(list);
		return NULL;
	}
	clock_gettime(CLOCK_MONOTONIC, &ts);
	now_ns = (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
	if (n)
		qsort(all, n, sizeof(*all), newest_first);
	for (size_t i = 0; i < n && i < MAX_FLOWS; i++)
		json_array_append_new(list, json_flow(&all[i], now_ns));
	free(all);
	return answer("flows", list);
}

struct iface *ctl_find_iface(struct daemon *d, const char *name, json_t **err)
{
	struct iface *i = daemon_find_iface(d, name);

	if (i)
		return i;
	*err = name && *name
		       ? ctl_error("no interface %s here; \"stats\" lists them", name)
		       : ctl_error("which interface? Add \"iface\"");
	return NULL;
}

/* What a configuration file is checked for, too: against the instances of all interfaces. */
static int check_clash(const struct daemon *d, const struct instance_conf *conf,
		       char *err, size_t errlen)
{
	int ret = 0;

	for (unsigned int i = 0; i < d->nifaces; i++)
		for (unsigned int s = 0; !ret && s < GN_MAX_INSTANCES; s++)
			if (d->iface[i]->instance[s])
				ret = conf_check_clash(&d->iface[i]->instance[s]->conf,
						       conf, err, errlen);
	return ret;
}

static json_t *run_instance_add(struct daemon *d, const json_t *req)
{
	const char *spec = ctl_member(req, "spec"), *name = ctl_member(req, "iface");
	struct instance_conf conf;
	char text[CONF_ERR_MAX] = "";
	struct iface *i;
	json_t *err;
	int ret;

	if (!spec)
		return ctl_error("no \"spec\"; want \"NAME,mac=MAC,port=tap:DEV\"");
	if (conf_parse_instance(spec, &conf, text, sizeof(text)))
		return ctl_error("%s", text);
	if (name && *conf.iface && strcmp(name, conf.iface))
		return ctl_error("\"iface\" says %s, \"spec\" says %s; name one", name,
				 conf.iface);
	i = ctl_find_iface(d, name ? name : conf.iface, &err);
	if (!i)
		return err;
	strcpy(conf.iface, i->name);
	if (iface_find_instance(i, conf.name))
		return ctl_error("instance %s exists already on %s", conf.name, i->name);
	if (check_clash(d, &conf, text, sizeof(text)))
		return ctl_error("%s", text);
	ret = iface_add_instance(i, &conf, text, sizeof(text));
	if (ret)
		return ctl_error("%s", *text ? text : strerror(-ret));
	return json_pack("{s:b}", "ok", 1);
}

static json_t *run_instance_del(struct daemon *d, const json_t *req)
{
	const char *name = ctl_member(req, "name");
	struct iface *i;
	json_t *err;

	if (!name)
		return ctl_error("no \"name\"; \"instances\" lists them");
	i = ctl_find_iface(d, ctl_member(req, "iface"), &err);
	if (!i)
		return err;
	if (iface_del_instance(i, name))
		return ctl_error("no instance %s on %s; \"instances\" lists them", name,
				 i->name);
	return json_pack("{s:b}", "ok", 1);
}

static const struct command commands[] = {
	{ "version", "", run_version, NULL },
	{ "stats", "", run_stats, NULL },
	{ "flows", "", run_flows, NULL },
	{ "metrics", "", run_metrics, NULL },
	{ "instances", "", run_instances, NULL },
	{ "instance-add", "spec iface", run_instance_add, NULL },
	{ "instance-del", "name iface", run_instance_del, NULL },
	{ "dma-log-start", "instance iface owner", NULL, ctl_dma_start },
	{ "dma-log-swap", "instance iface owner", NULL, ctl_dma_swap },
	{ "dma-log-stop", "instance iface owner", NULL, ctl_dma_stop },
	{ "dma-log-show", "instance iface", ctl_dma_show, NULL },
};

/* ---- requests --------------------------------------------------------------- */

/* Nesting is bounded before the parser, which recurses, sees it. */
static bool too_deep(const char *s, size_t len)
{
	bool quoted = false;
	int depth = 0;

	for (size_t i = 0; i < len; i++) {
		if (quoted && s[i] == '\\')
			i++;
		else if (s[i] == '"')
			quoted = !quoted;
		else if (!quoted && (s[i] == '{' || s[i] == '['))
			depth++;
		else if (!quoted && (s[i] == '}' || s[i] == ']'))
			depth--;
		if (depth > MAX_DEPTH)
			return true;
	}
	return false;
}

static bool in_list(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list; n && (p = strstr(p, word)); p += n)
		if ((p == list || p[-1] == ' ') && (!p[n] || p[n] == ' '))
			return true;
	return false;
}

/* A misspelt member must not pass for one that was left out. Return: false: *@refusal is
 * the answer */
static bool check_members(const struct command *c, json_t *req, json_t **refusal)
{
	const char *key;
	json_t *value;

	json_object_foreach(req, key, value)
	{
		if (!json_is_string(value)) {
			*refusal = ctl_error("\"%s\" is not a string", key);
			return false;
		}
		if (strcmp(key, "cmd") && !in_list(c->members, key)) {
			*refusal =
				ctl_error("%s does not take \"%s\"%s%s", c->name, key,
					  *c->members ? "; it takes: " : "", c->members);
			return false;
		}
	}
	return true;
}

static json_t *run(struct daemon *d, json_t *req, struct ctl_fds *fds)
{
	const json_t *cmd = json_object_get(req, "cmd");
	const char *name = json_string_value(cmd);
	char known[256] = "";
	json_t *err;

	if (!json_is_object(req))
		return ctl_error("not an object; want {\"cmd\": NAME, ...}");
	if (!name)
		return ctl_error("no \"cmd\"; want {\"cmd\": NAME, ...}");
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (!strcmp(commands[i].name, name)) {
			if (!check_members(&commands[i], req, &err))
				return err;
			return commands[i].run ? commands[i].run(d, req)
					       : commands[i].run_fds(d, req, fds);
		}
		snprintf(known + strlen(known), sizeof(known) - strlen(known), "%s%s",
			 i ? ", " : "", commands[i].name);
	}
	return ctl_error("unknown command \"%.64s\"; known are: %s", name, known);
}

void ctl_fds_close(struct ctl_fds *fds)
{
	while (fds->n)
		close(fds->fd[--fds->n]);
}

char *ctl_handle(struct daemon *d, const char *line, size_t len, struct ctl_fds *fds)
{
	json_t *req = NULL, *ans;
	json_error_t why;
	char *out = NULL;
	size_t n;

	fds->n = 0;
	if (len > CTL_MAX_LINE) {
		ans = ctl_error("request longer than %d bytes", CTL_MAX_LINE);
	} else if (too_deep(line, len)) {
		ans = ctl_error("nested deeper than %d", MAX_DEPTH);
	} else {
		req = json_loadb(line, len, JSON_REJECT_DUPLICATES, &why);
		ans = req ? run(d, req, fds)
			  : ctl_error("not JSON, at byte %d: %s", why.position, why.text);
	}
	json_decref(req);
	n = ans ? json_dumpb(ans, NULL, 0, JSON_COMPACT) : 0;
	if (n)
		out = malloc(n + 2);
	/* Without memory this can fail although the size was found. */
	if (out && json_dumpb(ans, out, n, JSON_COMPACT) == n) {
		memcpy(out + n, "\n", 2);
	} else {
		free(out);
		out = NULL;
		ctl_fds_close(fds);
	}
	json_decref(ans);
	return out;
}
