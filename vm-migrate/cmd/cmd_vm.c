// SPDX-License-Identifier: BSD-2-Clause
/*
 * cmd_vm: see cmd_vm.h.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cmd_vm.h"

struct serve_conf cmd_vm_conf = { .vm = { .console_fd = -1 }, .event = cmd_vm_event };

static int set_net(void *to, const char *value, char *why, size_t len)
{
	struct vm_conf *c = to;
	struct vm_net_conf n = { .socket = "" };
	char copy[512], *save = NULL;

	if (c->nnets == VM_MAX_NETS || strlen(value) >= sizeof(copy)) {
		snprintf(why, len, "at most %d network devices", VM_MAX_NETS);
		return -EINVAL;
	}
	strcpy(copy, value);
	for (char *t = strtok_r(copy, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
		if (!strncmp(t, "socket=", 7) && strlen(t + 7) < sizeof(n.socket)) {
			strcpy(n.socket, t + 7);
		} else if (!strncmp(t, "instance=", 9) &&
			   strlen(t + 9) < sizeof(n.instance)) {
			strcpy(n.instance, t + 9);
		} else if (strncmp(t, "mac=", 4) != 0 || vm_parse_mac(t + 4, n.mac)) {
			snprintf(why, len,
				 "\"%s\": socket=PATH,mac=MAC[,instance=NAME] is wanted, "
				 "the address of one station",
				 t);
			return -EINVAL;
		}
	}
	if (!*n.socket) {
		snprintf(why, len, "needs socket=, the back end's");
		return -EINVAL;
	}
	c->net[c->nnets++] = n;
	return 0;
}

static int set_ctl(void *to, const char *value, char *why, size_t len)
{
	struct vm_conf *c = to;

	if (strlen(value) >= sizeof(c->ctl)) {
		snprintf(why, len, "too long for a socket's path");
		return -EINVAL;
	}
	strcpy(c->ctl, value);
	return 0;
}

int cmd_vm_accel(void *to, const char *value, char *why, size_t len)
{
	if (strcmp(value, "kvm") != 0 && strcmp(value, "process") != 0) {
		snprintf(why, len, "\"%s\": kvm or process", value);
		return -EINVAL;
	}
	strcpy(cmd_vm_conf.vm.accel, value);
	return 0;
}

static const char *const track_words[] = { "auto",    "bitmap", "ring",
					   "pagemap", "self",	NULL };

const struct opt cmd_vm_opts[] = {
	OPT("control", 'c', TEXT, &cmd_vm_conf.control, "SOCKET",
	    "where status, send, cancel, ... find this VM"),
	OPT("console", 0, TEXT, &cmd_vm_conf.console, "WHERE",
	    "serial console: none, stdio (control-] leaves it) or\nfile:PATH"),
	OPT("net", 0, CALL, &cmd_vm_conf.vm, "socket=PATH,mac=MAC[,instance=NAME]",
	    "network device of a vhost-user back end; NAME: of\n"
	    "ghostnicd, whose DMA log is then used",
	    .set = set_net),
	OPT("ctl", 0, CALL, &cmd_vm_conf.vm, "SOCKET",
	    "control socket of ghostnicd, for instance=", .set = set_ctl),
	OPT("huge", 0, FLAG, &cmd_vm_conf.vm.huge, NULL, "memory of huge pages (2 MiB)"),
	OPT("dirty", 0, WORD, &cmd_vm_conf.vm.track, "HOW",
	    "how written pages are found: bitmap or ring (KVM),\n"
	    "pagemap or self (process); default: the best there is",
	    .words = track_words),
	OPT("paused", 0, FLAG, &cmd_vm_conf.paused, NULL,
	    "do not start it; vm-migrate resume does"),
	OPT_END,
};

/* ---- what is said ------------------------------------------------------------------ */

static const char *text_of(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static json_int_t number_of(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

static void say(const json_t *o)
{
	const char *e = text_of(o, "event");
	char size[CMD_SIZE_MAX], line[160];

	if (!strcmp(e, "listening")) {
		cmd_note("waiting for a VM on %s", text_of(o, "uri"));
	} else if (!strcmp(e, "incoming")) {
		snprintf(line, sizeof(line), "%s, round %d, %s received",
			 text_of(o, "phase"), (int)number_of(o, "round"),
			 cmd_size((double)number_of(o, "received_bytes"), size));
		cmd_bar(-1, line);
	} else if (!strcmp(e, "failure")) {
		cmd_note("a migration failed: %s; waiting for another try",
			 text_of(o, "error"));
	} else if (!strcmp(e, "migration")) {
		const char *r = text_of(o, "result");

		if (!strcmp(r, "uncertain"))
			cmd_note("nobody knows whether the destination runs the VM: it "
				 "is paused here. Look there; then vm-migrate resume or "
				 "quit");
		else if (strcmp(text_of(o, "phase"), "done") != 0)
			cmd_note("migration %s, the VM runs on here%s%s",
				 strcmp(r, "lost") ? r : "failed",
				 *text_of(o, "error") ? ": " : "", text_of(o, "error"));
	} else {
		cmd_note("VM %s", e);
	}
}

void cmd_vm_event(json_t *event)
{
	if (cmd_as_json()) {
		cmd_json(event);
		return;
	}
	say(event);
	json_decref(event);
}

int cmd_vm_end(enum serve_end how, const char *why)
{
	static const struct {
		const char *word, *text;
		int rc;
	} end[] = {
		[SERVE_ENDED] = { "ended", "the guest has ended", EXIT_DONE },
		[SERVE_QUIT] = { "quit", "ended", EXIT_DONE },
		[SERVE_MIGRATED] = { "migrated", "the VM has left", EXIT_DONE },
		[SERVE_LOST] = { "lost",
				 "the VM has left, and memory that it left with differs "
				 "from what was sent: a write was lost",
				 EXIT_LOST },
		[SERVE_FAILED] = { "failed", NULL, EXIT_FAILED },
		[SERVE_CANNOT] = { "cannot", NULL, EXIT_CANNOT },
		[SERVE_BAD_CONF] = { "usage", NULL, EXIT_USAGE },
	};

	if (!end[how].text) {
		cmd_error("%s", why);
		return end[how].rc;
	}
	if (cmd_as_json())
		cmd_json(json_pack("{s:s, s:s}", "event", "end", "how", end[how].word));
	else
		cmd_note("%s", end[how].text);
	return end[how].rc;
}
