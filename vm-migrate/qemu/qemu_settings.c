// SPDX-License-Identifier: BSD-2-Clause
/* qemu_settings: see qemu_settings.h. */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "qemu_settings.h"

static json_t *one_cap(const char *name, bool on)
{
	return json_pack("{s:s, s:b}", "capability", name, "state", on);
}

static int set_caps(struct qmp *q, json_t *list)
{
	return qmp_call(q, "migrate-set-capabilities",
			json_pack("{s:O}", "capabilities", list), NULL);
}

static int apply_caps(struct qmp *q, json_t *want, struct qemu_settings *saved)
{
	json_t *now, *cap, *list = json_array();
	size_t i;
	int err = qmp_call(q, "query-migrate-capabilities", NULL, &now);

	if (err) {
		json_decref(list);
		return err;
	}
	saved->caps = json_array();
	json_array_foreach(now, i, cap)
	{
		const char *name = json_string_value(json_object_get(cap, "capability"));
		bool on = json_is_true(json_object_get(cap, "state"));
		const json_t *w = name ? json_object_get(want, name) : NULL;

		if (!w || json_is_true(w) == on)
			continue;
		json_array_append_new(list, one_cap(name, !on));
		json_array_append_new(saved->caps, one_cap(name, on));
	}
	json_decref(now);
	if (json_array_size(list))
		err = set_caps(q, list);
	if (err)
		json_array_clear(saved->caps);
	json_decref(list);
	return err;
}

static int apply_params(struct qmp *q, json_t *want, struct qemu_settings *saved)
{
	json_t *now, *v, *list = json_object();
	const char *key;
	int err = qmp_call(q, "query-migrate-parameters", NULL, &now);

	if (err) {
		json_decref(list);
		return err;
	}
	saved->params = json_object();
	json_object_foreach(want, key, v)
	{
		json_t *old = json_object_get(now, key);

		/* Also what is the same now: the migration may change it. */
		if (old)
			json_object_set(saved->params, key, old);
		/* What QEMU does not list it does not know; it will say so. */
		if (!old || !json_equal(old, v))
			json_object_set(list, key, v);
	}
	json_decref(now);
	if (json_object_size(list))
		err = qmp_call(q, "migrate-set-parameters", json_incref(list), NULL);
	if (err)
		json_object_clear(saved->params);
	json_decref(list);
	return err;
}

int qemu_settings_apply(struct qmp *q, json_t *caps, json_t *params,
			struct qemu_settings *saved)
{
	int err = apply_caps(q, caps, saved);

	if (!err)
		err = apply_params(q, params, saved);
	json_decref(caps);
	json_decref(params);
	return err;
}

void qemu_settings_restore(struct qmp *q, struct qemu_settings *saved)
{
	if (json_array_size(saved->caps))
		set_caps(q, saved->caps);
	if (json_object_size(saved->params))
		qmp_call(q, "migrate-set-parameters", json_incref(saved->params), NULL);
	qemu_settings_fini(saved);
}

void qemu_settings_fini(struct qemu_settings *saved)
{
	json_decref(saved->caps);
	json_decref(saved->params);
	saved->caps = saved->params = NULL;
}
