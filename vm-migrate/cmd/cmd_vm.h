/* SPDX-License-Identifier: BSD-2-Clause */
/* cmd_vm: what run and recv share: options of a machine, and what is said of its life. */
#ifndef VMM_CMD_VM_H
#define VMM_CMD_VM_H

#include "cmd.h"
#include "../vmm/serve.h"

/* --control, --console, --net, --ctl, --huge, --dirty, --paused, into cmd_vm_conf */
extern const struct opt cmd_vm_opts[];
extern struct serve_conf cmd_vm_conf;

/** cmd_vm_accel() - option --accel, for OPT_CALL */
int cmd_vm_accel(void *to, const char *value, char *why, size_t why_len);

/** cmd_vm_event() - serve_conf.event */
void cmd_vm_event(json_t *event);

/** cmd_vm_end() - say how it ended. Return: an exit code */
int cmd_vm_end(enum serve_end how, const char *why);

#endif
