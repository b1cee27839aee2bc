/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * serial: a 16550A at one I/O port range, as much of it as Linux's driver and a boot
 * loader use. Source: National Semiconductor PC16550D data sheet.
 *
 * What the guest writes goes to a descriptor at once, and is dropped while that is full:
 * a console that nobody reads does not stop a vCPU. Any thread; a lock of its own.
 */
#ifndef VMM_SERIAL_H
#define VMM_SERIAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "../state.h"

#define SERIAL_PORTS   8
#define SERIAL_FIFO    64
#define SERIAL_SECTION "serial"

struct serial {
	pthread_mutex_t lock;
	uint8_t ier, lcr, mcr, scr, dll, dlm, fcr;
	bool thr_empty; /* an interrupt for it is due */
	uint8_t fifo[SERIAL_FIFO];
	unsigned int head, count; /* of fifo: received, not read */
	bool level;
	int fd; /* -1: output goes nowhere */
	uint64_t dropped;
	void (*irq)(void *arg, bool level);
	void *arg;
};

void serial_init(struct serial *s, int fd, void (*irq)(void *arg, bool level), void *arg);
void serial_fini(struct serial *s);
void serial_write(struct serial *s, unsigned int reg, uint8_t v);
uint8_t serial_read(struct serial *s, unsigned int reg);
/** serial_input() - bytes typed; what does not fit the receiver's FIFO is lost, as ever
 */
void serial_input(struct serial *s, const uint8_t *data, size_t len);
void serial_save(struct serial *s, struct state_writer *w);
/** serial_load() - Return: 0, -EPROTONOSUPPORT, -EBADMSG */
int serial_load(struct serial *s, struct state_section *sec);

#endif
