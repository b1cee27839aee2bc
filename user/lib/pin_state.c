// SPDX-License-Identifier: BSD-2-Clause
/* pin_state: whose the pins of a name are. See pin_state.h. */
#include <bpf/bpf.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pin_state.h"

uint64_t pin_netns(void)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return 0;
	/* Unlike the inode of /proc/self/ns/net it is never used again. */
	if (getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &len))
		cookie = 0;
	close(fd);
	return cookie;
}

int pin_state_read(int fd, struct pin_state *st)
{
	struct bpf_map_info info = { 0 };
	uint32_t len = sizeof(info), key = 0;
	struct pin_state s;
	int err;

	err = bpf_obj_get_info_by_fd(fd, &info, &len);
	if (!err && (info.value_size != sizeof(s) || info.key_size != sizeof(key)))
		err = -EPROTO;
	if (!err)
		err = bpf_map_lookup_elem(fd, &key, &s);
	if (!err && s.abi != PIN_STATE_ABI)
		err = -EPROTO;
	if (!err)
		*st = s;
	return err;
}

bool pin_state_foreign(const struct pin_state *st)
{
	uint64_t here = pin_netns();

	return st->netns && here && st->netns != here;
}
