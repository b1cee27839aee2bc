// SPDX-License-Identifier: BSD-2-Clause
/* cmd_move: a region of this node goes to another one. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../bus.h"
#include "cmd.h"
#include "../local.h"

#define SILENCE_MS 30000 /* an agent tells how far it is several times a second */

static void say(const struct cmd_opts *o, json_t *v)
{
	const char *phase = json_string_value(json_object_get(v, "phase"));

	if (o->json) {
		cmd_json(json_incref(v));
	} else if (phase) {
		printf("%s: round %" PRId64 ", %" PRId64 " pages sent, %" PRId64
		       " to go\n",
		       phase, (int64_t)json_integer_value(json_object_get(v, "round")),
		       (int64_t)json_integer_value(json_object_get(v, "pages")),
		       (int64_t)json_integer_value(json_object_get(v, "left")));
	} else {
		printf("%s: moved from %s to %s, epoch %" PRId64 ": %" PRId64
		       " pages in %.0f ms, stood still %.1f ms\n",
		       json_string_value(json_object_get(v, "moved")),
		       json_string_value(json_object_get(v, "from")),
		       json_string_value(json_object_get(v, "to")),
		       (int64_t)json_integer_value(json_object_get(v, "epoch")),
		       (int64_t)json_integer_value(json_object_get(v, "pages")),
		       json_number_value(json_object_get(v, "total_ms")),
		       json_number_value(json_object_get(v, "switch_ms")));
	}
	fflush(stdout);
}

/* What the agent says, until it is over. Return: its status, -errno */
static int listen_to(const struct cmd_opts *o, int sock)
{
	struct pollfd p = { .fd = sock, .events = POLLIN };
	int fds[LOCAL_FDS], n, err;
	struct local_msg m;
	json_error_t e;
	json_t *v;

	do {
		if (poll(&p, 1, SILENCE_MS) == 0)
			return -ETIMEDOUT;
		err = local_recv(sock, &m, fds, &n);
		if (err <= 0)
			return err ? err : -ECONNRESET;
		while (n)
			close(fds[--n]);
		if (m.op != LOCAL_MOVE)
			continue;
		v = m.text_len ? json_loadb(m.text, m.text_len, 0, &e) : NULL;
		if (v && !m.status)
			say(o, v);
		json_decref(v);
	} while (m.op != LOCAL_MOVE || m.more);
	return m.status;
}

static int run_move(const struct cmd_opts *o, int argc, char **argv)
{
	struct local_msg m = { .magic = LOCAL_MAGIC, .op = LOCAL_MOVE, .key = o->key };
	int sock, err;

	if (!o->to || !gm_name_ok(o->to)) {
		fputs("ghostmem: where to? --to NODE, a name as ghostmem ls shows them\n",
		      stderr);
		return EXIT_USAGE;
	}
	if (!o->key.len) {
		fputs("ghostmem: a region has a key: --key-file FILE, or GHOSTMEM_KEY\n",
		      stderr);
		return EXIT_USAGE;
	}
	if (!gm_name_ok(argv[0]))
		return cmd_error(o, -ENOENT, "%s", argv[0]);
	strcpy(m.name, argv[0]);
	strcpy(m.node, o->to);
	sock = local_connect(o->agent);
	if (sock < 0)
		return cmd_error(o, sock == -ENOENT ? -ECONNREFUSED : sock, "agent");
	err = local_send(sock, &m, NULL, 0);
	if (!err)
		err = listen_to(o, sock);
	close(sock);
	gm_key_wipe(&m.key);
	return err ? cmd_error(o, err, "cannot move %s to %s", argv[0], o->to) : 0;
}

const struct cmd cmd_move = {
	"move",	  "NAME", "let another node serve a region of this one; addresses stay",
	1,	  1,	  "kT",
	run_move,
};
