/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * The structs that both the XDP program and user space see.
 *
 * This header is the ABI between bpf/ghostnic.bpf.c, which writes it, and
 * ghostnicd and ghostnic, which read it. A change of any layout or meaning here
 * raises GN_ABI; a daemon refuses pins of another ABI.
 *
 * Needs only <linux/types.h>; included by BPF C and by user-space C.
 */
#ifndef GN_OFFLOAD_SHARED_H
#define GN_OFFLOAD_SHARED_H

#include <linux/types.h>

#define GN_ABI 3

/* First field of struct gn_meta. INBAND: the driver has no metadata room, so
 * the struct is the first GN_META_SIZE bytes of the frame instead. */
#define GN_META_MAGIC	     (0x6e00 | GN_ABI)
#define GN_META_MAGIC_INBAND (0x6f00 | GN_ABI)
#define GN_META_SIZE	     32 /* bytes; the limit of kernels before 6.3 */

/* First field of struct gn_tag. STREAM: the struct gn_meta is in the queue's stream.
 * FULL: it is the first bytes of the frame, as with INBAND. */
#define GN_META_MAGIC_STREAM (0x7000 | GN_ABI)
#define GN_META_MAGIC_FULL   (0x7100 | GN_ABI)
/* Records of a queue, a power of two; more than its RX ring has entries. */
#define GN_STREAM_SIZE 8192
#define GN_STREAM_GAP  1024 /* records; more than a reader takes at once */
/* A reader of one record begins so many before it at the most; a power of two. */
#define GN_STREAM_EVERY 64

#define GN_MAX_INSTANCES      1024 /* per interface */
#define GN_MAX_QUEUES	      64   /* entries of the XSKMAP */
#define GN_INSTANCE_INDEX(id) ((id) & (GN_MAX_INSTANCES - 1))

/*
 * What a segment may do to the chain that its flow holds. An open chain of the
 * same flow that the segment does not join is always delivered before it.
 */
enum gn_class {
	GN_CLASS_ALONE,	   /* merges with nothing */
	GN_CLASS_START,	   /* may head a chain, joins none (CWR) */
	GN_CLASS_CONTINUE, /* may join a chain or head one */
	GN_CLASS_CLOSE,	   /* may join a chain, which then ends (PSH, FIN) */
};

/* gn_next.class: all of it is in gn_stream.rec[gn_next.payload_len]. */
#define GN_NEXT_WHOLE 0xff

/* gn_meta.flags */
#define GN_F_TCP  (1U << 0)
#define GN_F_UDP  (1U << 1)
#define GN_F_IPV6 (1U << 2)
#define GN_F_PSH  (1U << 3)
#define GN_F_FIN  (1U << 4)
#define GN_F_CWR  (1U << 5)
/* The L4 checksum field equals the pseudo-header sum: a local sender left it
 * for hardware to complete. True only where frames never cross a wire (veth). */
#define GN_F_CSUM_PARTIAL (1U << 6)
#define GN_F_CSUM_NONE	  (1U << 7) /* UDP over IPv4 without checksum */
/* The payload was summed and is what the L4 checksum says. Without it nothing is
 * known: the payload was not looked at, or it is not good. */
#define GN_F_CSUM_GOOD (1U << 8)
/* The instance had GN_INSTANCE_LOGGED when the frame came. */
#define GN_F_LOGGED (1U << 9)

/*
 * Written by XDP in front of every frame redirected to AF_XDP; all fields in
 * host byte order but payload_sum. In class ALONE magic, instance, class, flow and
 * GN_F_LOGGED are always set and key is 0; the rest is set when all headers were parsed
 * (l4_len is not 0) and 0 otherwise. flow is 0 when the frame belongs to no TCP or
 * UDP flow, or to one that it does not show (a fragment that is not the first).
 */
struct gn_meta {
	__u16 magic;	   /* GN_META_MAGIC or GN_META_MAGIC_INBAND */
	__u16 instance;	   /* gn_instance.id */
	__u32 flow;	   /* keyed hash of instance, addresses, ports */
	__u64 key;	   /* equal keys: equal is every byte that must be for
			    * two segments to merge */
	__u32 seq;	   /* TCP sequence number */
	__u16 ip_id;	   /* IPv4 identification, 0 for IPv6 */
	__u16 payload_len; /* L4 payload by the IP length, bytes */
	__u16 payload_sum; /* one's complement sum of the payload that the
			    * L4 checksum claims; memory byte order */
	__u16 flags;	   /* GN_F_* */
	__u8 l3_off;	   /* frame start to IP header, bytes */
	__u8 l4_off;	   /* frame start to L4 header, bytes */
	__u8 l4_len;	   /* L4 header with options, bytes */
	__u8 class;	   /* enum gn_class */
};

/*
 * Metadata of a TCP segment, said by that of the record before it: the same but for what
 * stands here, seq, which is the one before's plus its payload_len, and ip_id.
 */
struct gn_next {
	__u16 payload_len; /* these as in struct gn_meta */
	__u16 payload_sum;
	__u16 flags;
	__u8 id_step; /* ip_id minus the one before's */
	__u8 class;   /* enum gn_class, or GN_NEXT_WHOLE */
};

/*
 * A queue's stream of metadata. Where frames cross from the CPU of the driver's receive
 * loop to the worker's, a cache line read by the one is a line the other has to
 * fetch back before it writes it again. In front of the frames that is a line per frame;
 * here records lie side by side, in the order of the frames, and are short: most
 * segments follow one of their own flow, and then eight bytes say what is new. So eight
 * frames share a line, and one more is for the frame that something else begins with.
 *
 * Record n is next[n % GN_STREAM_SIZE]; if that says GN_NEXT_WHOLE, payload_len there is
 * its place in rec[], whose entries are used in turn. It is whole if n is a multiple of
 * GN_STREAM_EVERY, if it is not the next segment of the connection that record n - 1 is
 * of, and if there is no record n - 1.
 *
 * Map "stream" is an mmapable array, one entry per queue. XDP writes record number
 * prod, leaves its number in front of the frame (struct gn_tag), then counts prod; it
 * runs on one CPU at a time per queue, which is so in native mode only (the loader sets
 * GN_CONFIG_STREAM there). A frame that is lost behind the program (full RX ring) leaves
 * a record that no frame names, but that those behind it may continue.
 *
 * XDP never runs more than GN_STREAM_ROOM ahead of cons, which the daemon moves. When it
 * would, struct gn_meta goes into the frame, and the tag, FULL, tells prod: everything
 * before it belongs to frames before this one, so the daemon, which has taken those, sets
 * cons to it. Nothing else would move cons when all the records are of lost frames.
 *
 * A reader that finds number next + n - 1 in the tag of the last of n < GN_STREAM_GAP
 * frames knows that they have the numbers from next on, and need not look at the other
 * tags: numbers rise by at least one per frame, and by GN_STREAM_GAP over frames that
 * have none.
 *
 * Ordering: the record is written before the frame's descriptor is, on the same CPU, and
 * the kernel publishes descriptors with a release that the reader of the RX ring
 * acquires. The daemon's release of cons pairs with XDP's use of it: records from
 * cons - GN_STREAM_EVERY on are not overwritten.
 */
struct gn_stream {
	/* XDP's, but that a daemon begins at prod: */
	__u32 prod;	 /* records written, free running */
	__u32 gap;	 /* numbers to skip before the next one */
	__u32 cons_seen; /* cons, when XDP last had to look */
	__u32 next_seq;	 /* of record prod - 1: seq + payload_len */
	__u64 last_key;	 /* of record prod - 1; 0: nothing continues it */
	__u16 last_id;	 /* of record prod - 1: ip_id */
	__u16 whole;	 /* entry of rec[] to use next */
	__u16 pad0[18];
	__u32 cons; /* daemon: records before this one are done with */
	__u32 pad1[15];
	struct gn_next next[GN_STREAM_SIZE];
	struct gn_meta rec[GN_STREAM_SIZE];
};

#define GN_STREAM_ROOM (GN_STREAM_SIZE - GN_STREAM_EVERY)

/* In the metadata area, ending where the frame begins. */
struct gn_tag {
	__u16 magic; /* GN_META_MAGIC_STREAM or GN_META_MAGIC_FULL */
	__u16 pad;
	__u32 seq; /* STREAM: number of the record, rec[seq % GN_STREAM_SIZE];
		    * FULL: prod */
};

/* Key of map "instances". Zero before use. */
struct gn_instance_key {
	__u8 mac[6];
	__be16 vlan; /* VLAN identifier without PCP and DEI; 0: untagged */
};

/* gn_instance.flags: what the instance's port takes as one GSO frame, and */
#define GN_INSTANCE_TSO4 (1U << 0)
#define GN_INSTANCE_TSO6 (1U << 1)
#define GN_INSTANCE_USO	 (1U << 2)
/* The worker reads every payload anyway: it verifies them, GN_CONFIG_VERIFY or not. */
#define GN_INSTANCE_READS (1U << 3)
/* A DMA log of the instance is on, or about to be: its frames get GN_F_LOGGED, which is
 * the same bit, so that it is copied without a question. */
#define GN_INSTANCE_LOGGED GN_F_LOGGED

/* Value of map "instances". */
struct gn_instance {
	__u16 id;    /* GN_INSTANCE_INDEX() is the slot; the bits
		      * above are a generation, so that a frame for
		      * a removed instance never reaches its successor */
	__u16 flags; /* GN_INSTANCE_* */
};

/*
 * The one entry of map "config", which is mmapable; written by the loader before attach.
 *
 * Each CPU remembers instances that it found in map "instances" together with the
 * generation it read before it looked. So the daemon adds one to generation, by itself
 * and through a mapping, so that the loader's fields are not touched, after each change
 * of that map. As long as it is 0, nothing is remembered.
 */
struct gn_config {
	__u32 abi;	   /* GN_ABI */
	__u32 max_frame;   /* longest frame taken: MTU + 22, bytes */
	__u64 hash_key[2]; /* secret of the flow identifiers */
	__u32 flags;	   /* GN_CONFIG_* */
	__u32 generation;  /* of map "instances", by the daemon; 0: not kept */
};

#define GN_CONFIG_INBAND (1U << 0) /* never use the metadata area */
#define GN_CONFIG_STREAM (1U << 1) /* write records to map "stream" */
#define GN_CONFIG_VERIFY (1U << 2) /* sum payloads that may merge; by the daemon */

/*
 * Outcomes: X(name, meaning). Map "counters" is a per-CPU array with one entry,
 * struct gn_counters, so that the program looks it up once per frame. Every frame
 * that enters the program counts in RX and in exactly one of the outcomes below it,
 * up to and including DROP_META; the rest are details.
 */
#define GN_COUNTERS(X)                                                                   \
	X(RX, "rx", "frames seen")                                                       \
	X(REDIRECT, "redirect", "frames handed to AF_XDP")                               \
	X(PASS_OTHER, "pass_other", "frames for the host: no instance has the address")  \
	X(PASS_MULTICAST, "pass_multicast",                                              \
	  "broadcast and multicast, to the host and by it to the instances")             \
	X(PASS_NO_SOCKET, "pass_no_socket",                                              \
	  "instance frames given to the host: no AF_XDP socket on the queue")            \
	X(PASS_OVERSIZE, "pass_oversize",                                                \
	  "instance frames given to the host: longer than the MTU")                      \
	X(PASS_MALFORMED, "pass_malformed",                                              \
	  "frames given to the host: shorter than an Ethernet header with its VLAN tag") \
	X(DROP_META, "drop_meta",                                                        \
	  "instance frames dropped: no room for metadata, not even in the frame")        \
	X(REDIRECT_BYTES, "redirect_bytes", "bytes handed to AF_XDP")                    \
	X(ALONE, "alone", "redirected frames that never merge")                          \
	X(ALONE_MALFORMED, "alone_malformed",                                            \
	  "of these: truncated or inconsistent IP, TCP or UDP header")                   \
	X(ALONE_FRAGMENT, "alone_fragment", "of these: IP fragments")                    \
	X(ALONE_IP_OPTIONS, "alone_ip_options",                                          \
	  "of these: IPv4 options, or IPv6 extension headers that are long or change "   \
	  "an address")                                                                  \
	X(ALONE_IP_CSUM, "alone_ip_csum", "of these: bad IPv4 header checksum")          \
	X(ALONE_TCP_FLAGS, "alone_tcp_flags",                                            \
	  "of these: SYN, RST, URG, or CWR with PSH or FIN")                             \
	X(ALONE_TCP_EMPTY, "alone_tcp_empty", "of these: TCP without payload")           \
	X(INBAND, "inband", "redirected frames with metadata inside the frame")

enum gn_counter {
#define GN_COUNTER_ENUM(id, name, help) GN_CNT_##id,
	GN_COUNTERS(GN_COUNTER_ENUM)
#undef GN_COUNTER_ENUM
		GN_CNT_MAX
};

/* Value of map "counters", indexed by enum gn_counter. */
struct gn_counters {
	__u64 v[GN_CNT_MAX];
};

_Static_assert(sizeof(struct gn_meta) == GN_META_SIZE, "gn_meta ABI");
_Static_assert(__builtin_offsetof(struct gn_meta, key) == 8, "gn_meta ABI");
_Static_assert(__builtin_offsetof(struct gn_meta, payload_sum) == 24, "gn_meta ABI");
_Static_assert(__builtin_offsetof(struct gn_meta, class) == 31, "gn_meta ABI");
_Static_assert(sizeof(struct gn_tag) == 8, "gn_tag ABI");
_Static_assert(__builtin_offsetof(struct gn_stream, cons) == 64, "gn_stream ABI");
_Static_assert(__builtin_offsetof(struct gn_stream, next) == 128, "gn_stream ABI");
_Static_assert(sizeof(struct gn_next) == 8, "gn_next ABI");
_Static_assert(sizeof(struct gn_instance_key) == 8, "gn_instance_key ABI");
_Static_assert(sizeof(struct gn_instance) == 4, "gn_instance ABI");
_Static_assert(sizeof(struct gn_config) == 32, "gn_config ABI");
_Static_assert(__builtin_offsetof(struct gn_config, hash_key) == 8, "gn_config ABI");
_Static_assert(__builtin_offsetof(struct gn_config, generation) == 28, "gn_config ABI");

#endif
