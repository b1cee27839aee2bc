/* SPDX-License-Identifier: BSD-2-Clause */
/* qemu_settings: change a QEMU's migration capabilities and parameters, and undo it. */
#ifndef VMM_QEMU_SETTINGS_H
#define VMM_QEMU_SETTINGS_H

#include "qmp.h"

/* What was changed, or the migration may change, with the values of before; all NULL: nothing. */
struct qemu_settings {
	json_t *caps;	/* array of {capability, state} */
	json_t *params; /* object */
};

/**
 * qemu_settings_apply() - set what is not set like that already
 * @caps:	object of booleans; reference is taken
 * @params:	object; reference is taken
 * @saved:	all NULL; filled also on failure, with what was changed until then
 *
 * Return: as qmp_call()
 */
int qemu_settings_apply(struct qmp *q, json_t *caps, json_t *params,
			struct qemu_settings *saved);

/** qemu_settings_restore() - the values of before; a QEMU that is gone is fine */
void qemu_settings_restore(struct qmp *q, struct qemu_settings *saved);

void qemu_settings_fini(struct qemu_settings *saved);

#endif
