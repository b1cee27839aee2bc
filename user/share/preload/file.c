// SPDX-License-Identifier: BSD-2-Clause
/*
 * file: libghostmem-file.so, for programs that map a file and know nothing of regions, such as
 * QEMU. Preloaded, it lets them open a region as /ghostmem/NAME and map it:
 *
 *	LD_PRELOAD=libghostmem-file.so GHOSTMEM_KEY=secret PROGRAM /ghostmem/NAME
 *
 * What open() gives is as long as the region, holds nothing, and is sealed against writing:
 * another process that is handed it, as vhost-user back ends are, gets EPERM instead of memory
 * that nobody shares with it. mmap() of all of it, shared, is an import (ghostmem.h), so the
 * mapping is a window, served by the node's agent. All else is as without this.
 *
 * Any thread. Tokens are only ever added, so that a mapping made on behalf of another finds its way
 * without a lock.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../bus.h"
#include "../ghostmem.h"

#define PREFIX	   "/ghostmem/"
#define TOKENS_MAX 16

struct token {
	char name[GM_NAME_MAX];
	uint64_t size;
	dev_t dev;
	ino_t ino;
};

static struct token tokens[TOKENS_MAX];
static unsigned int ntokens; /* atomic; written with lock held */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct ghostmem *agent; /* lock */

/* The C library's names of parameters are reserved. */
/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */
int open(const char *path, int flags, ...);
int __open_2(const char *path, int flags);
/* Where off_t has 64 bits they are the same. */
int open64(const char *path, int flags, ...) __attribute__((alias("open")));
int __open64_2(const char *path, int flags) __attribute__((alias("__open_2")));
void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t off)
	__attribute__((alias("mmap")));

static int failed(const char *name, int err)
{
	fprintf(stderr, "ghostmem: region %s: %s\n", name, strerror(-err));
	errno = -err;
	return -1;
}

static int import(const char *name, unsigned int flags, void *addr,
		  struct ghostmem_region **out)
{
	const char *key = getenv("GHOSTMEM_KEY");
	struct ghostmem_import i = { .name = name, .flags = flags, .addr = addr };
	int err = 0;

	if (!key)
		return -ENOKEY;
	i.key = key;
	i.key_len = strlen(key);
	pthread_mutex_lock(&lock);
	if (!agent)
		err = ghostmem_open(NULL, &agent);
	pthread_mutex_unlock(&lock);
	return err ? err : ghostmem_import(agent, &i, out);
}

static int open_region(const char *name, int flags)
{
	struct token t = { .size = 0 };
	struct ghostmem_region *r;
	struct stat st;
	int err, fd;

	if (!gm_name_ok(name))
		return failed(name, -ENOENT);
	err = import(name, GHOSTMEM_NO_MAP, NULL, &r);
	if (err)
		return failed(name, err);
	strcpy(t.name, name);
	t.size = ghostmem_size(r);
	ghostmem_release(r);
	fd = memfd_create(name,
			  MFD_ALLOW_SEALING | (flags & O_CLOEXEC ? MFD_CLOEXEC : 0));
	if (fd < 0 || ftruncate(fd, (off_t)t.size) || fstat(fd, &st) ||
	    fcntl(fd, F_ADD_SEALS,
		  F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)) {
		err = -errno;
		goto out;
	}
	t.dev = st.st_dev;
	t.ino = st.st_ino;
	pthread_mutex_lock(&lock);
	err = ntokens < TOKENS_MAX ? 0 : -EMFILE;
	if (!err) {
		tokens[ntokens] = t;
		__atomic_store_n(&ntokens, ntokens + 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&lock);
	if (!err)
		return fd;
out:
	if (fd >= 0)
		close(fd);
	return failed(name, err);
}

static const struct token *find(int fd)
{
	unsigned int n = __atomic_load_n(&ntokens, __ATOMIC_ACQUIRE);
	struct stat st;

	if (fd < 0 || !n || fstat(fd, &st))
		return NULL;
	while (n--)
		if (tokens[n].dev == st.st_dev && tokens[n].ino == st.st_ino)
			return &tokens[n];
	return NULL;
}

static void *map_region(const struct token *t, void *addr, size_t len, int prot,
			int flags, off64_t off)
{
	unsigned int how = prot & PROT_WRITE ? 0 : GHOSTMEM_READ_ONLY;
	struct ghostmem_region *r;
	int err;

	if (len != t->size || off || !(flags & MAP_SHARED)) {
		fprintf(stderr,
			"ghostmem: region %s: all of it, %llu bytes, is mapped shared, "
			"or nothing\n",
			t->name, (unsigned long long)t->size);
		errno = EINVAL;
		return MAP_FAILED;
	}
	if (flags & MAP_FIXED)
		munmap(addr, len); /* a window replaces nothing */
	else if (!(flags & MAP_FIXED_NOREPLACE))
		addr = NULL;
	err = import(t->name, how, addr, &r);
	if (err) {
		failed(t->name, err);
		return MAP_FAILED;
	}
	return ghostmem_addr(r);
}

/* ---- what it replaces ------------------------------------------------------------- */

static int open_any(const char *path, int flags, mode_t mode)
{
	if (path && !strncmp(path, PREFIX, strlen(PREFIX)))
		return open_region(path + strlen(PREFIX), flags);
	return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static mode_t mode_of(int flags, va_list ap)
{
	return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(ap, mode_t)
								   : 0;
}

int open(const char *path, int flags, ...)
{
	mode_t mode;
	va_list ap;

	va_start(ap, flags);
	mode = mode_of(flags, ap);
	va_end(ap);
	return open_any(path, flags, mode);
}

int __open_2(const char *path, int flags)
{
	return open_any(path, flags, 0);
}

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	const struct token *t = flags & MAP_ANONYMOUS ? NULL : find(fd);

	if (t)
		return map_region(t, addr, len, prot, flags, off);
	return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, off);
}

/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */
