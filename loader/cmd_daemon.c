// SPDX-License-Identifier: BSD-2-Clause
/*
 * ghostnic flows, instance, metrics: questions and orders to the daemon.
 */
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "cmd.h"
#include "out.h"

/* Ask; on failure the message has been printed. @req: reference is taken */
static int ask(const struct opts *o, json_t *req, json_t **answer)
{
	char msg[512];
	int err;

	err = ctl_call(o->ctl, req, answer, msg, sizeof(msg));
	json_decref(req);
	if (!err)
		return EXIT_DONE;
	out_error("%s", msg);
	return ctl_no_daemon(err) ? EXIT_ABSENT : EXIT_FAILED;
}

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static long long number(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

int cmd_flows(const struct opts *o, int argc, char **argv)
{
	static const char *const title[] = { "INTERFACE", "QUEUE",     "INSTANCE",
					     "PROTO",	  "FLOW",      "PACKETS",
					     "FRAMES",	  "PER FRAME", "BYTES",
					     "IDLE MS" };
	json_t *answer, *f;
	struct table t;
	size_t i;
	int rc;

	rc = ask(o, json_pack("{s:s}", "cmd", "flows"), &answer);
	if (rc)
		return rc;
	if (o->json) {
		out_json(answer);
		return EXIT_DONE;
	}
	table_init(&t, title, "<><<<>>>>>");
	json_array_foreach(json_object_get(answer, "flows"), i, f)
	{
		long long packets = number(f, "packets"), frames = number(f, "frames");

		table_row(&t, "%s\t%lld\t%s\t%s\t%s\t%lld\t%lld\t%.1f\t%lld\t%lld",
			  text(f, "interface"), number(f, "queue"), text(f, "instance"),
			  text(f, "proto"), text(f, "flow"), packets, frames,
			  frames ? (double)packets / (double)frames : 0.0,
			  number(f, "bytes"), number(f, "idle_ms"));
	}
	if (!t.nrows)
		puts("no flows");
	table_print(&t, stdout);
	json_decref(answer);
	return EXIT_DONE;
}

static void join(const json_t *list, char *buf, size_t size)
{
	size_t i, len = 0;
	json_t *s;

	buf[0] = '\0';
	json_array_foreach(list, i, s)
	{
		const char *v = json_string_value(s);

		if (v && len < size)
			len += (size_t)snprintf(buf + len, size - len, "%s%s",
						len ? "," : "", v);
	}
}

/* As it is written in a configuration: the largest unit that divides it. */
static const char *rate_text(long long bits, char *buf, size_t size)
{
	static const char units[] = " kMG";
	unsigned int u = 0;

	if (!bits)
		return "-";
	for (; u < 3 && bits % 1000 == 0; u++)
		bits /= 1000;
	snprintf(buf, size, "%lld%.*s", bits, u ? 1 : 0, units + u);
	return buf;
}

static int list_instances(const struct opts *o)
{
	static const char *const title[] = { "NAME", "INTERFACE", "MAC",
					     "VLAN", "PORT",	  "ID",
					     "RATE", "SPOOF",	  "SUPER-PACKETS" };
	json_t *answer, *in;
	struct table t;
	char gso[64], rate[24];
	size_t i;
	int rc;

	rc = ask(o, json_pack("{s:s}", "cmd", "instances"), &answer);
	if (rc)
		return rc;
	if (o->json) {
		out_json(answer);
		return EXIT_DONE;
	}
	table_init(&t, title, "<<<><>><<");
	json_array_foreach(json_object_get(answer, "instances"), i, in)
	{
		join(json_object_get(in, "gso"), gso, sizeof(gso));
		table_row(&t, "%s\t%s\t%s\t%lld\t%s\t%lld\t%s\t%s\t%s", text(in, "name"),
			  text(in, "interface"), text(in, "mac"), number(in, "vlan"),
			  text(in, "port"), number(in, "id"),
			  rate_text(number(in, "rate"), rate, sizeof(rate)),
			  json_is_true(json_object_get(in, "allow_spoof")) ? "yes" : "no",
			  *gso ? gso : "none");
	}
	if (!t.nrows)
		puts("no instances");
	table_print(&t, stdout);
	json_decref(answer);
	return EXIT_DONE;
}

int cmd_instance(const struct opts *o, int argc, char **argv)
{
	const char *iface = o->iface ? o->iface : "";
	bool add = !strcmp(argv[0], "add");
	json_t *answer;
	int rc;

	if (!strcmp(argv[0], "list") && argc == 1)
		return list_instances(o);
	if (argc != 2 || (!add && strcmp(argv[0], "del"))) {
		out_error("instance takes: add NAME,mac=MAC[,vlan=N],port=PORT, or del "
			  "NAME, "
			  "or list; see ghostnic instance --help");
		return EXIT_USAGE;
	}
	if (add)
		rc = ask(o,
			 json_pack("{s:s, s:s, s:s}", "cmd", "instance-add", "spec",
				   argv[1], "iface", iface),
			 &answer);
	else
		rc = ask(o,
			 json_pack("{s:s, s:s, s:s}", "cmd", "instance-del", "name",
				   argv[1], "iface", iface),
			 &answer);
	if (rc)
		return rc;
	if (o->json) {
		out_json(answer);
		return EXIT_DONE;
	}
	printf("%.*s: %s\n", (int)strcspn(argv[1], ","), argv[1],
	       add ? "added" : "removed");
	json_decref(answer);
	return EXIT_DONE;
}

int cmd_metrics(const struct opts *o, int argc, char **argv)
{
	json_t *answer;
	int rc = ask(o, json_pack("{s:s}", "cmd", "metrics"), &answer);

	if (rc)
		return rc;
	if (o->json) {
		out_json(answer);
		return EXIT_DONE;
	}
	fputs(text(answer, "text"), stdout);
	json_decref(answer);
	return EXIT_DONE;
}
