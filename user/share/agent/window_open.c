// SPDX-License-Identifier: BSD-2-Clause
/* window_open: the application's side of a window, in its process. Contract in window.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uffd.h"
#include "window.h"

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

static int make_uffd(void)
{
	int flags = O_CLOEXEC | O_NONBLOCK;
	int fd = (int)syscall(SYS_userfaultfd, flags);
	int dev;

	if (fd >= 0)
		return fd;
	dev = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (dev >= 0) {
		fd = ioctl(dev, USERFAULTFD_IOC_NEW, flags);
		close(dev);
		if (fd >= 0)
			return fd;
	}
	/* Faults of system calls that are given window addresses get EFAULT then. */
	fd = (int)syscall(SYS_userfaultfd, flags | UFFD_USER_MODE_ONLY);
	return fd < 0 ? -errno : fd;
}

/*
 * What this kernel lacks, as a userfaultfd says of itself. CONTINUE read-only has no
 * feature bit; it came with WP_UNPOPULATED, in 6.4. GHOSTMEM_UFFD=6.1 makes a newer
 * kernel an old one. Return: WINDOW_NO_*, -errno
 */
static int find_lacks(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	const char *old = getenv("GHOSTMEM_UFFD");
	int fd = make_uffd(), lacks = 0;

	if (fd < 0)
		return fd;
	if (ioctl(fd, UFFDIO_API, &api))
		lacks = -errno;
	close(fd);
	if (lacks)
		return lacks;
	if (!(api.features & UFFD_FEATURE_MISSING_SHMEM) ||
	    !(api.features & UFFD_FEATURE_MISSING_HUGETLBFS) ||
	    !(api.features & UFFD_FEATURE_WP_HUGETLBFS_SHMEM))
		return -EOPNOTSUPP;
	if (old && !strcmp(old, "6.1"))
		return WINDOW_NO_MINOR | WINDOW_NO_POISON;
	if (!(api.features & UFFD_FEATURE_WP_UNPOPULATED) ||
	    !(api.features & UFFD_FEATURE_MINOR_SHMEM) ||
	    !(api.features & UFFD_FEATURE_MINOR_HUGETLBFS))
		lacks |= WINDOW_NO_MINOR;
	if (!(api.features & UFFD_FEATURE_POISON))
		lacks |= WINDOW_NO_POISON;
	return lacks;
}

int window_open(int memfd, uint64_t size, void *addr, void **base, int *uffd,
		unsigned int *lacks)
{
	int lack = find_lacks();
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MISSING_HUGETLBFS |
			    UFFD_FEATURE_WP_HUGETLBFS_SHMEM | UFFD_FEATURE_EVENT_REMAP,
	};
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING |
					       UFFDIO_REGISTER_MODE_WP };
	void *p;
	int fd, err;

	if (lack < 0)
		return lack;
	if (!(lack & WINDOW_NO_MINOR)) {
		api.features |= UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_MINOR_HUGETLBFS;
		reg.mode |= UFFDIO_REGISTER_MODE_MINOR;
	}
	fd = make_uffd();
	if (fd < 0)
		return fd;
	if (ioctl(fd, UFFDIO_API, &api)) {
		err = -errno;
		goto out_close;
	}
	p = mmap(addr, size, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_NORESERVE | (addr ? MAP_FIXED_NOREPLACE : 0), memfd, 0);
	if (p == MAP_FAILED) {
		err = -errno;
		goto out_close;
	}
	reg.range.start = (uint64_t)(uintptr_t)p;
	reg.range.len = size;
	if (madvise(p, size, MADV_DONTFORK) || ioctl(fd, UFFDIO_REGISTER, &reg)) {
		err = -errno;
		goto out_unmap;
	}
	*base = p;
	*uffd = fd;
	*lacks = (unsigned int)lack;
	return 0;

out_unmap:
	munmap(p, size);
out_close:
	close(fd);
	return err;
}
