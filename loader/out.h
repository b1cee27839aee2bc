/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * out: what the commands say. Results on stdout; errors and notes on stderr, or
 * with JSON inside the one object on stdout. One thread.
 */
#ifndef GN_LOADER_OUT_H
#define GN_LOADER_OUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/** out_init() - @json: notes and errors become JSON */
void out_init(bool json);

/** out_error() - the command failed: cause, then remedy; no newline. What is not UTF-8 is
 * a question mark in JSON */
void out_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/** out_note() - worth knowing, not a failure */
void out_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/**
 * out_json() - print @obj, one line, with "ok" and the notes so far added
 * @obj:	reference is taken; NULL, as what could not be made: an error is printed
 */
void out_json(json_t *obj);

/* A table whose columns fit their widest cell. */
#define TABLE_MAX_COLS 12

struct table {
	unsigned int ncols, nrows, room;
	const char *const *title;
	const char *align; /* one of '<', '>' per column */
	char **cell;	   /* [nrows * ncols], owned */
};

/**
 * table_init() - empty
 * @title:	[strlen(@align)] column heads, must outlive the table
 * @align:	'<' or '>' per column, at most TABLE_MAX_COLS
 */
void table_init(struct table *t, const char *const *title, const char *align);

/** table_row() - append; @fmt gives the cells, separated by tabs */
void table_row(struct table *t, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/** table_print() - to @f, nothing if there are no rows; frees the rows */
void table_print(struct table *t, FILE *f);

/** fmt_si() - "1.23 M" style, three or four digits; @buf has FMT_MAX bytes */
#define FMT_MAX 24
const char *fmt_si(double v, char buf[FMT_MAX]);

/**
 * clean_text() - replace every byte that a terminal might act on
 * @s:		text of foreign origin, changed in place
 *
 * Return: @s
 */
char *clean_text(char *s);

#endif
