// SPDX-License-Identifier: BSD-2-Clause
/*
 * handed: a program that hands its agent descriptors which would make it wait: a pipe, and a
 * userfaultfd that blocks. The first is refused; with the second it goes on to serve others.
 *
 *	handed SOCKET
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../user/lib/clock.h"
#include "../../user/share/local.h"
#include "check.h"

#define CALL_MS	 10000
#define TICKS_NS 200000000ull /* some of the agent's, which reads at each */

static int call(int sock, uint8_t op, uint64_t *bus, int fd)
{
	struct local_msg m = { .op = op,
			       .size = 4096,
			       .base = 4096,
			       .name = "handed",
			       .key = { .len = 1, .bytes = "k" } };
	int err;

	m.bus = *bus;
	err = local_call(sock, &m, &fd, fd >= 0, NULL, NULL, CALL_MS, NULL, NULL);
	*bus = m.bus;
	return err;
}

int main(int argc, char **argv)
{
	struct uffdio_api api = { .api = UFFD_API };
	int sock = local_connect(argv[1]), other, pipes[2], uffd;
	uint64_t bus = 0, none = 0;

	CHECK(argc == 2 && sock >= 0 && !pipe(pipes));
	CHECK(!call(sock, LOCAL_EXPORT, &bus, -1));
	CHECK(call(sock, LOCAL_ATTACH, &bus, pipes[0]) == -EINVAL);
	uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	CHECK(uffd >= 0 && !ioctl(uffd, UFFDIO_API, &api));
	CHECK(!call(sock, LOCAL_ATTACH, &bus, uffd));
	CHECK(!fcntl(uffd, F_SETFL, 0));
	other = local_connect(argv[1]);
	CHECK(other >= 0);
	for (uint64_t end = clock_ns() + TICKS_NS; clock_ns() < end;)
		CHECK(!call(other, LOCAL_STAT, &none, -1));
	CHECK(!call(other, LOCAL_REVOKE, &none, -1));
	puts("done");
	return 0;
}
