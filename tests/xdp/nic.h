/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The XDP program under test in a network namespace of the test's own, with a real
 * AF_XDP socket on queue 0 of a TAP device. Everything is held by this process and
 * vanishes with it: no pin, no named namespace.
 */
#ifndef GN_TEST_NIC_H
#define GN_TEST_NIC_H

#include <xdp/xsk.h>

#include "frame.h"
#include "bpf/ghostnic.skel.h"

struct nic {
	struct ghostnic_bpf *skel;
	int prog;      /* fd */
	int ifindex;   /* of the TAP device */
	int tap, tap1; /* fds, a queue each: what is written here, the device receives */
	void *umem_area;
	struct xsk_umem *umem;
	struct xsk_socket *xsk;
	struct xsk_ring_prod fill;
	struct xsk_ring_cons comp, rx;
	struct gn_config conf;	  /* as in the map */
	struct gn_stream *stream; /* of queue 0, mapped; queue 1 has none */
	uint32_t slots;		  /* of the flows, per CPU */
	unsigned int frames;	  /* run through the program so far */
};

#define NIC_HASH_KEY                                                                     \
	{                                                                                \
		0x0706050403020100ULL, 0x0f0e0d0c0b0a0908ULL                             \
	}

/** nic_open() - enter a new namespace, stay on one CPU, load, create device and socket.
 * Return: 0, -errno */
int nic_open(struct nic *n);
void nic_close(struct nic *n);

/** nic_config() - set the one entry of map "config" but for the generation */
void nic_config(struct nic *n, uint32_t max_frame, uint32_t flags,
		const uint64_t hash_key[2]);

/** nic_socket() - put the socket into the XSKMAP for both queues, or take it out */
void nic_socket(struct nic *n, bool present);

/** nic_generation() - set it; nic_instance() adds to what is not 0 */
void nic_generation(struct nic *n, uint32_t generation);

/** nic_cpu() - run frames on this one from now on. Return: 0, -errno */
int nic_cpu(int cpu);

/** nic_instance() - set entry (@mac, @vlan) of map "instances"; @in NULL removes it */
void nic_instance(struct nic *n, const uint8_t *mac, uint16_t vlan,
		  const struct gn_instance *in);

/** nic_counters() - sums over all CPUs */
void nic_counters(const struct nic *n, struct gn_counters *c);

struct nic_run {
	unsigned int foreign; /* bytes of metadata that another program left */
	unsigned int linear;  /* bytes of the first buffer; 0: as the kernel likes */
	unsigned int queue;
	/* results */
	uint32_t verdict;		/* XDP_* */
	unsigned int meta_len, out_len; /* bytes of metadata, of the frame */
	uint8_t *meta, *out;		/* into buf */
	struct gn_counters delta;
	uint8_t buf[FRAME_MAX + 512];
};

/**
 * nic_run() - one frame through BPF_PROG_TEST_RUN
 *
 * Return: 0, -errno (-EINVAL: this kernel cannot set up such a frame)
 */
int nic_run(struct nic *n, const uint8_t *frame, unsigned int len, struct nic_run *r);

#endif
