/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * virtio-balloon-hp wire format: the huge-page-aware memory balloon (virtio
 * device ID 13).
 *
 * This header is the one definition of everything that crosses the boundary
 * between driver and device. The guest driver, the QEMU device and the tests
 * use it unchanged; virtio-balloon-hp.rst beside it is the text that goes with it.
 *
 * All fields are little-endian. Addresses are guest-physical. Sizes are bytes
 * unless a comment says "units"; a unit is virtio_balloon_hp_config.unit bytes.
 */
#ifndef VIRTIO_BALLOON_HP_H
#define VIRTIO_BALLOON_HP_H

#include <linux/types.h>

/*
 * Device ID: "memory balloon", reserved by the virtio standard for a
 * redesigned balloon. The traditional balloon has ID 5.
 */
#define VIRTIO_BALLOON_HP_DEVICE_ID		13

/*
 * Feature bits. Bits that the traditional balloon defines keep its meaning
 * here or stay unused (0 MUST_TELL_HOST, 3 FREE_PAGE_HINT, 4 PAGE_POISON).
 */
#define VIRTIO_BALLOON_HP_F_STATS		1 /* statistics queue exists */
#define VIRTIO_BALLOON_HP_F_DEFLATE_ON_OOM	2 /* driver deflates under memory pressure */
#define VIRTIO_BALLOON_HP_F_REPORTING		5 /* reporting queue exists */
#define VIRTIO_BALLOON_HP_F_NODES		6 /* configuration has NUMA nodes */
#define VIRTIO_BALLOON_HP_F_STATE		7 /* driver says how it stands */
#define VIRTIO_BALLOON_HP_F_RECLAIM		8 /* device says what may be reclaimed */

/*
 * Virtqueues. A queue's index does not depend on the features negotiated; a
 * queue whose feature was not negotiated exists but must not be used.
 */
#define VIRTIO_BALLOON_HP_VQ_INFLATE		0
#define VIRTIO_BALLOON_HP_VQ_DEFLATE		1
#define VIRTIO_BALLOON_HP_VQ_STATS		2
#define VIRTIO_BALLOON_HP_VQ_REPORTING		3
#define VIRTIO_BALLOON_HP_VQ_MAX		4

/*
 * Device configuration space. Every field is read-only for the driver.
 * "dynamic" fields change while the device runs, with a configuration change
 * interrupt (requested, reclaim, cache_floor) or without one (actual); all
 * others are constant from FEATURES_OK until reset.
 */
struct virtio_balloon_hp_config {
	/* dynamic: bytes the device asks the driver to have out; multiple of unit */
	__le64 requested;
	/* dynamic: bytes that are out, by the device's own count; multiple of unit */
	__le64 actual;
	/* range size that the memory behind the guest is best given up in: a
	 * power of two, multiple of unit (the huge page size of the backing) */
	__le64 preferred;
	/* smallest range size: a power of two, at least 4096. Addresses and
	 * lengths of all ranges are multiples of it */
	__le64 unit;
	/* most descriptors with range bytes that one request may have */
	__le32 max_ranges;
	/* entries of struct virtio_balloon_hp_node that follow; zero without
	 * VIRTIO_BALLOON_HP_F_NODES */
	__le32 nr_nodes;
	/* dynamic: VIRTIO_BALLOON_HP_RECLAIM_*, what the driver may take; zero
	 * without VIRTIO_BALLOON_HP_F_RECLAIM */
	__le32 reclaim;
	__le32 reserved;
	/* dynamic: bytes of page cache that stay with the guest; zero without
	 * VIRTIO_BALLOON_HP_F_RECLAIM */
	__le64 cache_floor;
};

/* virtio_balloon_hp_config.reclaim */
#define VIRTIO_BALLOON_HP_RECLAIM_FREE		0 /* memory that is free */
#define VIRTIO_BALLOON_HP_RECLAIM_CLEAN		1 /* also clean page cache, down to cache_floor */
#define VIRTIO_BALLOON_HP_RECLAIM_LEND_FREE	2 /* for a short time: what is free, as it is */
#define VIRTIO_BALLOON_HP_RECLAIM_LEND_CLEAN	3 /* for a short time: also clean page cache */

/* virtio_balloon_hp_node.requested: the node has no target of its own */
#define VIRTIO_BALLOON_HP_NODE_ANY		(~0ULL)

/*
 * One NUMA node of the guest, behind struct virtio_balloon_hp_config: entry k
 * is proximity domain k of the firmware's tables (ACPI SRAT). Either every node
 * has a target of its own, and config.requested is their sum, or none has.
 */
struct virtio_balloon_hp_node {
	/* dynamic: bytes to have out of this node; multiple of unit, or
	 * VIRTIO_BALLOON_HP_NODE_ANY */
	__le64 requested;
	/* dynamic: bytes of this node that are out; multiple of unit */
	__le64 actual;
};

/* Request types: virtio_balloon_hp_req.type */
#define VIRTIO_BALLOON_HP_REQ_INFLATE		1 /* inflate queue: driver gives ranges up */
#define VIRTIO_BALLOON_HP_REQ_DEFLATE		2 /* deflate queue: driver asks for ranges back */
#define VIRTIO_BALLOON_HP_REQ_REPORT		3 /* reporting queue: ranges are free, contents dropped */
#define VIRTIO_BALLOON_HP_REQ_STATE		4 /* inflate queue: no ranges, struct virtio_balloon_hp_state */

/*
 * A request is one descriptor chain:
 *
 *   device-readable:  struct virtio_balloon_hp_req
 *                     VIRTIO_BALLOON_HP_REQ_STATE: struct virtio_balloon_hp_state
 *   device-writable:  response, resp_size bytes:
 *                       struct virtio_balloon_hp_resp, then room for
 *                       struct virtio_balloon_hp_exception entries
 *                     ranges, size bytes: the memory itself
 *
 * The device writes only into the response, so that the used length covers
 * only the response and no page of a range is ever marked dirty.
 */
struct virtio_balloon_hp_req {
	__le16 type;		/* VIRTIO_BALLOON_HP_REQ_* */
	__le16 flags;		/* zero */
	__le32 resp_size;	/* bytes of the device-writable part that are response */
	__le64 size;		/* bytes of the device-writable part that are ranges */
};

/*
 * Why the driver has less out than config.requested, or nothing more to do.
 * The device shows it to operators and decides nothing by it.
 */
#define VIRTIO_BALLOON_HP_STOP_NONE		0 /* all is out, or work is under way */
#define VIRTIO_BALLOON_HP_STOP_FRAGMENTED	1 /* no more memory in whole ranges */
#define VIRTIO_BALLOON_HP_STOP_FLOOR		2 /* the guest needs the rest */
#define VIRTIO_BALLOON_HP_STOP_RECLAIM		3 /* the rest is page cache, which config.reclaim and cache_floor keep */
#define VIRTIO_BALLOON_HP_STOP_PRESSURE		4 /* the guest ran short of memory a moment ago */
#define VIRTIO_BALLOON_HP_STOP_REFUSED		5 /* the device refuses, for good */
#define VIRTIO_BALLOON_HP_STOP_HOST		6 /* the device is busy or failed */
#define VIRTIO_BALLOON_HP_STOP_NOMEM		7 /* deflate: the host has no memory */

/* Payload of VIRTIO_BALLOON_HP_REQ_STATE, device-readable, behind the header. */
struct virtio_balloon_hp_state {
	__le16 stop;		/* VIRTIO_BALLOON_HP_STOP_* */
	__le16 reserved[3];	/* zero */
	__le64 requested;	/* config.requested that this is about */
	__le64 available;	/* bytes the guest can use without swapping */
	__le64 wanted;		/* bytes the guest would like back, 0: none */
};

/*
 * Outcome of a whole request (resp.status) or of a run of units
 * (exception.status). Retry advice:
 *   never: DENIED, INVAL, NOT_RAM, ALREADY_OUT, NOT_OUT, OVERLAP, UNSUPP;
 *   later: NOMEM, BUSY, IO;   at once: AGAIN.
 */
#define VIRTIO_BALLOON_HP_OK			0 /* done */
#define VIRTIO_BALLOON_HP_PARTIAL		1 /* resp.status only: some units done, see exceptions */
#define VIRTIO_BALLOON_HP_INVAL			2 /* malformed: alignment, length, sizes, flags */
#define VIRTIO_BALLOON_HP_NOT_RAM		3 /* not memory that this device can take or give */
#define VIRTIO_BALLOON_HP_ALREADY_OUT		4 /* inflate or report of a unit that is out */
#define VIRTIO_BALLOON_HP_NOT_OUT		5 /* deflate of a unit that is not out */
#define VIRTIO_BALLOON_HP_OVERLAP		6 /* unit is in an unanswered request, or twice in this one */
#define VIRTIO_BALLOON_HP_NOMEM			7 /* deflate: host cannot provide the memory now */
#define VIRTIO_BALLOON_HP_DENIED		8 /* host does not let this memory go */
#define VIRTIO_BALLOON_HP_BUSY			9 /* host cannot do it in its present state */
#define VIRTIO_BALLOON_HP_IO			10 /* host failed; contents of the unit are lost, unit stays where it was */
#define VIRTIO_BALLOON_HP_AGAIN			11 /* not looked at (no room for exceptions, reset under way) */
#define VIRTIO_BALLOON_HP_UNSUPP		12 /* request type unknown or on the wrong queue */

/* virtio_balloon_hp_resp.flags */
/* every byte of every unit done reads as zero when the driver next reads it
 * (deflate: at the answer; report: until the driver writes to it) */
#define VIRTIO_BALLOON_HP_RESP_F_ZEROED		(1 << 0)

/*
 * Response. Units are numbered in the order in which their bytes stand in the
 * request, from 0; how the bytes are cut into descriptors does not matter.
 * Every unit that no exception names was done, if status is OK or PARTIAL;
 * with any other status no unit was done and nr_exceptions may be 0, in which
 * case status holds for all of them.
 */
struct virtio_balloon_hp_resp {
	__le16 status;		/* VIRTIO_BALLOON_HP_* */
	__le16 flags;		/* VIRTIO_BALLOON_HP_RESP_F_* */
	__le32 nr_exceptions;	/* entries that follow */
	__le64 done;		/* bytes done */
};

/* A run of units with the same outcome other than OK, ascending, disjoint. */
struct virtio_balloon_hp_exception {
	__le32 first;		/* number of the first unit */
	__le32 count;		/* units, at least 1 */
	__le16 status;		/* VIRTIO_BALLOON_HP_*, neither OK nor PARTIAL */
	__le16 reserved[3];	/* zero */
};

/* Smallest resp_size: a response and two exceptions (one reason, then AGAIN). */
#define VIRTIO_BALLOON_HP_RESP_SIZE_MIN		48

/*
 * Statistics queue: the driver makes one device-readable buffer of these
 * available; the device returns it to ask for new ones. Tags below 0x100 are
 * those of the traditional balloon. Unknown tags are ignored by the device.
 */
struct virtio_balloon_hp_stat {
	__le16 tag;		/* VIRTIO_BALLOON_HP_STAT_* */
	__le16 reserved[3];	/* zero */
	__le64 val;
};

#define VIRTIO_BALLOON_HP_STAT_SWAP_IN		0 /* bytes swapped in */
#define VIRTIO_BALLOON_HP_STAT_SWAP_OUT		1 /* bytes swapped out */
#define VIRTIO_BALLOON_HP_STAT_MAJFLT		2 /* major faults */
#define VIRTIO_BALLOON_HP_STAT_MINFLT		3 /* minor faults */
#define VIRTIO_BALLOON_HP_STAT_MEMFREE		4 /* free bytes */
#define VIRTIO_BALLOON_HP_STAT_MEMTOT		5 /* bytes the guest manages */
#define VIRTIO_BALLOON_HP_STAT_AVAIL		6 /* bytes available without swapping */
#define VIRTIO_BALLOON_HP_STAT_CACHES		7 /* bytes of page cache */
#define VIRTIO_BALLOON_HP_STAT_HTLB_PGALLOC	8 /* hugetlb allocations */
#define VIRTIO_BALLOON_HP_STAT_HTLB_PGFAIL	9 /* hugetlb allocations failed */
#define VIRTIO_BALLOON_HP_STAT_OOM_KILL		10 /* OOM kills */
#define VIRTIO_BALLOON_HP_STAT_ALLOC_STALL	11 /* allocations that stalled */
#define VIRTIO_BALLOON_HP_STAT_ASYNC_SCAN	12 /* bytes scanned by background reclaim */
#define VIRTIO_BALLOON_HP_STAT_DIRECT_SCAN	13 /* bytes scanned by direct reclaim */
#define VIRTIO_BALLOON_HP_STAT_ASYNC_RECLAIM	14 /* bytes reclaimed in the background */
#define VIRTIO_BALLOON_HP_STAT_DIRECT_RECLAIM	15 /* bytes reclaimed directly */
/* free ranges of config.preferred bytes, as far as the guest can count them */
#define VIRTIO_BALLOON_HP_STAT_FREE_RANGES	0x100
#define VIRTIO_BALLOON_HP_STAT_REFAULTS		0x101 /* bytes read or swapped in again soon after they were reclaimed */

#endif /* VIRTIO_BALLOON_HP_H */
