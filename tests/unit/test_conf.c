// SPDX-License-Identifier: BSD-2-Clause
/*
 * conf: instances, files and command lines, good and bad. A bad one must be refused
 * with the place and the cause, and leave nothing behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../user/daemon/conf.h"

#define MAC	      "mac=52:54:00:12:34:56"
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* ---- instances ---------------------------------------------------------------- */

static void parses_mac(void **state)
{
	static const char *const bad[] = {
		"",
		"52",
		"52:54:00:12:34",
		"52:54:00:12:34:5",
		"52:54:00:12:34:567",
		"52:54:00:12:34:56:78",
		"52-54-00-12-34-56",
		"5g:54:00:12:34:56",
		"52:54:00:12:34:56 ",
		" 52:54:00:12:34:56",
		"+2:54:00:12:34:56",
	};
	const uint8_t want[6] = { 0x52, 0x54, 0x00, 0xab, 0xCD, 0xef };
	uint8_t mac[6] = { 9, 9, 9, 9, 9, 9 }, before[6];

	memcpy(before, mac, 6);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(conf_parse_mac(bad[i], mac), -EINVAL);
		assert_memory_equal(mac, before, 6);
	}
	assert_int_equal(conf_parse_mac("52:54:00:ab:CD:ef", mac), 0);
	assert_memory_equal(mac, want, 6);
}

static void parses_instance(void **state)
{
	struct instance_conf in;
	char err[256];

	assert_int_equal(conf_parse_instance("vm1," MAC ",vlan=7,port=tap:gn0", &in, err,
					     sizeof(err)),
			 0);
	assert_string_equal(in.name, "vm1");
	assert_string_equal(in.iface, "");
	assert_int_equal(in.mac[0], 0x52);
	assert_int_equal(in.mac[5], 0x56);
	assert_int_equal(in.vlan, 7);
	assert_string_equal(in.port.kind, "tap");
	assert_string_equal(in.port.arg, "gn0");
	assert_false(in.port.copy);

	/* Any order; copy; the interface; names at their limits. */
	assert_int_equal(
		conf_parse_instance("a.b_c-D890123456789012345678901,port=null,copy,"
				    "vlan=4094,iface=eth0.5," MAC,
				    &in, err, sizeof(err)),
		0);
	assert_string_equal(in.iface, "eth0.5");
	assert_int_equal(in.vlan, 4094);
	assert_string_equal(in.port.kind, "null");
	assert_string_equal(in.port.arg, "");
	assert_true(in.port.copy);
}

static void limits_instance(void **state)
{
	static const struct {
		const char *text;
		uint64_t rate;
		bool spoof;
	} good[] = {
		{ "vm1," MAC ",port=tap:gn0", 0, false },
		{ "vm1," MAC ",port=tap:gn0,rate=64k", 64000, false },
		{ "vm1," MAC ",port=tap:gn0,rate=64000,allow-spoof=no", 64000, false },
		{ "vm1," MAC ",port=tap:gn0,rate=500M,allow-spoof", 500000000, true },
		{ "vm1," MAC ",port=shm:/a,rate=64M,allow-spoof", 64000000, true },
		{ "vm1," MAC ",rate=1000G,port=vhost-user:/a,allow-spoof=yes",
		  1000000000000, true },
	};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct instance_conf in;
		char err[256] = "";

		if (conf_parse_instance(good[i].text, &in, err, sizeof(err)))
			fail_msg("%s: %s", good[i].text, err);
		assert_int_equal(in.rate, good[i].rate);
		assert_int_equal(in.allow_spoof, good[i].spoof);
	}
}

static void refuses_instance(void **state)
{
	/* text, part of the message */
	static const char *const bad[][2] = {
		{ "", "not an instance name" },
		{ "," MAC ",port=null", "not an instance name" },
		{ "v m," MAC ",port=null", "not an instance name" },
		{ "v/m," MAC ",port=null", "not an instance name" },
		{ "v\nm," MAC ",port=null", "not an instance name" },
		{ "a2345678901234567890123456789012," MAC ",port=null", "1 to 31" },
		{ "vm1", "add mac=MAC" },
		{ "vm1,port=null", "add mac=MAC" },
		{ "vm1," MAC, "add port=" },
		{ "vm1,mac=53:54:00:12:34:56,port=null", "not a unicast" },
		{ "vm1,mac=ff:ff:ff:ff:ff:ff,port=null", "not a unicast" },
		{ "vm1,mac=00:00:00:00:00:00,port=null", "not a unicast" },
		{ "vm1,mac=52:54,port=null", "six octets" },
		{ "vm1," MAC ",vlan=0,port=null", "1 to 4094" },
		{ "vm1," MAC ",vlan=4095,port=null", "1 to 4094" },
		{ "vm1," MAC ",vlan=-1,port=null", "1 to 4094" },
		{ "vm1," MAC ",vlan= 1,port=null", "1 to 4094" },
		{ "vm1," MAC ",vlan=0x10,port=null", "1 to 4094" },
		{ "vm1," MAC ",vlan=18446744073709551617,port=null", "1 to 4094" },
		{ "vm1," MAC ",vlan=,port=null", "1 to 4094" },
		{ "vm1," MAC ",vlan,port=null", "vlan has no value" },
		{ "vm1," MAC ",port=pipe:x", "no such kind" },
		{ "vm1," MAC ",port=", "no such kind" },
		{ "vm1," MAC ",port=tap", "want tap:DEV" },
		{ "vm1," MAC ",port=tap:", "want tap:DEV" },
		{ "vm1," MAC ",port=tap:a2345678901234567", "want tap:DEV" },
		{ "vm1," MAC ",port=tap:a/b", "want tap:DEV" },
		{ "vm1," MAC ",port=tap:..", "want tap:DEV" },
		{ "vm1," MAC ",port=tap:gn%d", "want tap:DEV" },
		{ "vm1," MAC ",port=null:x", "takes nothing" },
		{ "vm1," MAC ",port=tap:gn0,copy", "copy is for port=null" },
		{ "vm1," MAC ",port=null,copy=maybe", "want yes or no" },
		{ "vm1," MAC ",port=shm:vm1.sock", "an absolute path" },
		{ "vm1," MAC ",port=shm:/run/\xc3(", "not UTF-8" },
		{ "vm1," MAC ",port=shm:/run/vm1.sock,hold=127", "from 128 to" },
		{ "vm1," MAC ",port=null,hold=128", "hold is for port=shm" },
		{ "vm1," MAC ",port=null,queues=1",
		  "valid are: mac, vlan, port, client, copy, hold, rate, allow-spoof, "
		  "iface" },
		{ "vm1," MAC ",port=tap:gn0,rate=0", "from 64k to 1000G" },
		{ "vm1," MAC ",port=tap:gn0,rate=63999", "from 64k to 1000G" },
		{ "vm1," MAC ",port=tap:gn0,rate=1001G", "from 64k to 1000G" },
		{ "vm1," MAC ",port=tap:gn0,rate=18446744073709551617",
		  "from 64k to 1000G" },
		{ "vm1," MAC ",port=tap:gn0,rate=18446744074G", "from 64k to 1000G" },
		{ "vm1," MAC ",port=tap:gn0,rate=M", "from 64k to 1000G" },
		{ "vm1," MAC ",port=tap:gn0,rate=1Mb", "from 64k to 1000G" },
		{ "vm1," MAC ",port=tap:gn0,rate=1m", "from 64k to 1000G" },
		{ "vm1," MAC ",port=tap:gn0,rate=-1M", "from 64k to 1000G" },
		{ "vm1," MAC ",port=tap:gn0,rate=1.5G", "from 64k to 1000G" },
		{ "vm1," MAC ",port=tap:gn0,rate", "rate has no value" },
		{ "vm1," MAC ",port=null,rate=1M", "for ports that send" },
		{ "vm1," MAC ",port=null,allow-spoof", "for ports that send" },
		{ "vm1," MAC ",port=tap:gn0,allow-spoof=1", "want yes or no" },
		{ "vm1," MAC ",port=null,", "unknown key \"\"" },
		{ "vm1," MAC "," MAC ",port=null", "mac is given twice" },
		{ "vm1," MAC ",port=null,copy,copy", "copy is given twice" },
		{ "vm1," MAC ",port=null,iface=a b", "not an interface name" },
		{ "vm1," MAC ",port=null,iface=abcdefghijklmnop",
		  "not an interface name" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct instance_conf in, before;
		char err[256] = "";

		memset(&in, 0x5a, sizeof(in));
		before = in;
		if (conf_parse_instance(bad[i][0], &in, err, sizeof(err)) != -EINVAL)
			fail_msg("accepted: %s", bad[i][0]);
		if (!strstr(err, bad[i][1]))
			fail_msg("%s: \"%s\" does not say \"%s\"", bad[i][0], err,
				 bad[i][1]);
		assert_memory_equal(&in, &before, sizeof(in));
		assert_null(strchr(err, '\n'));
	}
}

/* A message never leaves its buffer, however long the input is. */
static void bounds_messages(void **state)
{
	struct instance_conf in;
	char text[4096], err[16];

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	memset(err, 0x5a, sizeof(err));
	assert_int_equal(conf_parse_instance(text, &in, err, sizeof(err) - 1), -EINVAL);
	assert_int_equal(strlen(err), sizeof(err) - 2);
	assert_int_equal(err[sizeof(err) - 1], 0x5a);
}

/* ---- files -------------------------------------------------------------------- */

static int read_text(struct daemon_conf *c, const char *text, size_t len, char *err,
		     size_t errlen)
{
	FILE *f = fmemopen((void *)text, len, "r");
	int ret;

	assert_non_null(f);
	conf_init(c);
	ret = conf_read(c, f, "f", err, errlen);
	fclose(f);
	return ret;
}

static void reads_file(void **state)
{
	static const char text[] = "# comment\n"
				   "[instance vm1]\r\n"
				   "iface = veth0\n"
				   "  mac = 52:54:00:12:34:56   ; inline\n"
				   "vlan=12\n"
				   "port = tap:gn0\n"
				   "\n"
				   "[daemon] ; with a comment\n"
				   "poll = wait\n"
				   "checksum = carry\n"
				   "flush-us = 50\n"
				   "chunks = 8192\n"
				   "ctl = /tmp/x.sock\n"
				   "bpffs = /tmp/bpf\n"
				   "log-level = debug\n"
				   "[interface veth0]\n"
				   "queues = 2\n"
				   "[interface veth1]\n"
				   "[instance vm2]\n"
				   "iface = veth1\n"
				   "mac = 52:54:00:12:34:56\n"
				   "port = null\n"
				   "copy = yes"; /* no newline at the end */
	struct daemon_conf c;
	char err[256] = "";

	if (read_text(&c, text, strlen(text), err, sizeof(err)))
		fail_msg("%s", err);
	assert_int_equal(c.poll, POLL_WAIT);
	assert_int_equal(c.checksum, AGG_CARRY);
	assert_int_equal(c.flush_us, 50);
	assert_int_equal(c.chunks, 8192);
	assert_int_equal(c.log_level, LOG_LVL_DEBUG);
	assert_string_equal(c.ctl, "/tmp/x.sock");
	assert_string_equal(c.bpffs, "/tmp/bpf");
	assert_int_equal(c.nifaces, 2);
	assert_string_equal(c.iface[0].name, "veth0");
	assert_int_equal(c.iface[0].queues, 2);
	assert_string_equal(c.iface[1].name, "veth1");
	assert_int_equal(c.iface[1].queues, 0);
	assert_int_equal(c.ninstances, 2);
	assert_string_equal(c.instance[0].name, "vm1");
	assert_string_equal(c.instance[0].iface, "veth0");
	assert_int_equal(c.instance[0].vlan, 12);
	assert_string_equal(c.instance[0].port.arg, "gn0");
	assert_string_equal(c.instance[1].iface, "veth1");
	assert_true(c.instance[1].port.copy);
	conf_fini(&c);
}

/* One interface: an instance need not name it, wherever it stands in the file. */
static void defaults_iface(void **state)
{
	static const char text[] =
		"[instance vm1]\n" MAC "\nport=null\n[interface veth0]\n";
	struct daemon_conf c;
	char err[256] = "";

	if (read_text(&c, text, strlen(text), err, sizeof(err)))
		fail_msg("%s", err);
	assert_string_equal(c.instance[0].iface, "veth0");
	conf_fini(&c);
}

#define VM(n, mac, rest) "[instance " n "]\nmac=52:54:00:00:00:" mac "\n" rest "\n"

static void refuses_file(void **state)
{
	/* text, start of the message, part of it */
	static const char *const bad[][3] = {
		{ "poll=wait\n", "f:1: ", "before any section" },
		{ "\n\n[daemon]\npol = wait\n", "f:4: ", "valid are: poll, checksum" },
		{ "[daemon]\npoll = sometimes\n", "f:2: ", "busy, adaptive or wait" },
		{ "[daemon]\npoll=wait\npoll=busy\n", "f:3: ", "poll is given twice" },
		{ "[daemon]\n[daemon]\n", "f:2: ", "second section [daemon]" },
		{ "[daemon]\nchecksum=none\n", "f:2: ", "verify or carry" },
		{ "[daemon]\nchunks=4097\n", "f:2: ", "power of two" },
		{ "[daemon]\nchunks=256\n", "f:2: ", "512 to 1048576" },
		{ "[daemon]\nchunks=2097152\n", "f:2: ", "512 to 1048576" },
		{ "[daemon]\nflush-us=1000001\n", "f:2: ", "0 to 1000000" },
		{ "[daemon]\nlog-level=loud\n", "f:2: ", "error, warn, info or debug" },
		{ "[daemon]\nctl=ctl.sock\n", "f:2: ", "absolute path" },
		{ "[daemon]\nwait\n", "f:2: ", "KEY = VALUE" },
		{ "[daemon]\nx\npoll=wait\n", "f:2: ", "KEY = VALUE" },
		{ "[daemon\npoll=wait\n", "f:1: ", "want [daemon]" },
		{ "[daemon] poll=wait\n", "f:1: ", "line of its own" },
		{ "[deamon]\n", "f:1: ", "unknown section [deamon]; want [daemon]" },
		{ "[interface]\n", "f:1: ", "unknown section" },
		{ "[interface ]\n", "f:1: ", "not an interface name" },
		{ "[interface a b]\n", "f:1: ", "not an interface name" },
		{ "[interface a]\n[interface a]\n",
		  "f:2: ", "second section [interface a]" },
		{ "[interface a]\nqueues=65\n", "f:2: ", "0 to 64" },
		{ "[interface a]\nmtu=9000\n", "f:2: ", "valid is: queues" },
		{ "[interface a]\n[instance v m]\n", "f:2: ", "not an instance name" },
		{ "[interface a]\n\n[instance vm]\nport=null\n", "f:3: ", "add mac=MAC" },
		{ "[interface a]\n[instance vm]\n" MAC "\nvlan=4095\n",
		  "f:4: ", "1 to 4094" },
		{ "[instance vm]\n" MAC "\nport=null\n", "f:1: ", "which interface" },
		{ "[interface a]\n[interface b]\n" VM("v", "01", "port=null"),
		  "f:3: ", "which interface" },
		{ "[interface a]\n" VM("v", "01", "port=null\niface=b"),
		  "f:2: ", "add [interface b]" },
		{ "[interface a]\n" VM("v", "01", "port=null") VM("v", "02", "port=null"),
		  "f:5: ", "configured twice" },
		{ "[interface a]\n" VM("v", "01", "port=null") VM("w", "01", "port=null"),
		  "f:5: ", "same address and VLAN" },
		{ "[interface a]\n" VM("v", "01", "port=tap:x")
			  VM("w", "02", "port=tap:x"),
		  "f:5: ", "same port tap:x" },
		{ "\xef\xbb\xbf[daemon]\n", "f:1: ", "byte order mark" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct daemon_conf c;
		char err[512] = "";

		if (read_text(&c, bad[i][0], strlen(bad[i][0]), err, sizeof(err)) !=
		    -EINVAL)
			fail_msg("accepted: %s", bad[i][0]);
		if (strncmp(err, bad[i][1], strlen(bad[i][1])) || !strstr(err, bad[i][2]))
			fail_msg("%s: \"%s\", want \"%s ... %s\"", bad[i][0], err,
				 bad[i][1], bad[i][2]);
		conf_fini(&c);
	}
}

static void refuses_odd_bytes(void **state)
{
	static const char nul[] = "[daemon]\npoll=wait\0\n";
	struct daemon_conf c;
	char text[1024] = "[daemon]\n#", err[512] = "";

	assert_int_equal(read_text(&c, nul, sizeof(nul) - 1, err, sizeof(err)), -EINVAL);
	assert_string_equal(err, "f:2: NUL byte; is this a text file?");
	conf_fini(&c);
	/* Cut in two, the second half of a long line would be another line. */
	memset(text + strlen(text), 'x', 600);
	assert_int_equal(read_text(&c, text, strlen(text), err, sizeof(err)), -EINVAL);
	assert_memory_equal(err, "f:2: line too long", 18);
	conf_fini(&c);
}

/* Another VLAN or another interface: no clash. */
static void accepts_neighbours(void **state)
{
	static const char text[] =
		"[interface a]\n[interface b]\n" VM("v", "01", "iface=a\nport=null")
			VM("w", "01", "iface=a\nport=null\nvlan=1")
				VM("v2", "01", "iface=b\nport=null");
	struct daemon_conf c;
	char err[256] = "";

	if (read_text(&c, text, strlen(text), err, sizeof(err)))
		fail_msg("%s", err);
	assert_int_equal(c.ninstances, 3);
	conf_fini(&c);
}

/* ---- command lines -------------------------------------------------------------- */

#define MAX_ARGS 64

/* conf_parse_args() on words separated by blanks; its stderr goes to @err. */
static int parse_line(struct daemon_conf *c, const char *line, char *err, size_t size)
{
	char copy[1024], *argv[MAX_ARGS], *rest = copy;
	FILE *tmp = tmpfile();
	int argc = 0, saved[2], ret;
	size_t n;

	assert_non_null(tmp);
	assert_true(strlen(line) < sizeof(copy));
	strcpy(copy, line);
	while ((argv[argc] = strsep(&rest, " ")) && argc < MAX_ARGS - 1)
		argc++;
	argv[argc] = NULL;
	fflush(NULL);
	for (int i = 0; i < 2; i++) {
		saved[i] = dup(STDOUT_FILENO + i);
		dup2(fileno(tmp), STDOUT_FILENO + i);
	}
	ret = conf_parse_args(c, argc, argv);
	fflush(NULL);
	for (int i = 0; i < 2; i++) {
		dup2(saved[i], STDOUT_FILENO + i);
		close(saved[i]);
	}
	rewind(tmp);
	n = fread(err, 1, size - 1, tmp);
	err[n] = '\0';
	fclose(tmp);
	return ret;
}

static void parses_args(void **state)
{
	struct daemon_conf c;
	char err[4096];

	if (parse_line(
		    &c,
		    "ghostnicd --iface a --queues 2 --instance v," MAC ",port=null "
		    "--iface b --instance v," MAC ",port=null --instance w," MAC
		    ",vlan=3,port=null,iface=a --poll busy --checksum=carry --flush-us 7 "
		    "--chunks 512 --ctl /x --bpffs /y --log-level warn --foreground",
		    err, sizeof(err)))
		fail_msg("%s", err);
	assert_int_equal(c.nifaces, 2);
	assert_int_equal(c.iface[0].queues, 2);
	assert_int_equal(c.iface[1].queues, 0);
	assert_int_equal(c.ninstances, 3);
	assert_string_equal(c.instance[0].iface, "a");
	assert_string_equal(c.instance[1].iface, "b");
	assert_string_equal(c.instance[2].iface, "a");
	assert_int_equal(c.poll, POLL_BUSY);
	assert_int_equal(c.checksum, AGG_CARRY);
	assert_int_equal(c.flush_us, 7);
	assert_int_equal(c.chunks, 512);
	assert_string_equal(c.ctl, "/x");
	assert_string_equal(c.bpffs, "/y");
	assert_int_equal(c.log_level, LOG_LVL_WARN);
	assert_true(c.foreground);
	assert_false(c.check_only);
	conf_fini(&c);

	/* Defaults. */
	assert_int_equal(parse_line(&c, "ghostnicd --iface a --check", err, sizeof(err)),
			 0);
	assert_int_equal(c.poll, POLL_ADAPTIVE);
	assert_int_equal(c.checksum, AGG_VERIFY);
	assert_int_equal(c.flush_us, 0);
	assert_int_equal(c.chunks, 8192);
	assert_string_equal(c.ctl, CONF_DEFAULT_CTL);
	assert_false(c.foreground);
	assert_true(c.check_only);
	conf_fini(&c);

	assert_int_equal(parse_line(&c, "ghostnicd --iface ! --help", err, sizeof(err)),
			 1);
	assert_non_null(strstr(err, "Usage: ghostnicd"));
	conf_fini(&c);
	assert_int_equal(parse_line(&c, "ghostnicd --version", err, sizeof(err)), 1);
	assert_non_null(strstr(err, GN_VERSION));
	conf_fini(&c);
}

static void refuses_args(void **state)
{
	static const char *const bad[][2] = {
		{ "ghostnicd", "no interface; add --iface IF" },
		{ "ghostnicd --iface", "requires an argument" },
		{ "ghostnicd --iface a --pol wait --wat", "unrecognized option" },
		{ "ghostnicd --iface a b", "\"b\" belongs to no option" },
		{ "ghostnicd --iface a/b", "not an interface name" },
		{ "ghostnicd --queues 2 --iface a", "after an --iface" },
		{ "ghostnicd --iface a --queues x", "0 to 64" },
		{ "ghostnicd --iface a --poll never", "busy, adaptive or wait" },
		{ "ghostnicd --iface a --ctl x", "absolute path" },
		{ "ghostnicd --iface a --instance v", "add mac=MAC" },
		{ "ghostnicd --instance v," MAC ",port=null --iface a",
		  "which interface" },
		{ "ghostnicd --iface a --instance v," MAC ",port=null,iface=b",
		  "add [interface b] or --iface b" },
		{ "ghostnicd --iface a --instance v," MAC ",port=null "
		  "--instance v,mac=52:54:00:00:00:01,port=null",
		  "configured twice" },
		{ "ghostnicd --config /a --config /b", "--config is given twice" },
		{ "ghostnicd --config /nonexistent", "/nonexistent: No such file" },
		{ "ghostnicd --config /", "/: Is a directory" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct daemon_conf c;
		char err[4096];

		if (parse_line(&c, bad[i][0], err, sizeof(err)) != -EINVAL)
			fail_msg("accepted: %s", bad[i][0]);
		if (!strstr(err, bad[i][1]))
			fail_msg("%s: \"%s\" does not say \"%s\"", bad[i][0], err,
				 bad[i][1]);
		conf_fini(&c);
	}
}

/* 107 bytes fit into a socket address, 108 do not. */
static void bounds_paths(void **state)
{
	char line[512] = "ghostnicd --iface a --ctl /", err[4096];
	size_t start = strlen(line);
	struct daemon_conf c;

	memset(line + start, 'p', 106);
	assert_int_equal(parse_line(&c, line, err, sizeof(err)), 0);
	assert_int_equal(strlen(c.ctl), 107);
	conf_fini(&c);
	line[start + 106] = 'p';
	assert_int_equal(parse_line(&c, line, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "at most 107 fit"));
	conf_fini(&c);
}

static void bounds_ifaces(void **state)
{
	char line[512] = "ghostnicd", err[4096];
	struct daemon_conf c;

	for (int i = 0; i < CONF_MAX_IFACES; i++)
		sprintf(line + strlen(line), " --iface i%d", i);
	assert_int_equal(parse_line(&c, line, err, sizeof(err)), 0);
	assert_int_equal(c.nifaces, CONF_MAX_IFACES);
	conf_fini(&c);
	strcat(line, " --iface more");
	assert_int_equal(parse_line(&c, line, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "more than 16 interfaces"));
	conf_fini(&c);
}

/* The command line wins over the file: settings, queues, instances. */
static void args_win(void **state)
{
	static const char text[] =
		"[daemon]\npoll=wait\nflush-us=9\n[interface a]\nqueues=4\n" VM(
			"v", "01", "port=tap:x") VM("w", "02", "port=null");
	char path[] = "/tmp/test_conf.XXXXXX", line[512], err[4096];
	struct daemon_conf c;
	int fd = mkstemp(path);

	assert_return_code(fd, errno);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	snprintf(line, sizeof(line),
		 "ghostnicd --poll busy --iface a --queues 1 --iface b "
		 "--instance v,mac=52:54:00:00:00:03,port=null,iface=a --config %s",
		 path);
	if (parse_line(&c, line, err, sizeof(err)))
		fail_msg("%s", err);
	assert_int_equal(c.poll, POLL_BUSY);
	assert_int_equal(c.flush_us, 9);
	assert_int_equal(c.nifaces, 2);
	assert_int_equal(c.iface[0].queues, 1);
	assert_int_equal(c.ninstances, 2);
	assert_string_equal(c.instance[0].name, "v");
	assert_int_equal(c.instance[0].mac[5], 3);
	assert_string_equal(c.instance[0].port.kind, "null");
	assert_string_equal(c.instance[1].name, "w");
	conf_fini(&c);
	/* ... but not into a clash with what the file leaves. */
	snprintf(line, sizeof(line),
		 "ghostnicd --config %s --iface a "
		 "--instance x,mac=52:54:00:00:00:02,port=null",
		 path);
	assert_int_equal(parse_line(&c, line, err, sizeof(err)), -EINVAL);
	assert_non_null(strstr(err, "same address and VLAN"));
	conf_fini(&c);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parses_mac),	     cmocka_unit_test(parses_instance),
		cmocka_unit_test(limits_instance),   cmocka_unit_test(refuses_instance),
		cmocka_unit_test(bounds_messages),   cmocka_unit_test(reads_file),
		cmocka_unit_test(defaults_iface),    cmocka_unit_test(refuses_file),
		cmocka_unit_test(refuses_odd_bytes), cmocka_unit_test(accepts_neighbours),
		cmocka_unit_test(parses_args),	     cmocka_unit_test(refuses_args),
		cmocka_unit_test(bounds_paths),	     cmocka_unit_test(bounds_ifaces),
		cmocka_unit_test(args_win),
	};

	return cmocka_run_group_tests_name("conf", tests, NULL, NULL);
}
