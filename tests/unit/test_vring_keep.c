// SPDX-License-Identifier: BSD-2-Clause
/*
 * vring_keep: a device that is killed at any moment, and the next one that goes on with a
 * packed ring where it was. Devices are processes and die by SIGKILL; the driver lives on
 * and fails the test when a chain comes back twice, wrong, or never.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../user/daemon/vhost/vu_keep.h"
#include "vu_rig.h"

#define SIZE	  64	     /* descriptors */
#define BASE	  0x80008000 /* of a ring that nobody has used */
#define CELL	  256	     /* bytes */
#define CELLS	  1024
#define KILLS	  300
#define BURST	  24 /* chains */
#define WAIT_S	  120
#define PER_CHAIN 4 /* buffers, at most */

struct world {
	struct guest g;
	struct driver d;
	struct vring_keep *keep;
	uint32_t want[CELLS]; /* bytes that the chain with this cookie gets */
	bool out[CELLS];
	unsigned int added, got;
	unsigned int per; /* buffers of a chain, at most */
	uint64_t seed;
};

static uint32_t rnd(struct world *w)
{
	w->seed = w->seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(w->seed >> 33);
}

static void world_init(struct world *w)
{
	const struct vring_conf c = { .packed = true, .size = SIZE, .in_order = true };

	memset(w, 0, sizeof(*w));
	w->seed = 1;
	w->per = PER_CHAIN;
	guest_init(&w->g, false);
	driver_init(&w->d, &w->g, &c);
	w->keep = mmap(NULL, vring_keep_bytes(SIZE), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(w->keep, MAP_FAILED);
}

static void world_fini(struct world *w)
{
	munmap(w->keep, vring_keep_bytes(SIZE));
	driver_fini(&w->d);
	guest_fini(&w->g);
}

/* Some chains, each of some buffers; their length says what the device is to write. */
static void add(struct world *w)
{
	for (unsigned int n = rnd(w) % BURST; n; n--) {
		unsigned int cell = w->added % CELLS, per = 1 + rnd(w) % w->per;
		struct driver_buf buf[PER_CHAIN];
		uint32_t total = 0;

		if (w->out[cell])
			return;
		for (unsigned int i = 0; i < per; i++) {
			buf[i].gpa = GUEST_DATA + cell * CELL + i * (CELL / PER_CHAIN);
			buf[i].len = 1 + rnd(w) % (CELL / PER_CHAIN);
			total += buf[i].len;
		}
		if (driver_add(&w->d, buf, 0, per, 0, cell))
			return;
		w->want[cell] = total;
		w->out[cell] = true;
		w->added++;
	}
}

/* Chains come back in order, whole, each once. Return: some did */
static bool get(struct world *w)
{
	uint64_t cookie;
	uint32_t len;
	bool any = false;

	while (driver_get(&w->d, &cookie, &len)) {
		assert_int_equal(cookie, w->got % CELLS);
		assert_true(w->out[cookie]);
		assert_int_equal(len, w->want[cookie]);
		w->out[cookie] = false;
		w->got++;
		any = true;
	}
	return any;
}

static int start(struct world *w, uint32_t base, struct vring **v)
{
	struct vring_conf c = driver_conf(&w->d);

	c.keep = w->keep;
	return vring_create(&c, &w->g.mem, NULL, base, v);
}

/* Take up to @max chains, fill them, give them back. Return: their number */
static unsigned int serve(struct vring *v, unsigned int max)
{
	struct iovec iov[VRING_MAX_IOV];
	uint64_t gpa[VRING_MAX_IOV];
	struct vring_vec vec = { 0, VRING_MAX_IOV, iov, gpa };
	struct vring_chain c;
	unsigned int n = 0;

	while (n < max && vring_take(v, &vec, &c) > 0) {
		vring_put(v, &vec, &c, c.in_len);
		n++;
	}
	vring_publish(v);
	return n;
}

/* A device that serves until it dies. */
static pid_t device(struct world *w)
{
	const uint64_t seed = rnd(w);
	pid_t pid = fork();
	struct vring *v;

	assert_true(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	w->seed = seed;
	/* What the front end knows is long past. */
	if (start(w, BASE, &v))
		_exit(2);
	while (!vring_broken(v))
		if (!serve(v, 1 + rnd(w) % BURST))
			sched_yield();
	fprintf(stderr, "%s\n", vring_broken(v));
	_exit(3);
}

static void end(pid_t pid)
{
	int status;

	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Run the driver until the device has given back @more chains. */
static void drive(struct world *w, unsigned int more)
{
	const unsigned int until = w->got + more;
	const double deadline = now() + WAIT_S;

	while (w->got < until) {
		add(w);
		if (!get(w))
			sched_yield();
		assert_true(now() < deadline);
	}
}

static void test_killed(void **state)
{
	struct world w;
	pid_t pid;

	world_init(&w);
	for (unsigned int i = 0; i < KILLS; i++) {
		pid = device(&w);
		drive(&w, rnd(&w) % 200);
		end(pid);
	}
	pid = device(&w);
	for (double deadline = now() + WAIT_S; w.got < w.added;) {
		if (!get(&w))
			sched_yield();
		assert_true(now() < deadline);
	}
	end(pid);
	print_message("%u chains, %u kills\n", w.got, KILLS);
	world_fini(&w);
}

/* Use the ring up to some position, by a device that then is gone. */
static void use(struct world *w, unsigned int chains)
{
	struct vring *v;

	assert_int_equal(start(w, BASE, &v), 0);
	while (chains) {
		unsigned int n;

		add(w);
		n = serve(v, chains < BURST ? chains : BURST);
		get(w);
		chains -= n;
	}
	vring_destroy(v);
}

/* The guest's driver sets the ring up again. */
static void restart_guest(struct world *w)
{
	const struct vring_conf c = { .packed = true, .size = SIZE, .in_order = true };

	driver_fini(&w->d);
	memset(guest_ptr(&w->g, GUEST_RING, 0x10000), 0, 0x10000);
	driver_init(&w->d, &w->g, &c);
	memset(w->out, 0, sizeof(w->out));
	w->added = w->got = 0;
}

/* A guest that was restarted while no device was there has an empty ring in the same
 * place: it begins at its beginning. Chains of one buffer, and of several, one of them
 * across the ring's end. */
static void test_other_ring(void **state)
{
	for (unsigned int n = 1; n < 5 * SIZE; n++) {
		struct vring *v;
		struct world w;

		world_init(&w);
		w.per = n % 2 ? 1 : PER_CHAIN;
		use(&w, n);
		restart_guest(&w);
		while (w.added < (1 + n % 4) * SIZE / (4 * w.per))
			add(&w);
		assert_int_equal(start(&w, BASE, &v), 0);
		serve(v, BURST);
		assert_true(get(&w));
		vring_destroy(v);
		world_fini(&w);
	}
}

/* The same guest again, which does all that it did the first time: addresses, lengths and
 * identifiers of the buffers that the dead device had noted are in the ring once more. */
static void test_same_again(void **state)
{
	for (unsigned int event = 0; event < 2; event++) {
		struct vring *v;
		struct world w;
		uint64_t seed;

		world_init(&w);
		w.d.conf.event_idx = event;
		seed = w.seed;
		while (!w.added)
			add(&w);
		assert_int_equal(start(&w, BASE, &v), 0);
		vring_set_wakeup(v, true);
		assert_true(serve(v, 1));
		vring_destroy(v);
		/* It died between its notes and its first store to the ring. */
		w.keep->state = 1ULL << 32 | 0x8000;
		w.keep->note[0] = (struct vring_note){ w.keep->note[0].id, 1, 77 };
		w.keep->addr = *(uint64_t *)guest_ptr(&w.g, GUEST_RING, 8);
		restart_guest(&w);
		w.d.conf.event_idx = event;
		w.seed = seed;
		while (!w.added)
			add(&w);
		assert_int_equal(*(uint64_t *)guest_ptr(&w.g, GUEST_RING, 8),
				 w.keep->addr);
		assert_int_equal(start(&w, BASE, &v), 0);
		/* Nothing came back of which nothing was received. */
		assert_false(get(&w));
		assert_true(serve(v, BURST));
		assert_true(get(&w));
		vring_destroy(v);
		world_fini(&w);
	}
}

/* In order: the front end's word counts. Nonsense: so it does, and nothing is touched. */
static void test_not_believed(void **state)
{
	static const struct {
		uint64_t state;
		uint16_t size, last;
		uint32_t version;
		uint16_t ndesc;
	} bad[] = {
		{ 0x8005, SIZE, 0x8004, 0, 1 },
		{ 0x8005, SIZE, 0x8004, VRING_KEEP_VERSION - 1, 1 },
		{ 0x8005, SIZE / 2, 0x8004, VRING_KEEP_VERSION, 1 },
		{ 0x8000 | SIZE, SIZE, 0x8004, VRING_KEEP_VERSION, 1 },
		{ 0x8005, SIZE, 0x8000 | SIZE, VRING_KEEP_VERSION, 1 },
		{ 0xffff, SIZE, 0xffff, VRING_KEEP_VERSION, 1 },
		{ (SIZE + 1ULL) << 32 | 0x8000, SIZE, 0x8000, VRING_KEEP_VERSION, 1 },
		{ UINT64_MAX << 32 | 0x8000, SIZE, 0x8000, VRING_KEEP_VERSION, 1 },
		{ 2ULL << 32 | 0x8000, SIZE, 0x8000, VRING_KEEP_VERSION, 0 },
		{ 2ULL << 32 | 0x8000, SIZE, 0x8000, VRING_KEEP_VERSION, SIZE },
		{ 2ULL << 32 | 0x8000, SIZE, 0x8000, VRING_KEEP_VERSION, 0xffff },
	};
	struct world w;
	struct vring *v;

	world_init(&w);
	while (!w.added)
		add(&w);
	for (unsigned int i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		w.keep->version = bad[i].version;
		w.keep->size = bad[i].size;
		w.keep->last = bad[i].last;
		w.keep->state = bad[i].state;
		w.keep->last_addr = w.keep->addr =
			*(uint64_t *)guest_ptr(&w.g, GUEST_RING, 8);
		for (unsigned int k = 0; k < SIZE; k++)
			w.keep->note[k] = (struct vring_note){ 0, bad[i].ndesc, 1 };
		assert_int_equal(start(&w, BASE, &v), 0);
		assert_int_equal(vring_destroy(v), BASE);
		assert_false(get(&w));
	}
	assert_int_equal(start(&w, BASE, &v), 0);
	assert_true(serve(v, 1));
	vring_forget(v);
	vring_destroy(v);
	assert_int_equal(start(&w, BASE, &v), 0);
	assert_int_equal(vring_destroy(v), BASE);
	world_fini(&w);
}

/* ---- where it is kept -----------------------------------------------------------------
 */

#define FEATURES (VT_F_PROTOCOL | BIT(32) | BIT(34)) /* version 1, packed */

struct inflight {
	uint64_t size, offset;
	uint16_t rings, descs;
	uint32_t pad;
};

static int dup_of(int fd)
{
	int n = dup(fd);

	assert_true(n >= 0);
	return n;
}

static void set_inflight(const struct inflight *f, int fd)
{
	fd = dup_of(fd);
	assert_int_equal(vt_handle(VU_SET_INFLIGHT_FD, 0, f, sizeof(*f), &fd, 1), 0);
}

static void bring_up(void)
{
	vt_negotiate(FEATURES, VT_ALL_PROTOCOL);
	assert_int_equal(vt_send_table(GUEST_REGIONS, GUEST_REGIONS), 0);
}

static void start_ring(void)
{
	assert_int_equal(vt_send_state(VU_SET_VRING_NUM, 0, VT_RING_SIZE), 0);
	assert_int_equal(vt_send_state(VU_SET_VRING_BASE, 0, BASE), 0);
	assert_int_equal(vt_send_addr(0, 0, 0, 0), 0);
	assert_int_equal(vt_send_fd(VU_SET_VRING_KICK, 0, vt_event()), 0);
}

static void packed_driver(void)
{
	const struct vring_conf c = { .packed = true, .size = VT_RING_SIZE };

	driver_fini(&vt.driver);
	driver_init(&vt.driver, &vt.guest, &c);
}

static void pass(unsigned int n)
{
	const struct driver_buf buf = { GUEST_DATA, 64 };
	uint64_t cookie;
	uint32_t len;

	for (unsigned int i = 0; i < n; i++) {
		assert_int_equal(driver_add(&vt.driver, &buf, 0, 1, 0, i), 0);
		assert_int_equal(serve(vt.dev.ring[0].vring, 8), 1);
		assert_int_equal(driver_get(&vt.driver, &cookie, &len), 1);
		assert_int_equal(cookie, i);
	}
}

static void refuse_inflight(struct inflight f, int fd)
{
	fd = dup_of(fd);
	bring_up();
	VT_REFUSED(vt_handle(VU_SET_INFLIGHT_FD, 0, &f, sizeof(f), &fd, 1));
}

/* The front end holds the region and gives it to the next back end. */
static void test_inflight(void **state)
{
	struct inflight f = { .rings = 2, .descs = VT_RING_SIZE }, got;
	int fd;

	packed_driver();
	bring_up();
	assert_int_equal(vt_handle(VU_GET_INFLIGHT_FD, 0, &f, sizeof(f), NULL, 0), 0);
	fd = vt.reply.fd;
	assert_true(fd >= 0);
	memcpy(&got, vt.reply.buf + VU_HDR_SIZE, sizeof(got));
	assert_int_equal(got.rings, 2);
	assert_true(got.size >= 2 * vring_keep_bytes(VT_RING_SIZE));
	for (unsigned int life = 0; life < 20; life++) {
		set_inflight(&got, fd);
		start_ring();
		pass(23);
		vu_dev_reset(&vt.dev);
		bring_up();
	}
	/* Ended in order, the front end's word counts. */
	set_inflight(&got, fd);
	start_ring();
	pass(5);
	assert_int_equal(vt_send_state(VU_GET_VRING_BASE, 0, 0), 0);
	packed_driver();
	memset(guest_ptr(&vt.guest, GUEST_RING, 0x1000), 0, 0x1000);
	start_ring();
	pass(70);

	f = got;
	f.size = vring_keep_bytes(VT_RING_SIZE);
	refuse_inflight(f, fd);
	f = got;
	f.offset = 4;
	refuse_inflight(f, fd);
	f = got;
	f.offset = UINT64_MAX - 7;
	refuse_inflight(f, fd);
	f = got;
	f.rings = VU_MAX_RINGS + 1;
	f.size = UINT64_MAX;
	refuse_inflight(f, fd);
	f.rings = 0;
	refuse_inflight(f, fd);
	bring_up();
	VT_REFUSED(vt_handle(VU_GET_INFLIGHT_FD, 0, &f, sizeof(f), NULL, 0));
	close(fd);
}

/* A region that is cut short under the ring ends this device, and no more. */
static void test_inflight_cut(void **state)
{
	struct inflight f = { .rings = 1, .descs = VT_RING_SIZE };
	int fd;

	/* cmocka has a handler of its own. */
	assert_int_equal(vu_mem_guard(), 0);
	packed_driver();
	bring_up();
	assert_int_equal(vt_handle(VU_GET_INFLIGHT_FD, 0, &f, sizeof(f), NULL, 0), 0);
	fd = vt.reply.fd;
	memcpy(&f, vt.reply.buf + VU_HDR_SIZE, sizeof(f));
	set_inflight(&f, fd);
	start_ring();
	pass(3);
	assert_null(vu_dev_broken(&vt.dev));
	assert_int_equal(ftruncate(fd, 0), 0);
	pass(1);
	assert_non_null(vu_dev_broken(&vt.dev));
	close(fd);
}

/* Without a region of the front end's: a file of the daemon's. */
static void test_file(void **state)
{
	char dir[] = "/tmp/test_vring_keep.XXXXXX", path[64];
	struct stat st;

	packed_driver();
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/rings", dir);
	for (unsigned int life = 0; life < 20; life++) {
		assert_int_equal(vu_keep_open(path), 0);
		bring_up();
		start_ring();
		pass(23);
		vu_dev_reset(&vt.dev);
		vu_keep_close();
		/* Kept for the next. */
		assert_int_equal(stat(path, &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
		/* Of 16 MiB, what one ring needs: that of a look at the others is none. */
		assert_in_range(st.st_blocks * 512, 1, 64 * 1024);
	}
	/* A ring in a place that another one has is not kept twice. */
	assert_int_equal(vu_keep_open(path), 0);
	bring_up();
	start_ring();
	assert_non_null(vt.dev.ring[0].own);
	{
		struct vu_ring *r = &vt.dev.ring[0];
		const struct vu_region *g = vu_mem_find(&vt.dev.mem, GUEST_RING);
		const struct vu_keep_id id = { g->dev, g->ino,
					       r->conf.desc_uva - g->uva };

		assert_null(vu_keep_take(&id, VT_RING_SIZE));
	}
	/* The last one ends in order: nothing is kept, and the file goes. */
	assert_int_equal(vt_send_state(VU_GET_VRING_BASE, 0, 0), 0);
	vu_keep_close();
	assert_int_not_equal(stat(path, &st), 0);

	/* Not somebody else's to write. */
	assert_int_equal(symlink("/dev/null", path), 0);
	assert_true(vu_keep_open(path) < 0);
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_true(vu_keep_open(path) < 0);
	unlink(path);
	assert_int_equal(rmdir(dir), 0);
}

/* A file system with room for one ring, then with none: who would touch the file gets SIGBUS. */
static void test_file_full(void **state)
{
	const struct vu_keep_id id[] = { { 1, 1, 0 }, { 1, 1, 1 << 20 } };
	char dir[] = "/tmp/test_vring_keep.XXXXXX", path[64], fill[64];
	static const char page[4096];
	int fd;

	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
		print_message("may not mount: %s\n", strerror(errno));
		skip();
	}
	assert_non_null(mkdtemp(dir));
	assert_int_equal(mount("tmpfs", dir, "tmpfs", 0, "size=48k"), 0);
	snprintf(path, sizeof(path), "%s/rings", dir);
	snprintf(fill, sizeof(fill), "%s/fill", dir);
	assert_int_equal(vu_keep_open(path), 0);
	assert_non_null(vu_keep_take(&id[0], VU_KEEP_SIZE));
	assert_null(vu_keep_take(&id[1], VU_KEEP_SIZE));
	vu_keep_close();

	fd = open(fill, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_return_code(fd, errno);
	while (write(fd, page, sizeof(page)) > 0)
		;
	close(fd);
	assert_int_equal(vu_keep_open(path), 0);
	assert_null(vu_keep_take(&id[0], VU_KEEP_SIZE));
	vu_keep_close();
	assert_int_equal(umount(dir), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_other_ring),
		cmocka_unit_test(test_same_again),
		cmocka_unit_test(test_not_believed),
		VT_TEST(test_inflight),
		VT_TEST(test_inflight_cut),
		VT_TEST(test_file),
		cmocka_unit_test(test_file_full),
	};

	return cmocka_run_group_tests_name("vring_keep", tests, NULL, NULL);
}
