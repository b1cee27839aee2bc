// SPDX-License-Identifier: BSD-2-Clause
/* Atomics done exactly once: results, clients that come back, an agent that ends between
 * any two instructions, and memory that is no agent's. */
#include <signal.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/share/agent/once.h"

#define SIZE 8192

static struct once *o;
static uint8_t *memory;

static int setup(void **state)
{
	o = mmap(NULL, sizeof(*o), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		 0);
	memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	return o == MAP_FAILED || memory == MAP_FAILED;
}

static int teardown(void **state)
{
	munmap(o, sizeof(*o));
	munmap(memory, SIZE);
	return 0;
}

static uint64_t *word(uint64_t at)
{
	return (uint64_t *)(memory + at);
}

static uint64_t act(struct once_client *c, uint8_t op, uint32_t size, uint64_t at,
		    uint64_t arg, uint64_t arg2)
{
	struct gm_hdr h = { .op = op, .size = size, .arg = arg, .arg2 = arg2 };

	return once_do(o, c, &h, memory + at, at);
}

static void results(void **state)
{
	bool known;
	struct once_client *c = once_client(o, 7, &known);

	assert_non_null(c);
	assert_false(known);
	*word(8) = 5;
	assert_int_equal(act(c, GM_OP_FADD, 8, 8, 3, 0), 5);
	assert_int_equal(act(c, GM_OP_SWAP, 8, 8, 100, 0), 8);
	assert_int_equal(act(c, GM_OP_CAS, 8, 8, 1, 99), 100);
	assert_int_equal(*word(8), 100);
	assert_int_equal(act(c, GM_OP_CAS, 8, 8, 1, 100), 100);
	assert_int_equal(*word(8), 1);
	assert_int_equal(c->done, 4);
	assert_int_equal(c->old, 100);
	/* Half a word, and not its neighbour. */
	*word(16) = 0xaaaaaaaaffffffff;
	assert_int_equal(act(c, GM_OP_FADD, 4, 16, 0x700000001, 0), 0xffffffff);
	assert_int_equal(*word(16), 0xaaaaaaaa00000000);
	assert_int_equal(act(c, GM_OP_CAS, 4, 20, 9, 0x1aaaaaaaa), 0xaaaaaaaa);
	assert_int_equal(*word(16), 0x900000000);
	assert_int_equal(c->done, 6);
	/* Nobody will ask. */
	assert_int_equal(act(NULL, GM_OP_FADD, 8, 8, 1, 0), 1);
	assert_int_equal(*word(8), 2);
	assert_int_equal(o->pending, 0);
}

static void clients(void **state)
{
	struct once_client *c, *d;
	bool known;

	assert_null(once_client(o, 0, &known));
	c = once_client(o, 1, &known);
	act(c, GM_OP_FADD, 8, 0, 1, 0);
	assert_ptr_equal(once_client(o, 1, &known), c);
	assert_true(known);
	for (uint64_t id = 2; id <= ONCE_CLIENTS; id++) {
		assert_non_null(once_client(o, id, &known));
		assert_false(known);
	}
	/* All places belong to somebody who is here. */
	assert_null(once_client(o, 10000, &known));
	assert_false(known);
	/* Of those who are not, who left first. */
	once_leave(o, &o->clients[20]);
	once_leave(o, c);
	d = once_client(o, 10000, &known);
	assert_ptr_equal(d, &o->clients[20]);
	assert_false(known);
	assert_int_equal(d->done, 0);
	assert_ptr_equal(once_client(o, 1, &known), c);
	assert_true(known);
	assert_int_equal(c->done, 1);
	once_leave(o, NULL);
}

/* What an agent would find that came now. Return: was the atomic done? */
static bool found(uint64_t before)
{
	static struct once then;
	static uint8_t bytes[SIZE];
	struct once_client *c = &then.clients[0];

	memcpy(&then, o, offsetof(struct once, clients[1]));
	memcpy(bytes, memory, sizeof(uint64_t));
	once_recover(&then, bytes, SIZE);
	assert_int_equal(c->id, 7);
	assert_memory_equal(&c->done, bytes, sizeof(c->done));
	assert_in_range(c->done, before, before + 1);
	assert_int_equal(c->old, c->done - 1);
	return c->done > before;
}

/* A child does one atomic, an instruction at a time; after each it might be killed. */
static void any_instruction(void **state)
{
	unsigned int before = 0, after = 0;
	struct once_client *c;
	bool known, done = false;
	int status;
	pid_t pid;

	c = once_client(o, 7, &known);
	act(c, GM_OP_FADD, 8, 0, 1, 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		act(c, GM_OP_FADD, 8, 0, 1, 0);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	while (WIFSTOPPED(status)) {
		/* Once done it stays so. */
		assert_true(found(1) >= done);
		done = found(1);
		before += !done;
		after += done && o->pending;
		if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL))
			break;
		assert_int_equal(waitpid(pid, &status, 0), pid);
	}
	assert_true(WIFEXITED(status) && before && after && done);
}

static void recovery(void **state)
{
	struct once_client *c;
	bool known;

	c = once_client(o, 7, &known);
	*word(64) = 5;
	act(c, GM_OP_FADD, 8, 64, 1, 0);
	/* Written down and not done, done and not told, another one's write. */
	for (uint64_t now = 6; now < 9; now++) {
		c->id = 7;
		c->done = 1;
		c->old = 5;
		o->pending = 1;
		o->was = 6;
		o->becomes = 7;
		o->done = 2;
		*word(64) = now;
		once_recover(o, memory, SIZE);
		assert_int_equal(o->pending, 0);
		assert_int_equal(c->id, now == 8 ? 0 : 7);
		assert_int_equal(c->done, now == 7 ? 2 : 1);
		assert_int_equal(c->old, now == 7 ? 6 : 5);
	}
	/* A place whose client was forgotten is taken again. */
	assert_ptr_equal(once_client(o, 8, &known), c);
	assert_false(known);
}

static void foreign(void **state)
{
	static const struct once bad[] = {
		{ .pending = 1, .n = UINT32_MAX, .client = UINT32_MAX, .size = 8 },
		{ .pending = 1, .n = 5, .client = 5, .size = 8 },
		{ .pending = 1, .n = 5, .client = 1, .size = 8, .at = SIZE },
		{ .pending = 1, .n = 5, .client = 1, .size = 8, .at = SIZE - 4 },
		{ .pending = 1, .n = 5, .client = 1, .size = 8, .at = UINT64_MAX - 7 },
		{ .pending = 1, .n = 5, .client = 1, .size = UINT32_MAX },
		{ .pending = 1, .n = 5, .client = 1, .size = 0 },
		{ .pending = 1, .n = 5, .client = 1, .size = 4, .at = 2 },
	};
	struct once_client *c;
	bool known;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		memset(o, 0xff, sizeof(*o));
		memcpy(o, &bad[i], offsetof(struct once, clients));
		once_recover(o, memory, SIZE);
		assert_int_equal(o->pending, 0);
		assert_true(o->n <= ONCE_CLIENTS);
		c = once_client(o, 42, &known);
		assert_non_null(c);
		assert_int_equal(act(c, GM_OP_FADD, 8, 0, 0, 0), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(results, setup, teardown),
		cmocka_unit_test_setup_teardown(clients, setup, teardown),
		cmocka_unit_test_setup_teardown(any_instruction, setup, teardown),
		cmocka_unit_test_setup_teardown(recovery, setup, teardown),
		cmocka_unit_test_setup_teardown(foreign, setup, teardown),
	};

	return cmocka_run_group_tests_name("once", tests, NULL, NULL);
}
