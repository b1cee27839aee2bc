// SPDX-License-Identifier: BSD-2-Clause
/*
 * serial: see serial.h.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "serial.h"

enum { RBR = 0, IER = 1, IIR = 2, LCR = 3, MCR = 4, LSR = 5, MSR = 6, SCR = 7 };

#define IER_RX	 0x01
#define IER_THR	 0x02
#define IIR_NONE 0x01
#define IIR_THR	 0x02
#define IIR_RX	 0x04
#define IIR_FIFO 0xc0
#define FCR_ON	 0x01
#define FCR_CLR	 0x02
#define LCR_DLAB 0x80
#define LSR_DR	 0x01
#define LSR_THRE 0x60 /* holding register and transmitter are empty */
#define MCR_LOOP 0x10
#define MCR_OUT2 0x08
#define MSR_UP	 0xb0 /* carrier, data set ready, clear to send */

void serial_init(struct serial *s, int fd, void (*irq)(void *arg, bool level), void *arg)
{
	*s = (struct serial){ .fd = fd, .irq = irq, .arg = arg, .dll = 12 };
	pthread_mutex_init(&s->lock, NULL);
}

void serial_fini(struct serial *s)
{
	pthread_mutex_destroy(&s->lock);
}

static uint8_t cause(const struct serial *s)
{
	if (s->ier & IER_RX && s->count)
		return IIR_RX;
	if (s->ier & IER_THR && s->thr_empty)
		return IIR_THR;
	return IIR_NONE;
}

static void update(struct serial *s)
{
	bool level = cause(s) != IIR_NONE;

	if (level != s->level) {
		s->level = level;
		s->irq(s->arg, level);
	}
}

static void put(struct serial *s, uint8_t v)
{
	struct pollfd p = { .fd = s->fd, .events = POLLOUT };

	if (s->fd < 0)
		return;
	if (poll(&p, 1, 0) != 1 || write(s->fd, &v, 1) != 1)
		s->dropped++;
}

static void receive(struct serial *s, uint8_t v)
{
	if (s->count < SERIAL_FIFO)
		s->fifo[(s->head + s->count++) % SERIAL_FIFO] = v;
}

static void write_data(struct serial *s, uint8_t v)
{
	if (s->lcr & LCR_DLAB) {
		s->dll = v;
		return;
	}
	if (s->mcr & MCR_LOOP)
		receive(s, v);
	else
		put(s, v);
	s->thr_empty = true;
}

void serial_write(struct serial *s, unsigned int reg, uint8_t v)
{
	pthread_mutex_lock(&s->lock);
	switch (reg) {
	case RBR: write_data(s, v); break;
	case IER:
		if (s->lcr & LCR_DLAB) {
			s->dlm = v;
			break;
		}
		/* Enabling it while the register is empty asks for the interrupt. */
		if (v & ~s->ier & IER_THR)
			s->thr_empty = true;
		s->ier = v & 0x0f;
		break;
	case IIR:
		s->fcr = v & FCR_ON;
		if (v & FCR_CLR)
			s->count = 0;
		break;
	case LCR: s->lcr = v; break;
	case MCR: s->mcr = v & 0x1f; break;
	case SCR: s->scr = v; break;
	default: break;
	}
	update(s);
	pthread_mutex_unlock(&s->lock);
}

static uint8_t read_data(struct serial *s)
{
	uint8_t v = 0;

	if (s->lcr & LCR_DLAB)
		return s->dll;
	if (s->count) {
		v = s->fifo[s->head];
		s->head = (s->head + 1) % SERIAL_FIFO;
		s->count--;
	}
	return v;
}

static uint8_t modem_status(const struct serial *s)
{
	const uint8_t m = s->mcr;

	if (!(m & MCR_LOOP))
		return MSR_UP;
	/* Looped back: DTR, RTS, OUT1, OUT2 come in as DSR, CTS, RI, DCD. */
	return (uint8_t)((m & 1) << 5 | (m & 2) << 3 | (m & 4) << 4 | (m & 8) << 4);
}

uint8_t serial_read(struct serial *s, unsigned int reg)
{
	uint8_t v = 0;

	pthread_mutex_lock(&s->lock);
	switch (reg) {
	case RBR: v = read_data(s); break;
	case IER: v = s->lcr & LCR_DLAB ? s->dlm : s->ier; break;
	case IIR:
		v = cause(s);
		if (v == IIR_THR)
			s->thr_empty = false;
		if (s->fcr & FCR_ON)
			v |= IIR_FIFO;
		break;
	case LCR: v = s->lcr; break;
	case MCR: v = s->mcr; break;
	case LSR: v = LSR_THRE | (s->count ? LSR_DR : 0); break;
	case MSR: v = modem_status(s); break;
	case SCR: v = s->scr; break;
	default: break;
	}
	update(s);
	pthread_mutex_unlock(&s->lock);
	return v;
}

void serial_input(struct serial *s, const uint8_t *data, size_t len)
{
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < len; i++)
		receive(s, data[i]);
	update(s);
	pthread_mutex_unlock(&s->lock);
}

/* ---- state ------------------------------------------------------------------------- */

void serial_save(struct serial *s, struct state_writer *w)
{
	pthread_mutex_lock(&s->lock);
	{
		const uint8_t regs[8] = { s->ier, s->lcr, s->mcr, s->scr,
					  s->dll, s->dlm, s->fcr, s->thr_empty };

		state_begin(w, SERIAL_SECTION, 0, 1);
		state_put(w, regs, sizeof(regs));
		state_put_u32(w, s->count);
		for (unsigned int i = 0; i < SERIAL_FIFO; i++)
			state_put(w, &s->fifo[(s->head + i) % SERIAL_FIFO], 1);
		state_end(w);
	}
	pthread_mutex_unlock(&s->lock);
}

int serial_load(struct serial *s, struct state_section *sec)
{
	uint8_t regs[8];
	uint32_t count;

	if (sec->version != 1)
		return -EPROTONOSUPPORT;
	state_get(sec, regs, sizeof(regs));
	count = state_get_u32(sec);
	if (count > SERIAL_FIFO)
		return -EBADMSG;
	pthread_mutex_lock(&s->lock);
	state_get(sec, s->fifo, SERIAL_FIFO);
	s->head = 0;
	s->count = count;
	s->ier = regs[0] & 0x0f;
	s->lcr = regs[1];
	s->mcr = regs[2] & 0x1f;
	s->scr = regs[3];
	s->dll = regs[4];
	s->dlm = regs[5];
	s->fcr = regs[6] & FCR_ON;
	s->thr_empty = regs[7];
	/* The line's level is in the interrupt controller's own state; not raised again.
	 */
	s->level = cause(s) != IIR_NONE;
	pthread_mutex_unlock(&s->lock);
	return 0;
}
