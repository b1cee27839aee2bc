// SPDX-License-Identifier: BSD-2-Clause
/* cmd_agent: ls, stat, revoke: what the agent does by itself. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "../local.h"

#define CALL_MS 15000

static int no_agent(int err)
{
	return err == -ENOENT ? -ECONNREFUSED : err;
}

/* A request whose reply is a JSON text in pieces. */
static int ask_text(const struct cmd_opts *o, uint8_t op, json_t **out)
{
	struct local_msg m = { .op = op };
	int sock = local_connect(o->agent), fds[LOCAL_FDS], n, err;
	char *text = NULL;
	size_t len = 0;

	if (sock < 0)
		return no_agent(sock);
	err = local_call(sock, &m, NULL, 0, NULL, NULL, CALL_MS, NULL, NULL);
	while (!err) {
		char *grown = realloc(text, len + m.text_len + 1);

		if (!grown) {
			err = -ENOMEM;
			break;
		}
		text = grown;
		memcpy(text + len, m.text, m.text_len);
		len += m.text_len;
		if (!m.more) {
			json_error_t e;

			*out = json_loadb(text, len, 0, &e);
			err = *out ? 0 : -EBADMSG;
			break;
		}
		err = local_recv(sock, &m, fds, &n);
		if (err > 0) {
			while (n)
				close(fds[--n]);
			err = m.op == op ? m.status : -EPROTO;
		} else if (!err) {
			err = -ECONNRESET;
		}
	}
	free(text);
	close(sock);
	return err;
}

static const char *size_text(uint64_t n, char *buf, size_t len)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
	int u = 0;

	while (n >= 1024 && n % 1024 == 0 && u < 4) {
		n /= 1024;
		u++;
	}
	snprintf(buf, len, "%" PRIu64 " %s", n, units[u]);
	return buf;
}

static int run_ls(const struct cmd_opts *o, int argc, char **argv)
{
	char size[32], page[32];
	json_t *all, *v;
	size_t i;
	int err = ask_text(o, LOCAL_LIST, &all);

	if (err)
		return cmd_error(o, err, "cannot list regions");
	if (o->json) {
		cmd_json(all);
		return 0;
	}
	printf("%-20s %-18s %10s %6s %-12s %-24s %s\n", "NAME", "BUS", "SIZE", "PAGE",
	       "OWNER", "ADDRESS", "EPOCH");
	json_array_foreach(all, i, v)
	{
		printf("%-20s 0x%-16" PRIx64 " %10s %6s %-12s %-24s %" PRId64 "\n",
		       json_string_value(json_object_get(v, "name")),
		       (uint64_t)json_integer_value(json_object_get(v, "bus")),
		       size_text((uint64_t)json_integer_value(json_object_get(v, "size")),
				 size, sizeof(size)),
		       size_text((uint64_t)json_integer_value(json_object_get(v, "page")),
				 page, sizeof(page)),
		       json_string_value(json_object_get(v, "node")),
		       json_string_value(json_object_get(v, "addr")),
		       (int64_t)json_integer_value(json_object_get(v, "epoch")));
	}
	json_decref(all);
	return 0;
}

static void show(const char *head, const json_t *v)
{
	char name[128];
	const char *k;
	json_t *e;
	size_t i;

	if (json_is_object(v)) {
		json_object_foreach((json_t *)v, k, e)
		{
			snprintf(name, sizeof(name), "%s%s%s", head, *head ? "." : "", k);
			show(name, e);
		}
	} else if (json_is_array(v)) {
		json_array_foreach(v, i, e)
		{
			snprintf(name, sizeof(name), "%s[%zu]", head, i);
			show(name, e);
		}
	} else {
		char *text = json_dumps(v, JSON_ENCODE_ANY);

		printf("%-36s %s\n", head, text ? text : "?");
		free(text);
	}
}

static int run_stat(const struct cmd_opts *o, int argc, char **argv)
{
	json_t *v;
	int err = ask_text(o, LOCAL_STAT, &v);

	if (err)
		return cmd_error(o, err, "cannot ask the agent");
	if (o->json) {
		cmd_json(v);
		return 0;
	}
	show("", v);
	json_decref(v);
	return 0;
}

static int simple(const struct cmd_opts *o, struct local_msg *m)
{
	int sock = local_connect(o->agent), err;

	if (sock < 0)
		return no_agent(sock);
	err = local_call(sock, m, NULL, 0, NULL, NULL, CALL_MS, NULL, NULL);
	close(sock);
	return err;
}

static int set_name(struct local_msg *m, const char *name)
{
	if (!gm_name_ok(name))
		return -ENOENT;
	strcpy(m->name, name);
	return 0;
}

int cmd_revoke_here(const struct cmd_opts *o, const char *name)
{
	struct local_msg m = { .op = LOCAL_REVOKE };
	int err = set_name(&m, name);

	return err ? err : simple(o, &m);
}

static int run_revoke(const struct cmd_opts *o, int argc, char **argv)
{
	int err = cmd_revoke_here(o, argv[0]);

	if (err)
		return cmd_error(o, err, "cannot revoke %s at this node", argv[0]);
	if (o->json)
		cmd_json(json_pack("{s:s}", "revoked", argv[0]));
	return 0;
}

const struct cmd cmd_ls = { "ls", "", "the regions in the directory", 0, 0, "", run_ls };
const struct cmd cmd_stat = {
	"stat", "",	  "what the agent of this node holds and has counted", 0, 0,
	"",	run_stat,
};
const struct cmd cmd_revoke = {
	"revoke", "NAME", "end a region of this node for everyone", 1, 1, "", run_revoke,
};
