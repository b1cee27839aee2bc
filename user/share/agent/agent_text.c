// SPDX-License-Identifier: BSD-2-Clause
/* agent_text: regions and counters as JSON. Contract in agent_int.h; agent's thread. */
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "agent_int.h"

/* A text in pieces; the caller sends the last one as its reply. */
static int send_text(struct app *app, struct local_msg *m, json_t *v)
{
	char *text = v ? json_dumps(v, JSON_COMPACT) : NULL;
	size_t left = text ? strlen(text) : 0, at = 0;
	int err = text ? 0 : -ENOMEM;

	while (!err) {
		m->text_len = left > LOCAL_TEXT ? LOCAL_TEXT : (uint32_t)left;
		memcpy(m->text, text + at, m->text_len);
		at += m->text_len;
		left -= m->text_len;
		m->more = left > 0;
		if (!left)
			break;
		err = local_send(app->sock, m, NULL, 0);
	}
	free(text);
	json_decref(v);
	return err;
}

static int add_region(void *arg, const struct dir_region *r)
{
	return json_array_append_new(
		arg, json_pack("{s:s,s:I,s:I,s:I,s:s,s:s,s:I}", "name", r->name, "bus",
			       (json_int_t)r->bus, "size", (json_int_t)r->size, "page",
			       (json_int_t)1 << r->page_shift, "node", r->node, "addr",
			       r->addr, "epoch", (json_int_t)r->epoch));
}

int agent_list(struct app *app, struct local_msg *m)
{
	json_t *all = json_array();
	int err = dir_list(app->agent->dir, add_region, all);

	if (err) {
		json_decref(all);
		return err;
	}
	return send_text(app, m, all);
}

static json_t *stat_json(struct agent *a)
{
	json_t *root = json_pack("{s:s,s:o,s:[],s:{}}", "node", a->cfg.node, "home",
				 home_stat(a->home), "imports", "counters");
	json_t *c = json_object_get(root, "counters");

	for (struct import *i = a->imports; i; i = i->next)
		json_array_append_new(json_object_get(root, "imports"),
				      peer_stat(i->peer));
#define ADD_COUNTER(name)                                                                \
	json_object_set_new(c, #name, json_integer((json_int_t)counters.name));
	GM_COUNTERS(ADD_COUNTER)
#undef ADD_COUNTER
	return root;
}

int agent_stat(struct app *app, struct local_msg *m)
{
	return send_text(app, m, stat_json(app->agent));
}
