/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * term: the terminal of commands that go on, `stats --watch` and `top`.
 *
 * SIGINT, SIGTERM and SIGHUP end the wait instead of the process, so that the
 * terminal is always given back as it was. One thread.
 */
#ifndef GN_LOADER_TERM_H
#define GN_LOADER_TERM_H

#include <stdbool.h>
#include <stdio.h>

enum term_event { TERM_TICK, TERM_QUIT };

/**
 * term_open() - catch the ending signals
 * @screen:	also take over the screen, if stdout is a terminal
 *
 * Return: true if the screen was taken
 */
bool term_open(bool screen);

/**
 * term_wait() - until @seconds have passed, a signal, or key q
 */
enum term_event term_wait(double seconds);

/** term_size() - of stdout; 80 x 24 if it has none */
void term_size(unsigned int *cols, unsigned int *rows);

/** term_frame() - show @text from the top left, cut to the screen */
void term_frame(const char *text);

/** term_close() - give everything back; idempotent */
void term_close(void);

#endif
