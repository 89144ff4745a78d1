/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-balloon-hp: what the guest needs for itself; see need.c.
 */
#ifndef HPB_NEED_H
#define HPB_NEED_H

#include <linux/types.h>

#include "blocks.h"

struct hpb;

/**
 * struct hpb_reserve - free memory, and the kernel's watermarks of all zones
 * @free: bytes on the allocator's free lists
 * @min:  bytes below which only the kernel itself may allocate
 * @high: bytes up to which the kernel reclaims, once it does
 */
struct hpb_reserve {
	u64 free;
	u64 min;
	u64 high;
};

/**
 * hpb_need_floor() - memory that the balloon leaves available
 * @total:   bytes of the guest's memory
 * @mib:     absolute minimum, MiB
 * @percent: share of @total; more than 100 counts as 100
 *
 * Return: bytes, the larger of both.
 */
u64 hpb_need_floor(u64 total, unsigned int mib, unsigned int percent);

/**
 * hpb_need_spare() - bytes that can go before the guest is at its floor
 * @available: bytes the guest can use without swapping
 * @floor:     from hpb_need_floor()
 */
u64 hpb_need_spare(u64 available, u64 floor);

/**
 * hpb_need_relief() - bytes that the guest should get back
 * @available: bytes the guest can use without swapping
 * @floor:     from hpb_need_floor()
 *
 * Nothing until half of the floor is used up, then what is missing to it. So a
 * guest that was just shrunk to its floor does not ask for memory back, and
 * one that got some back is not shrunk again for it.
 *
 * Return: bytes, 0: the guest has what it needs.
 */
u64 hpb_need_relief(u64 available, u64 floor);

/**
 * hpb_need_available() - what counts against the floor
 * @available: MemAvailable of /proc/meminfo, bytes: what is above @reserve->high
 * @reserve:   free memory and watermarks
 * @loan:      from hpb_need_is_loan()
 *
 * Return: @available; for a loan also what is free between the lowest and the
 * highest watermark. It is there for as long as nobody needs it.
 */
u64 hpb_need_available(u64 available, const struct hpb_reserve *reserve,
		       bool loan);

/**
 * hpb_need_spendable() - bytes that can go before the guest is at its floor
 * @available: from hpb_need_available()
 * @droppable: page cache that may be dropped, bytes
 * @reserve:   free memory and watermarks
 * @loan:      from hpb_need_is_loan()
 * @floor:     from hpb_need_floor()
 *
 * Never so many that the kernel begins to reclaim.
 */
u64 hpb_need_spendable(u64 available, u64 droppable,
		       const struct hpb_reserve *reserve, bool loan, u64 floor);

/**
 * hpb_need_droppable() - page cache that may be dropped
 * @cache:       bytes of page cache on the LRU lists
 * @reclaim:     VIRTIO_BALLOON_HP_RECLAIM_*, unknown ones count as FREE
 * @cache_floor: bytes that stay
 */
u64 hpb_need_droppable(u64 cache, u32 reclaim, u64 cache_floor);

/**
 * hpb_need_is_loan() - whether memory is asked for a short time only
 * @reclaim: VIRTIO_BALLOON_HP_RECLAIM_*
 *
 * Then nothing is moved for it, and it goes back as soon as the guest is short
 * of memory, whether DEFLATE_ON_OOM is negotiated or not (DRV-27).
 */
bool hpb_need_is_loan(u32 reclaim);

/* Whether the driver may deflate by itself when the guest is short of memory. */
bool hpb_gives_back(struct hpb *bh);

/* The guest's floor now, bytes. */
u64 hpb_floor(struct hpb *bh);

/**
 * hpb_spare_blocks() - blocks that can go before the guest is at its floor
 * @bh:  balloon; @bh->op is held
 * @why: set to what it is that keeps the rest: FLOOR, or RECLAIM if it is page
 *       cache that the host wants to stay
 */
unsigned long hpb_spare_blocks(struct hpb *bh, enum hpb_stop *why);

/* Pages of clean page cache that may be dropped now. */
unsigned long hpb_droppable_pages(struct hpb *bh);

/* Bytes the guest is short of, as hpb_need_relief(). */
u64 hpb_shortage(struct hpb *bh);

/**
 * hpb_need_read() - read what the device lets us take
 * @bh: balloon; @bh->op is held
 *
 * Return: whether it has changed.
 */
bool hpb_need_read(struct hpb *bh);

/* The worker has looked at the shortage: the shrinker may report another. */
void hpb_need_looked(struct hpb *bh);

int hpb_need_init(struct hpb *bh);
void hpb_need_exit(struct hpb *bh);
/* Before and after a device reset. */
void hpb_need_stop(struct hpb *bh);

#endif /* HPB_NEED_H */
