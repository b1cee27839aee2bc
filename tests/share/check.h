/* SPDX-License-Identifier: BSD-2-Clause */
/* check: a client program's way to fail: the line and what did not hold there. */
#ifndef GN_TEST_SHARE_CHECK_H
#define GN_TEST_SHARE_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(cond)                                                                      \
	do {                                                                             \
		if (!(cond)) {                                                           \
			printf("line %d: %s\n", __LINE__, #cond);                        \
			exit(1);                                                         \
		}                                                                        \
	} while (0)

#endif
