/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * uffd: userfaultfds of applications, in the agent; and what kernels newer than Debian 12's
 * headers (6.1) have of them.
 *
 * What an application hands over may be anything, and it keeps the same open file: it can
 * make it block at any time, and read from it what was there a moment ago. So the agent
 * never waits in a read.
 */
#ifndef GM_UFFD_H
#define GM_UFFD_H

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>

#ifndef UFFDIO_CONTINUE_MODE_WP /* 6.4 */
#define UFFDIO_CONTINUE_MODE_WP (1ull << 1)
#endif

#ifndef UFFD_FEATURE_WP_UNPOPULATED /* 6.4 */
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif

#ifndef UFFD_FEATURE_POISON /* 6.6 */
#define UFFD_FEATURE_POISON (1 << 14)
#endif

#ifndef UFFDIO_POISON
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif

/** uffd_check() - is it a userfaultfd? Return: 0, -EINVAL: no; -errno */
int uffd_check(int fd);

/** uffd_read() - without waiting. Return: 1; 0: nothing is there, -errno */
int uffd_read(int fd, struct uffd_msg *m);

/** uffd_read_timed() - the same, on kernels before 6.10, which know no read that does not
 * wait but by a flag of the open file: if another reader was faster, and the flag is gone,
 * a signal ends the wait */
int uffd_read_timed(int fd, struct uffd_msg *m);

#endif
