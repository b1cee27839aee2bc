// SPDX-License-Identifier: BSD-2-Clause
/* ghostmemd: command line of the node agent; see agent.h. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent.h"
#include "reserve.h"
#include "../bus.h"
#include "../local.h"
#include "../../lib/log.h"

static void usage(FILE *f)
{
	fputs("usage: ghostmemd --node NAME --listen ADDR --directory URL [OPTION...]\n"
	      "  --node NAME        name of this node\n"
	      "  --listen ADDR      for other nodes: tcp:HOST:PORT, tls:HOST:PORT or "
	      "unix:PATH\n"
	      "  --advertise ADDR   how they reach it; default as --listen\n"
	      "  --directory URL    file:PATH or etcd:http://HOST:PORT/PREFIX\n"
	      "  --local PATH       socket for applications; default " LOCAL_DEFAULT "\n"
	      "  --tls MODE         x509 or psk, between nodes; default off\n"
	      "  --tls-dir DIR      credentials\n"
	      "  --tls-name NAME    expected in owners' certificates; psk: user\n"
	      "  --shortcut off     no UNIX sockets between agents of one host\n"
	      "  --busy-poll US     poll so long before sleeping, 0 to 1000000; default "
	      "0\n"
	      "  --reserve MIB      memory made ready for imports before pages come; "
	      "default 256\n"
	      "  --lease MS         100 to 60000; default 2000\n"
	      "  --log LEVEL        error, warn, info, debug\n",
	      f);
}

static int parse_tls(const char *s, enum tls_mode *mode)
{
	static const char *const names[] = { "off", "x509", "psk" };

	for (int i = 0; i < 3; i++) {
		if (strcmp(s, names[i]))
			continue;
		*mode = (enum tls_mode)i;
		return 0;
	}
	return -EINVAL;
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {
		{ "node", required_argument, NULL, 'n' },
		{ "listen", required_argument, NULL, 'l' },
		{ "advertise", required_argument, NULL, 'a' },
		{ "directory", required_argument, NULL, 'd' },
		{ "local", required_argument, NULL, 's' },
		{ "tls", required_argument, NULL, 't' },
		{ "tls-dir", required_argument, NULL, 'T' },
		{ "tls-name", required_argument, NULL, 'N' },
		{ "shortcut", required_argument, NULL, 'S' },
		{ "busy-poll", required_argument, NULL, 'b' },
		{ "reserve", required_argument, NULL, 'R' },
		{ "lease", required_argument, NULL, 'e' },
		{ "log", required_argument, NULL, 'L' },
		{ "help", no_argument, NULL, 'h' },
		{ "version", no_argument, NULL, 'V' },
		{ 0 },
	};
	struct agent_config cfg = { .local = LOCAL_DEFAULT, .lease_ms = 2000 };
	enum log_level level;
	struct agent *a;
	char *end;
	int c, err;

	while ((c = getopt_long(argc, argv, "hV", opts, NULL)) != -1) {
		switch (c) {
		case 'n': cfg.node = optarg; break;
		case 'l': cfg.listen = optarg; break;
		case 'a': cfg.advertise = optarg; break;
		case 'd': cfg.directory = optarg; break;
		case 's': cfg.local = optarg; break;
		case 't':
			if (parse_tls(optarg, &cfg.tls.mode)) {
				fprintf(stderr, "ghostmemd: --tls: off, x509 or psk\n");
				return 2;
			}
			break;
		case 'S':
			if (strcmp(optarg, "on") && strcmp(optarg, "off")) {
				fprintf(stderr, "ghostmemd: --shortcut: on or off\n");
				return 2;
			}
			cfg.no_shortcut = !strcmp(optarg, "off");
			break;
		case 'b':
			cfg.busy_poll_us = (unsigned int)strtoul(optarg, &end, 10);
			if (!*optarg || *end || cfg.busy_poll_us > 1000000) {
				fprintf(stderr, "ghostmemd: --busy-poll: 0 to 1000000\n");
				return 2;
			}
			break;
		case 'T': cfg.tls.dir = optarg; break;
		case 'N': cfg.tls.hostname = optarg; break;
		case 'R':
			reserve_limit(strtoull(optarg, &end, 10) << 20);
			if (*end || end == optarg) {
				fprintf(stderr,
					"ghostmemd: --reserve: a number of MiB\n");
				return 2;
			}
			break;
		case 'e':
			cfg.lease_ms = (uint32_t)strtoul(optarg, &end, 10);
			if (*end || cfg.lease_ms < 100 || cfg.lease_ms > 60000) {
				fprintf(stderr, "ghostmemd: --lease: 100 to 60000\n");
				return 2;
			}
			break;
		case 'L':
			if (log_parse_level(optarg, &level)) {
				fprintf(stderr, "ghostmemd: --log: no such level\n");
				return 2;
			}
			log_set_level(level);
			break;
		case 'h': usage(stdout); return 0;
		case 'V': puts("ghostmemd " GN_VERSION); return 0;
		default: usage(stderr); return 2;
		}
	}
	if (optind < argc || !cfg.node || !cfg.listen || !cfg.directory ||
	    !gm_name_ok(cfg.node)) {
		usage(stderr);
		return 2;
	}
	if (cfg.tls.mode != TLS_OFF && !cfg.tls.dir) {
		fprintf(stderr, "ghostmemd: --tls needs --tls-dir\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	err = agent_create(&cfg, &a);
	if (err) {
		fprintf(stderr, "ghostmemd: %s\n", strerror(-err));
		return 1;
	}
	err = agent_run(a);
	agent_destroy(a);
	return err ? 1 : 0;
}
