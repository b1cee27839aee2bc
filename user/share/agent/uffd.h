/* SPDX-License-Identifier: BSD-2-Clause */
/* uffd: what kernels newer than Debian 12's headers (6.1) have of userfaultfd. */
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

#endif
