// SPDX-License-Identifier: BSD-2-Clause
/*
 * vu_keep: the file of packed rings' positions. Contract in vu_keep.h; control thread.
 *
 * A touch of a hole through a shared mapping takes memory, and SIGBUS is what says that
 * there is none. So holes are told by pread(), which takes none, and no slot is touched
 * before fallocate() has found room for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vu_keep.h"
#include "../../lib/log.h"

#define MAGIC 0x31736e6972e6e867ULL /* of this layout */

struct slot {
	uint64_t magic; /* else: was never used */
	struct vu_keep_id id;
	uint64_t stamp; /* of its last use: the oldest goes first */
	struct vring_keep keep;
	struct vring_note note[VU_KEEP_SIZE];
};

_Static_assert(offsetof(struct slot, note) ==
		       offsetof(struct slot, keep) + sizeof(struct vring_keep),
	       "notes follow the head");

static struct {
	int fd;
	struct slot *slot;	  /* [VU_KEEP_RINGS]; NULL: no file */
	bool used[VU_KEEP_RINGS]; /* else perhaps a hole */
	bool taken[VU_KEEP_RINGS];
	uint64_t stamp;
	char path[128];
} file;

static bool valid(unsigned int i)
{
	const struct slot *s = &file.slot[i];

	return file.used[i] && s->magic == MAGIC && s->keep.version == VRING_KEEP_VERSION;
}

/* Room for the first @len bytes of a slot. Return: 0, -errno */
static int make_room(unsigned int i, size_t len)
{
	off_t off = (off_t)(i * sizeof(struct slot));

	return fallocate(file.fd, 0, off, (off_t)len) ? -errno : 0;
}

/* What is left of the last daemon. */
static void look(void)
{
	for (unsigned int i = 0; i < VU_KEEP_RINGS; i++) {
		off_t off = (off_t)(i * sizeof(struct slot));
		uint64_t magic;

		if (pread(file.fd, &magic, sizeof(magic), off) != sizeof(magic) ||
		    magic != MAGIC || make_room(i, offsetof(struct slot, note)))
			continue;
		file.used[i] = true;
		if (valid(i) && file.slot[i].stamp > file.stamp)
			file.stamp = file.slot[i].stamp;
	}
}

int vu_keep_open(const char *path)
{
	const size_t len = sizeof(struct slot) * VU_KEEP_RINGS;
	struct stat st;
	void *map;
	int fd, err;

	if (strlen(path) >= sizeof(file.path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	err = fstat(fd, &st) ? -errno : 0;
	/* Of somebody else it could be changed or cut at any time. */
	if (!err && (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_mode & 0077))
		err = -EPERM;
	if (!err && ftruncate(fd, (off_t)len))
		err = -errno;
	if (err)
		goto close_fd;
	map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		err = -errno;
		goto close_fd;
	}
	memset(&file, 0, sizeof(file));
	file.fd = fd;
	file.slot = map;
	strcpy(file.path, path);
	look();
	return 0;
close_fd:
	close(fd);
	return err;
}

void vu_keep_close(void)
{
	bool any = false;

	if (!file.slot)
		return;
	for (unsigned int i = 0; i < VU_KEEP_RINGS; i++)
		any |= valid(i);
	if (!any)
		unlink(file.path);
	munmap(file.slot, sizeof(struct slot) * VU_KEEP_RINGS);
	close(file.fd);
	file.slot = NULL;
}

static bool same(const struct vu_keep_id *a, const struct vu_keep_id *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->offset == b->offset;
}

struct vring_keep *vu_keep_take(const struct vu_keep_id *id, uint16_t size)
{
	unsigned int best = VU_KEEP_RINGS;
	struct slot *s;
	int err;

	if (!file.slot || size > VU_KEEP_SIZE)
		return NULL;
	for (unsigned int i = 0; i < VU_KEEP_RINGS; i++) {
		s = &file.slot[i];
		if (valid(i) && same(&s->id, id)) {
			/* Two rings in one place: neither is believed. */
			if (file.taken[i])
				return NULL;
			best = i;
			break;
		}
		if (file.taken[i])
			continue;
		if (best == VU_KEEP_RINGS ||
		    (valid(best) && (!valid(i) || s->stamp < file.slot[best].stamp)))
			best = i;
	}
	if (best == VU_KEEP_RINGS)
		return NULL;
	err = make_room(best, offsetof(struct slot, keep) + vring_keep_bytes(size));
	if (err) {
		log_limited(LOG_LVL_WARN,
			    "%s: %s; a packed ring of a VM will not go on if this daemon "
			    "is killed",
			    file.path, strerror(-err));
		return NULL;
	}
	s = &file.slot[best];
	if (!valid(best) || !same(&s->id, id) || s->keep.size != size)
		s->keep.version = 0;
	file.used[best] = true;
	s->magic = MAGIC;
	s->id = *id;
	s->stamp = ++file.stamp;
	file.taken[best] = true;
	return &s->keep;
}

void vu_keep_give(struct vring_keep *k)
{
	struct slot *s;

	if (!k || !file.slot)
		return;
	s = (struct slot *)((char *)k - offsetof(struct slot, keep));
	file.taken[s - file.slot] = false;
}
