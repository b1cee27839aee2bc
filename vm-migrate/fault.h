/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * fault: mistakes that the tests plant, one for each rule of the order of things.
 *
 * The product has none of them: FAULT() is 0 at compile time. The test build (GN_FAULTS)
 * switches one on at a time and must notice that pages are lost, or a machine runs twice.
 */
#ifndef VMM_FAULT_H
#define VMM_FAULT_H

enum fault {
	FAULT_NONE,
	FAULT_READ_BEFORE_CLEAR,    /* the log is armed after the page was read */
	FAULT_CLEAR_UNHARVESTED,    /* bits are cleared that no harvest has taken */
	FAULT_HARVEST_BEFORE_PAUSE, /* the last harvest, then the vCPUs stop */
	FAULT_NO_DRAIN,		    /* the device still writes */
	FAULT_HARVEST_BEFORE_SAVE,  /* what saving writes is not harvested */
	FAULT_NO_LAST_HARVEST,	    /* vCPUs stop, and that is it */
	FAULT_CLOSE_BEFORE_SEND,    /* the logs are closed before they are read */
	FAULT_NO_END,		    /* the destination does not wait for every stream */
	FAULT_LOSE_FRAME,	    /* a frame is counted and not sent */
	FAULT_TORN_PAGE,	    /* a page is hashed in place while it is written */
	FAULT_WRONG_STREAM,	    /* versions of a page overtake each other */
	FAULT_ONLY_DIRTY,	    /* a retry sends only what changed since */
	FAULT_EARLY_START,	    /* the destination runs before HANDOVER */
	FAULT_STOP_AFTER_RESUME,    /* a failed migration leaves the vCPUs stopped */
	FAULT_COUNT
};

#ifdef GN_FAULTS
extern enum fault gn_fault;
extern unsigned long gn_fault_hits; /* atomic: how often it made a difference */
#define FAULT(f)                                                                         \
	(gn_fault == (f) && __atomic_add_fetch(&gn_fault_hits, 1, __ATOMIC_RELAXED))
#else
#define FAULT(f) 0
#endif

#endif
