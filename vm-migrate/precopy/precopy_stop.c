// SPDX-License-Identifier: BSD-2-Clause
/*
 * precopy_stop: the end of a migration: the order of rules that precopy.h lists. Every
 * step here is one that somebody got wrong once; fault.h has the list that the tests
 * plant.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../user/lib/bitmap.h"
#include "../../user/lib/clock.h"
#include "../fault.h"
#include "precopy_impl.h"

#define VERIFY_MS  10000 /* the destination loads the state and compares */
#define RUNNING_MS CHAN_DEAD_MS

/* Step @step took from @since till now. Return: now */
static uint64_t lap(struct precopy *p, enum precopy_step step, uint64_t since)
{
	uint64_t now = clock_ns();

	pthread_mutex_lock(&p->lock);
	p->status.step_us[step] = (now - since) / 1000;
	pthread_mutex_unlock(&p->lock);
	return now;
}

static int pause_all(struct precopy *p)
{
	int err;

	dirty_set_hasty(p->dirty, false);
	if (FAULT(FAULT_HARVEST_BEFORE_PAUSE))
		precopy_harvest(p, true);
	p->paused = true;
	err = p->ops->pause(p->vm);
	if (err)
		return precopy_fail(p, err, "vCPUs do not stop: %s", strerror(-err));
	if (FAULT(FAULT_NO_DRAIN))
		return 0;
	if (FAULT(FAULT_HARVEST_BEFORE_SAVE))
		precopy_harvest(p, true);
	err = p->ops->drain(p->vm);
	return err ? precopy_fail(p, err, "a device does not stop: %s", strerror(-err))
		   : 0;
}

static bool skip_harvest(void)
{
	return FAULT(FAULT_HARVEST_BEFORE_PAUSE) || FAULT(FAULT_HARVEST_BEFORE_SAVE) ||
	       FAULT(FAULT_NO_LAST_HARVEST);
}

/* Step 5: all that is left, then the rest of the machine. */
static int send_rest(struct precopy *p, const struct state_writer *w)
{
	struct wire_digest d;
	int err;

	sender_set_still(p->sender, true);
	err = sender_round(p->sender, p->bitmap);
	if (!err)
		err = sender_end(p->sender);
	if (!err)
		err = sender_control(p->sender, WIRE_STATE, 0, w->buf, (uint32_t)w->len);
	if (!err) {
		d.digest = sender_digest(p->sender, &d.pages);
		pthread_mutex_lock(&p->lock);
		p->status.digest = d.digest;
		pthread_mutex_unlock(&p->lock);
		err = sender_control(p->sender, WIRE_DIGEST, 0, &d, sizeof(d));
	}
	return err ? precopy_send_failed(p, err) : 0;
}

/*
 * Has anybody written since the last harvest? A log may report what did not change, and
 * after dirty_set_last() what that harvest reported.
 */
static int check_still(struct precopy *p)
{
	uint64_t bits = p->ram->pages, page;
	uint8_t copy[RAM_PAGE_SIZE];
	int err;

	dirty_set_hasty(p->dirty, true);
	precopy_harvest(p, false);
	for (page = 0; (page = bitmap_next(p->bitmap, page, bits)) < bits; page++) {
		err = ram_read(p->ram, page, 1, copy);
		if (err)
			return precopy_fail(p, err, "the RAM cannot be read again");
		if (digest_page(copy) != digest_get(&p->digest, page))
			return precopy_fail(
				p, -EIO,
				"page %#llx was written after vCPUs and devices stopped: "
				"a device was not drained",
				(unsigned long long)ram_gpa(p->ram, page));
	}
	memset(p->bitmap, 0, ram_words(p->ram) * sizeof(uint64_t));
	return 0;
}

static int verify(struct precopy *p)
{
	uint64_t began = clock_ns();
	int err;

	precopy_phase(p, PRECOPY_VERIFYING);
	/* While the destination does its part */
	err = check_still(p);
	if (err)
		return err;
	began = lap(p, PRECOPY_STEP_STILL, began);
	err = peer_await(&p->peer, WIRE_VERIFIED, VERIFY_MS, &p->cancelled);
	lap(p, PRECOPY_STEP_VERIFY, began);
	if (err == -ECANCELED && atomic_load(&p->cancelled))
		return precopy_fail(p, err, "cancelled");
	if (err)
		return precopy_fail(p, err, "%s", p->peer.why);
	if (p->peer.digest.digest != p->status.digest)
		return precopy_fail(p, -EBADMSG, "the destination has another digest");
	return p->conf.verify == PRECOPY_VERIFY_FULL ? precopy_audit(p) : 0;
}

/* Step 7. From here on the source may not just go on. */
static int commit(struct precopy *p)
{
	bool cancelled;
	int err;

	sender_quiet(p->sender);
	pthread_mutex_lock(&p->lock);
	cancelled = atomic_load(&p->cancelled);
	if (!cancelled) {
		atomic_store(&p->committed, true);
		p->status.phase = PRECOPY_HANDING_OVER;
	}
	pthread_mutex_unlock(&p->lock);
	if (cancelled)
		return precopy_fail(p, -ECANCELED, "cancelled");
	/* A frame that did not go out whole hands nothing over. */
	err = sender_control(p->sender, WIRE_HANDOVER, 0, NULL, 0);
	if (err)
		return precopy_send_failed(p, err);
	err = peer_await(&p->peer, WIRE_RUNNING, RUNNING_MS, NULL);
	if (!err)
		return 0;
	if (p->peer.over)
		return precopy_fail(p, err == -EBUSY ? -EIO : err, "%s", p->peer.why);
	precopy_fail(p, -EBUSY,
		     "%s after the hand-over: whether it runs is not known. Look there; "
		     "if it does not run, resume it here",
		     p->peer.why);
	return -EBUSY;
}

int precopy_hand_over(struct precopy *p)
{
	uint64_t began = clock_ns(), then, pages = 0;
	struct state_writer w;
	int err;

	precopy_phase(p, PRECOPY_STOP);
	state_init(&w);
	err = pause_all(p);
	then = lap(p, PRECOPY_STEP_PAUSE, began);
	if (!err) {
		err = p->ops->save(p->vm, &w);
		if (!err)
			err = state_finish(&w);
		if (err)
			precopy_fail(p, err, "the machine's state cannot be saved: %s",
				     strerror(-err));
	}
	if (!err && FAULT(FAULT_CLOSE_BEFORE_SEND))
		dirty_set_stop(p->dirty);
	then = lap(p, PRECOPY_STEP_SAVE, then);
	dirty_set_last(p->dirty);
	if (!err && !skip_harvest())
		pages = precopy_harvest(p, true);
	then = lap(p, PRECOPY_STEP_HARVEST, then);
	if (!err)
		err = send_rest(p, &w);
	lap(p, PRECOPY_STEP_SEND, then);
	state_fini(&w);
	if (!err)
		err = verify(p);
	then = clock_ns();
	if (!err)
		err = commit(p);
	lap(p, PRECOPY_STEP_HANDOVER, then);
	if (!err) {
		pthread_mutex_lock(&p->lock);
		p->status.last_pages = pages;
		p->status.downtime_us = (clock_ns() - began) / 1000;
		p->status.eta_ms = 0;
		pthread_mutex_unlock(&p->lock);
	}
	return err;
}

/* After the hand-over that is no failure: the machine runs there, and only there. */
static int not_audited(struct precopy *p, int err)
{
	static const char what[] = "the RAM cannot be read again";

	if (!atomic_load(&p->committed))
		return precopy_fail(p, err, "%s: %s", what, strerror(-err));
	pthread_mutex_lock(&p->lock);
	snprintf(p->status.message, sizeof(p->status.message),
		 "%s, and was not compared with what was sent: %s", what, strerror(-err));
	pthread_mutex_unlock(&p->lock);
	return 0;
}

int precopy_audit(struct precopy *p)
{
	uint64_t page[8] = { 0 };
	int64_t bad;

	if (p->conf.verify == PRECOPY_VERIFY_NONE || p->status.audit_bad >= 0)
		return 0;
	if (atomic_load(&p->committed))
		precopy_phase(p, PRECOPY_AUDIT);
	bad = digest_compare(&p->digest, p->ram, page, 8, 0);
	if (bad < 0)
		return not_audited(p, (int)bad);
	pthread_mutex_lock(&p->lock);
	p->status.audit_bad = bad;
	memcpy(p->status.audit_page, page, sizeof(page));
	pthread_mutex_unlock(&p->lock);
	if (bad)
		return precopy_fail(
			p, -EUCLEAN,
			"%lld pages differ from what was sent, first %#llx: a "
			"write is missing in the dirty logs",
			(long long)bad, (unsigned long long)ram_gpa(p->ram, page[0]));
	return 0;
}
