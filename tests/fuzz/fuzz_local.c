// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fuzz local_recv(): what applications say to the agent of their node.
 *
 * Input: a number of descriptors, then a packet, sent over a real socket. No descriptor
 * goes beside the places there are, none stays open, no text is without its end.
 *
 * Under libFuzzer, `fuzz_local --seeds DIR` writes the seeds.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../user/lib/fds.h"
#include "../../user/share/local.h"

#define CHECK(cond)                                                                      \
	do {                                                                             \
		if (!(cond)) {                                                           \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);       \
			abort();                                                         \
		}                                                                        \
	} while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

static void packet(unsigned int nfds, const uint8_t *data, size_t size)
{
	const struct iovec iov = { .iov_base = (void *)data, .iov_len = size };
	ssize_t sent;
	struct local_msg *m = malloc(sizeof(*m));
	int *fds = malloc(LOCAL_FDS * sizeof(*fds)), pair[2], send[FDS_MAX], n, rc;

	CHECK(m && fds && !socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
	for (unsigned int i = 0; i < FDS_MAX; i++)
		send[i] = pair[0];
	sent = fds_send(pair[0], &iov, 1, send, nfds, MSG_NOSIGNAL);
	CHECK(sent == (ssize_t)size);
	rc = local_recv(pair[1], m, fds, &n);
	CHECK(n >= 0 && n <= LOCAL_FDS && rc <= 1);
	if (rc < 0)
		CHECK(!n);
	if (rc == 1) {
		CHECK(size == sizeof(*m) && (unsigned int)n == nfds);
		CHECK(m->op && m->op < LOCAL_OP_MAX && m->text_len <= LOCAL_TEXT);
		CHECK(m->key.len <= GM_KEY_MAX && strlen(m->name) < sizeof(m->name));
		CHECK(strlen(m->node) < sizeof(m->node));
		CHECK(strlen(m->addr) < sizeof(m->addr));
	}
	while (n > 0)
		close(fds[--n]);
	close(pair[0]);
	close(pair[1]);
	/* Nothing that came is left open. */
	n = fcntl(0, F_DUPFD, 0);
	CHECK(n >= 0 && n < 64);
	close(n);
	free(fds);
	free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size > 1 && size - 1 <= 2 * sizeof(struct local_msg))
		packet(data[0] % 9, data + 1, size - 1);
	return 0;
}

static void save(const char *dir, const char *name, const void *p, size_t n)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "wb");
	CHECK(f && fwrite(p, 1, n, f) == n && !fclose(f));
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	static struct {
		uint8_t nfds;
		struct local_msg m;
	} __attribute__((packed)) s;

	if (*argc != 3 || strcmp((*argv)[1], "--seeds"))
		return 0;
	s.m.magic = LOCAL_MAGIC;
	for (s.nfds = 0; s.nfds < 6; s.nfds++) {
		char name[16];

		s.m.op = (uint8_t)(LOCAL_EXPORT + s.nfds);
		s.m.size = GM_PAGE_SIZE;
		s.m.key.len = 4;
		strcpy(s.m.name, "mem");
		snprintf(name, sizeof(name), "local%u", s.nfds);
		save((*argv)[2], name, &s, sizeof(s));
	}
	exit(0);
}
