// SPDX-License-Identifier: BSD-2-Clause
/*
 * run: a VM of the small VMM.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd_vm.h"

static const char *kernel, *initrd, *append, *workload;

static const struct opt opts[] = {
	OPT("accel", 'a', CALL, NULL, "WHAT",
	    "kvm, or process: the guest is a sandboxed process\n"
	    "that runs the workload; default: kvm where it is",
	    .set = cmd_vm_accel),
	OPT("memory", 'm', SIZE, &cmd_vm_conf.vm.memory, "SIZE", "default 256M"),
	OPT("cpus", 'n', UINT, &cmd_vm_conf.vm.vcpus, "N", "1 to 8 vCPUs, default 1",
	    .min = 1, .max = VM_MAX_VCPUS),
	OPT("kernel", 'k', TEXT, &kernel, "FILE", "Linux bzImage to boot (KVM)"),
	OPT("initrd", 'i', TEXT, &initrd, "FILE", "its initramfs"),
	OPT("append", 0, TEXT, &append, "TEXT",
	    "its command line; default: console=ttyS0"),
	OPT("workload", 'w', TEXT, &workload, "SPEC",
	    "run the built-in guest: rate=PAGES_PER_S,\n"
	    "pattern=random|sequential|hot,set=SIZE|N%,\n"
	    "fill=SIZE|N%,piece=SIZE,write=line|page,\n"
	    "stop=WRITES"),
	OPT_END,
};

static int copy(char *to, size_t size, const char *from, const char *what)
{
	if (from && strlen(from) >= size) {
		cmd_error("--%s: too long", what);
		return -EINVAL;
	}
	strcpy(to, from ? from : "");
	return 0;
}

static int fill_conf(struct vm_conf *c)
{
	char why[256];

	if (!c->memory)
		c->memory = 256u << 20;
	if (!c->vcpus)
		c->vcpus = 1;
	if (workload && kernel) {
		cmd_error("a VM boots a kernel or runs the workload: --kernel or "
			  "--workload");
		return -EINVAL;
	}
	if (!workload && !kernel) {
		cmd_error(
			"nothing to run: name --kernel FILE, or --workload SPEC such as "
			"rate=1000");
		return -EINVAL;
	}
	if (!*c->accel)
		strcpy(c->accel,
		       access("/dev/kvm", R_OK | W_OK) && workload ? "process" : "kvm");
	if (kernel && strcmp(c->accel, "kvm") != 0) {
		cmd_error("a kernel needs --accel kvm");
		return -EINVAL;
	}
	if (initrd && !kernel) {
		cmd_error("--initrd needs --kernel");
		return -EINVAL;
	}
	if (copy(c->kernel, sizeof(c->kernel), kernel, "kernel") ||
	    copy(c->initrd, sizeof(c->initrd), initrd, "initrd") ||
	    copy(c->append, sizeof(c->append), append ? append : "console=ttyS0",
		 "append"))
		return -EINVAL;
	if (workload && workload_parse(workload, &c->work, why, sizeof(why))) {
		cmd_error("--%s", why);
		return -EINVAL;
	}
	for (unsigned int i = 0; i < c->nnets; i++)
		if (!memcmp(c->net[i].mac, "\0\0\0\0\0", 6)) {
			cmd_error("--net: needs mac=, an address of its own");
			return -EINVAL;
		}
	if (vm_conf_check(c, why, sizeof(why))) {
		cmd_error("%s", why);
		return -EINVAL;
	}
	return 0;
}

static int run_run(int argc, char **argv)
{
	char why[512];
	enum serve_end how;

	if (fill_conf(&cmd_vm_conf.vm))
		return EXIT_USAGE;
	if (!cmd_vm_conf.console)
		cmd_vm_conf.console = kernel && !cmd_as_json() ? "stdio" : "none";
	how = serve_run(&cmd_vm_conf, why, sizeof(why));
	return cmd_vm_end(how, why);
}

const struct cmd cmd_run = {
	.name = "run",
	.run = run_run,
	.opts = opts,
	.more = cmd_vm_opts,
	.usage = "run (--kernel FILE [--initrd FILE] | --workload SPEC) [--control "
		 "SOCKET]",
	.summary = "run a VM, in the foreground, until its guest ends or has left",
};
