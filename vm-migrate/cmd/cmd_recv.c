// SPDX-License-Identifier: BSD-2-Clause
/*
 * recv: wait for a VM that is migrated here, and run it.
 */
#include <stdio.h>
#include <string.h>

#include "cmd_tls.h"
#include "cmd_vm.h"

static const struct opt opts[] = {
	OPT("listen", 'l', TEXT, &cmd_vm_conf.listen, "URI",
	    "tcp:HOST:PORT (port 0: any) or unix:PATH"),
	CMD_TLS_OPTS(cmd_vm_conf.tls, "psk: user name, default qemu"),
	OPT("max-memory", 'm', SIZE, &cmd_vm_conf.vm.memory, "SIZE",
	    "refuse a VM with more"),
	OPT("max-failures", 0, UINT, &cmd_vm_conf.max_failures, "N",
	    "give up after so many failed migrations; default 0:\n"
	    "never"),
	OPT_END,
};

static int run_recv(int argc, char **argv)
{
	enum serve_end how;
	char why[512];

	if (!cmd_vm_conf.listen) {
		cmd_error("recv needs --listen URI, such as tcp:0.0.0.0:4444");
		return EXIT_USAGE;
	}
	if (cmd_vm_conf.tls.mode != CHAN_TLS_OFF && !cmd_vm_conf.tls.dir) {
		cmd_error("--tls needs --tls-dir");
		return EXIT_USAGE;
	}
	if (!cmd_vm_conf.console)
		cmd_vm_conf.console = "none";
	how = serve_recv(&cmd_vm_conf, why, sizeof(why));
	return cmd_vm_end(how, why);
}

const struct cmd cmd_recv = {
	.name = "recv",
	.run = run_recv,
	.opts = opts,
	.more = cmd_vm_opts,
	.usage = "recv --listen URI [--control SOCKET]",
	.summary = "wait for a VM that is migrated here, and run it in the foreground",
};
