// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp [1] pages: take blocks from the page allocator, return them.
 *
 * Theory of operation
 *
 * Blocks are taken in stages, each tried until it has nothing more to give:
 *
 *   FREE     blocks that are free now, from the node that has most of them, so
 *            that no node is emptied before the others. Nothing is reclaimed,
 *            nothing is woken, a failure costs next to nothing.
 *   UNUSED,  blocks that are in use, or that the allocator does not hand out,
 *   CLEAN,   are emptied, see contig.c. Blocks larger than what it ever hands
 *   MOVE     out (1 GiB, where the host backs the guest with pages of that size)
 *            are only to be had by MOVE.
 *   COMPACT  the allocator may compact memory, and gives up easily. It never
 *            reclaims, kills or touches its reserves.
 *
 * The order of these stages, the rungs of a ladder, is the business of ladder.c.
 *
 * When nodes have targets of their own a pass is for one node, in all stages.
 *
 * Before each batch the guest's own need is looked at (need.c): what is left
 * when the batch is gone must not be less than its floor. Before that ends the
 * pass, processors are made to give up the free pages that they keep.
 *
 * Blocks come from where movable memory comes from, although they cannot be
 * migrated: they are whole pageblocks, so they mix with nothing, while asking
 * for unmovable memory would turn one pageblock after the other unmovable, for
 * good, and would begin with those that the guest has never used and that cost
 * the host nothing. ZONE_MOVABLE is no exception: what it is for, memory that
 * can go offline, is kept by hotplug.c, which gives blocks back before; and in
 * a guest whose plugged memory is all there, nothing else could be given up. CMA
 * areas are: nobody asks us before a driver allocates from one.
 *
 * They are plain pages of high order, not compound ones, because only then
 * every page of them can carry PageOffline.
 *
 * Invariants
 *  - A block is in exactly one place: the allocator, a pool, or a slot.
 *  - Blocks in a pool, or in a slot that has been sent, are not counted as
 *    managed, and marked PageOffline, all but those that have just been sent:
 *    the mark costs a write to each struct page, as much as everything else
 *    together, so flow.c sets it later.
 *
 * Rejected: order-10 blocks that are split. They halve the number of
 * allocations, but split pages go back to the allocator one by one, which
 * costs 40 times what returning the blocks whole does.
 */
#include <linux/gfp.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>

#include "balloon_hp.h"
#include "trace.h"

/*
 * Contents are given up: no __GFP_ZERO, and where the kernel lets us say so
 * (patches/) no clearing for init_on_alloc=1 either. No reserves, no OOM killer.
 * hpb_movable() adds what leads to movable pageblocks and to ZONE_MOVABLE.
 */
#define HPB_GFP_FREE	(__GFP_NOWARN | __GFP_NOMEMALLOC | __GFP_NORETRY | \
			 __GFP_THISNODE | __GFP_SKIP_ZERO)
/* IO, or nothing is compacted; hpb_alloc() sees to it that there is none. */
#define HPB_GFP_COMPACT	(__GFP_DIRECT_RECLAIM | __GFP_IO | __GFP_FS | \
			 __GFP_NOWARN | __GFP_NOMEMALLOC | __GFP_NORETRY | \
			 __GFP_SKIP_ZERO)

unsigned long hpb_node_free_blocks(int nid, unsigned int order)
{
	unsigned long blocks = 0;
	unsigned int zid, o;

	for (zid = 0; zid < MAX_NR_ZONES; zid++) {
		struct zone *zone = &NODE_DATA(nid)->node_zones[zid];

		if (!populated_zone(zone))
			continue;
		for (o = order; o <= HPB_MAX_ORDER; o++)
			blocks += READ_ONCE(zone->free_area[o].nr_free) <<
				  (o - order);
	}
	return blocks;
}

static int hpb_fullest_node(struct hpb *bh, const struct hpb_take *take)
{
	unsigned long n, most = 0;
	int nid, best = NUMA_NO_NODE;

	for_each_node_state(nid, N_MEMORY) {
		if (take->nid != NUMA_NO_NODE && take->nid != nid)
			continue;

		n = hpb_node_free_blocks(nid, bh->order);
		if (n > most && !node_isset(nid, take->empty)) {
			most = n;
			best = nid;
		}
	}
	return best;
}

/*
 * The flags that make the allocator look in ZONE_MOVABLE and in movable
 * pageblocks first. It would look in CMA areas too, and a module cannot tell
 * whether a block is from one, so a guest that has CMA areas does without.
 */
static gfp_t hpb_movable(void)
{
#ifdef CONFIG_CMA
	int nid, zid;

	for_each_node_state(nid, N_MEMORY)
		for (zid = 0; zid < MAX_NR_ZONES; zid++)
			if (zone_cma_pages(&NODE_DATA(nid)->node_zones[zid]))
				return 0;
#endif
	return __GFP_HIGHMEM | __GFP_MOVABLE;
}

/* Whether the page allocator clears what it hands out, whatever we ask for. */
static bool hpb_cleared(void)
{
	return !__GFP_SKIP_ZERO && !want_init_on_free() &&
	       want_init_on_alloc(HPB_GFP_FREE);
}

static struct page *hpb_alloc(struct hpb *bh, struct hpb_take *take, int nid,
			      gfp_t gfp)
{
	struct page *page;
	unsigned int flags;

	if (take->rung == HPB_RUNG_FREE)
		return alloc_pages_node(nid, gfp | HPB_GFP_FREE, bh->order);
	gfp |= HPB_GFP_COMPACT;
	/* Who reclaims already does not reclaim again, but may still compact. */
	flags = memalloc_noreclaim_save();
	if (take->nid == NUMA_NO_NODE)
		page = alloc_pages(gfp, bh->order);
	else
		page = alloc_pages_node(take->nid, gfp | __GFP_THISNODE, bh->order);
	memalloc_noreclaim_restore(flags);
	return page;
}

static void hpb_free(struct hpb *bh, struct page *page)
{
	if (bh->order > HPB_MAX_ORDER)
		hpb_contig_free(bh, page);
	else
		__free_pages(page, bh->order);
}

/* Whether a rung may have more although it has just given nothing. */
static bool hpb_more(struct hpb *bh, const struct hpb_take *take)
{
	return take->rung == HPB_RUNG_FREE &&
	       hpb_fullest_node(bh, take) != NUMA_NO_NODE;
}

static void hpb_climb(struct hpb *bh, struct hpb_take *take)
{
	take->rung = hpb_ladder_next(take->rung, bh->order > HPB_MAX_ORDER,
				     hpb_need_is_loan(bh->reclaim));
	take->scanned = false;
	hpb_choice_begin(&bh->choice);
}

/* Blocks from one node (FREE) or anywhere; none: the rung has no more. */
static unsigned long hpb_take_stage(struct hpb *bh, struct hpb_take *take,
				    struct hpb_slot *slot, unsigned long want)
{
	const gfp_t gfp = hpb_movable();
	int nid = NUMA_NO_NODE;
	unsigned long got = 0;

	want = hpb_ladder_batch(take->rung, bh->order > HPB_MAX_ORDER, want);
	if (hpb_ladder_empties(take->rung))
		return hpb_contig_take(bh, take, slot, want);
	if (take->rung == HPB_RUNG_FREE) {
		nid = hpb_fullest_node(bh, take);
		if (nid == NUMA_NO_NODE)
			return 0;
		if (hpb_cleared())
			want = min_t(unsigned long, want, HPB_CLEARED_BATCH);
	}

	/* One entry more may be needed by each block. */
	while (got < want && slot->nr < hpb_slot_cap(bh, slot)) {
		struct page *page = hpb_alloc(bh, take, nid, gfp);

		if (!page) {
			if (take->rung == HPB_RUNG_FREE)
				node_set(nid, take->empty);
			break;
		}
		slot->nr = hpb_ranges_add(slot->ranges, slot->nr, bh->max_range,
					  hpb_page_block(bh, page));
		got++;
		cond_resched();
	}
	return got;
}

void hpb_take_begin(struct hpb *bh, struct hpb_take *take, int nid, int seen)
{
	*take = (struct hpb_take) {
		.rung = hpb_ladder_first(bh->order > HPB_MAX_ORDER,
					 hpb_need_is_loan(bh->reclaim)),
		.nid = nid,
		.seen = seen,
	};
	hpb_choice_begin(&bh->choice);
}

unsigned long hpb_take_blocks(struct hpb *bh, struct hpb_take *take,
			      struct hpb_slot *slot, unsigned long want,
			      enum hpb_stop *why)
{
	unsigned long spare = hpb_spare_blocks(bh, why);
	unsigned long got = 0;

	lockdep_assert_held(&bh->op);
	slot->nr = 0;
	if (spare < want) {
		hpb_contig_flush(bh, take, spare);
		spare = hpb_spare_blocks(bh, why);
	}
	want = min(want, spare);
	while (want && take->rung != HPB_RUNG_NONE) {
		/* What follows may take long, and must not keep anybody out. */
		if (take->rung != HPB_RUNG_FREE)
			hpb_mark_all(bh);
		got = hpb_take_stage(bh, take, slot, want);
		if (got || hpb_interrupted(bh, take->seen))
			break;
		if (!hpb_more(bh, take))
			hpb_climb(bh, take);
	}
	if (want && !got)
		*why = take->kept ? HPB_STOP_RECLAIM : HPB_STOP_NO_BLOCKS;

	slot->blocks = got;
	slot->nr = hpb_ranges_merge(slot->ranges, slot->nr, bh->max_range);
	trace_hpb_taken(bh->vdev->index, slot->nr, (u64)got << bh->shift);
	return got;
}

/*
 * With DEFLATE_ON_OOM the balloon is memory the guest can have when it needs
 * it, and stays in the totals that user space sizes itself by, as with the
 * traditional balloon.
 */
static void hpb_account(struct hpb *bh, struct page *page, bool there)
{
	long pages = 1L << bh->order;

	if (!virtio_has_feature(bh->vdev, VIRTIO_BALLOON_HP_F_DEFLATE_ON_OOM))
		adjust_managed_page_count(page, there ? pages : -pages);
}

void hpb_unmanage(struct hpb *bh, const struct hpb_range *r, unsigned int nr)
{
	unsigned int i;
	u32 b;

	for (i = 0; i < nr; i++)
		for (b = 0; b < r[i].count; b++)
			hpb_account(bh, hpb_block_page(bh, r[i].first + b), false);
}

void hpb_mark(struct hpb *bh, struct hpb_range run)
{
	u32 b, p;

	for (b = 0; b < run.count; b++) {
		struct page *page = hpb_block_page(bh, run.first + b);

		/* All pages of a block are marked, or none is. */
		if (!PageOffline(page))
			for (p = 0; p < 1U << bh->order; p++)
				__SetPageOffline(page + p);
		cond_resched();
	}
}

void hpb_return(struct hpb *bh, struct hpb_range run)
{
	u32 b, p;

	for (b = 0; b < run.count; b++) {
		struct page *page = hpb_block_page(bh, run.first + b);

		if (PageOffline(page))
			for (p = 0; p < 1U << bh->order; p++)
				__ClearPageOffline(page + p);
		hpb_account(bh, page, true);
		hpb_free(bh, page);
		cond_resched();
	}
	trace_hpb_returned(bh->vdev->index, 1, (u64)run.count << bh->shift);
}

void hpb_return_bare(struct hpb *bh, struct hpb_range run)
{
	u32 b;

	for (b = 0; b < run.count; b++)
		hpb_free(bh, hpb_block_page(bh, run.first + b));
	trace_hpb_returned(bh->vdev->index, 1, (u64)run.count << bh->shift);
}

void hpb_return_pool(struct hpb *bh, struct hpb_pool *pool)
{
	struct hpb_range run;
	unsigned int nr;

	for (;;) {
		nr = 0;
		spin_lock(&bh->lock);
		hpb_pool_get(bh, pool, HPB_ANYWHERE, &run, 1, &nr, ULONG_MAX);
		spin_unlock(&bh->lock);
		if (!nr)
			break;
		hpb_return(bh, run);
	}
}
