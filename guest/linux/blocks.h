/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-balloon-hp [1]: blocks, where they are kept and where they come from.
 *
 * A block is what the driver moves: naturally aligned memory of the size that
 * the device prefers, 2 MiB as a rule. Blocks are numbered by their address.
 */
#ifndef HPB_BLOCKS_H
#define HPB_BLOCKS_H

#include <linux/list.h>
#include <linux/nodemask.h>
#include <linux/numa.h>
#include <linux/types.h>

#include "ladder.h"
#include "ranges.h"

struct hpb;
struct hpb_slot;
struct page;

/**
 * struct hpb_where - a part of memory
 * @start: first block
 * @end:   first block behind it
 * @nid:   node, NUMA_NO_NODE: all
 */
struct hpb_where {
	u64 start;
	u64 end;
	int nid;
};

#define HPB_ANYWHERE	(&(const struct hpb_where) {		\
				.end = U64_MAX, .nid = NUMA_NO_NODE })

/**
 * struct hpb_pool - blocks that belong to the driver
 * @runs: first pages of runs, linked by page->lru, page->private is the number
 *        of blocks
 * @blocks: blocks in all runs
 *
 * Protected by hpb.lock.
 */
struct hpb_pool {
	struct list_head runs;
	unsigned long blocks;
};

/**
 * struct hpb_take - how far a pass has gone in looking for blocks
 * @rung:  where the next block is looked for, see ladder.c
 * @nid:   node they have to come from, NUMA_NO_NODE: any
 * @seen:  value of hpb.kicks at which to go on
 * @empty: nodes found without free blocks
 * @scanned: memory has been looked at for this rung
 * @after: what a scan chooses comes after this block
 * @fails: blocks that could not be emptied
 * @kept: there are blocks whose page cache is to stay
 */
struct hpb_take {
	enum hpb_rung rung;
	int nid;
	int seen;
	nodemask_t empty;
	bool scanned;
	struct hpb_candidate after;
	unsigned int fails;
	bool kept;
};

/* Why the balloon is not as large (or small) as asked. */
enum hpb_stop {
	HPB_STOP_NONE,		/* it is, or work is under way */
	HPB_STOP_NO_BLOCKS,	/* the page allocator has no more blocks */
	HPB_STOP_FLOOR,		/* the guest needs the rest, see need.c */
	HPB_STOP_RECLAIM,	/* the rest is page cache that is to stay */
	HPB_STOP_REFUSED,	/* the host does not let this memory go */
	HPB_STOP_HOST,		/* the host is busy or failed, may work later */
	HPB_STOP_NOMEM,		/* the host has no memory to give back now */
	HPB_STOP_OOM,		/* the guest ran out of memory a moment ago */
	HPB_STOP_DEVICE,	/* the device is broken or cannot be served */
};

/* pool.c */

void hpb_pool_init(struct hpb_pool *pool);

/**
 * hpb_pool_put() - add a run to a pool
 * @bh:   balloon; @bh->lock is held
 * @pool: pool
 * @run:  blocks, owned by the driver and in no pool
 *
 * A run in a pool lies on one node, so that it can be found by its node.
 */
void hpb_pool_put(struct hpb *bh, struct hpb_pool *pool, struct hpb_range run);

/**
 * hpb_pool_get() - move blocks from a pool into an array of ranges
 * @bh:    balloon; @bh->lock is held
 * @pool:  pool
 * @where: the part of memory they are to come from
 * @r:     array
 * @cap:   entries in it
 * @nr:    entries in use
 * @max:   blocks wanted
 *
 * Return: blocks moved; @nr is updated.
 */
unsigned long hpb_pool_get(struct hpb *bh, struct hpb_pool *pool,
			   const struct hpb_where *where, struct hpb_range *r, unsigned int cap,
			   unsigned int *nr, unsigned long max);

/* Blocks of a pool in a part of memory. @bh->lock is held. */
unsigned long hpb_pool_count(struct hpb *bh, const struct hpb_pool *pool,
			     const struct hpb_where *where);

/**
 * hpb_pool_move() - move everything from one pool to another
 * @bh:   balloon; @bh->lock is held
 * @to:   pool
 * @from: pool, empty afterwards
 */
void hpb_pool_move(struct hpb *bh, struct hpb_pool *to, struct hpb_pool *from);

/* pages.c */

/**
 * hpb_take_begin() - begin to look for blocks
 * @bh:   balloon; @bh->op is held
 * @take: progress of the pass
 * @nid:  node they have to come from, NUMA_NO_NODE: any
 * @seen: value of @bh->kicks at which to go on
 */
void hpb_take_begin(struct hpb *bh, struct hpb_take *take, int nid, int seen);

/**
 * hpb_take_blocks() - take blocks for one inflate request
 * @bh:   balloon; @bh->op is held
 * @take: progress of the pass, set up by hpb_take_begin()
 * @slot: gets the blocks, merged and sorted
 * @want: blocks wanted
 * @why:  set to the reason if none could be had
 *
 * Does not touch the floor of the guest, and never makes the allocator kill.
 *
 * Return: blocks taken.
 */
unsigned long hpb_take_blocks(struct hpb *bh, struct hpb_take *take,
			      struct hpb_slot *slot, unsigned long want,
			      enum hpb_stop *why);

/**
 * hpb_unmanage() - take blocks out of the count of managed memory
 * @bh: balloon
 * @r:  ranges
 * @nr: how many
 */
void hpb_unmanage(struct hpb *bh, const struct hpb_range *r, unsigned int nr);

/**
 * hpb_mark() - mark the pages of a run PageOffline
 * @bh:  balloon
 * @run: blocks; those that are marked are skipped
 *
 * Keeps dumps, hibernation and /proc/kcore away from the pages.
 */
void hpb_mark(struct hpb *bh, struct hpb_range run);

/**
 * hpb_return() - give blocks that are unmanaged back to the page allocator
 * @bh:  balloon; no spinlock is held
 * @run: blocks
 */
void hpb_return(struct hpb *bh, struct hpb_range run);

/**
 * hpb_return_bare() - give blocks that are still managed, and not marked, back
 * @bh:  balloon; no spinlock is held
 * @run: blocks
 */
void hpb_return_bare(struct hpb *bh, struct hpb_range run);

/**
 * hpb_return_pool() - give everything in a pool back to the page allocator
 * @bh:   balloon; no spinlock is held
 * @pool: pool
 */
void hpb_return_pool(struct hpb *bh, struct hpb_pool *pool);

/**
 * hpb_node_free_blocks() - free blocks of a node, as the allocator counts them
 * @nid:   node
 * @order: page order of a block
 *
 * Reads the counters without the zone lock: a hint, not a promise.
 */
unsigned long hpb_node_free_blocks(int nid, unsigned int order);

/* contig.c */

/**
 * hpb_contig_take() - empty blocks that are in use
 * @bh:   balloon; @bh->op is held
 * @take: progress of the pass, on a rung that empties
 * @slot: gets the blocks
 * @want: blocks wanted
 *
 * Return: blocks added to @slot; none: there are no more, or the pass is over.
 */
unsigned long hpb_contig_take(struct hpb *bh, struct hpb_take *take,
			      struct hpb_slot *slot, unsigned long want);

/**
 * hpb_contig_flush() - make processors give up the free pages they keep
 * @bh:    balloon; @bh->op is held
 * @take:  progress of the pass
 * @spare: blocks that can go before the guest is at its floor
 *
 * Nothing happens where hpb_ladder_flush() says that it is not worth it, or soon
 * after it was done for the same target.
 */
void hpb_contig_flush(struct hpb *bh, struct hpb_take *take,
		      unsigned long spare);

/* Give a large block from hpb_contig_take() back. */
void hpb_contig_free(struct hpb *bh, struct page *page);

#endif /* HPB_BLOCKS_H */
