// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp [1] pool: lists of blocks that belong to the driver.
 *
 * Theory of operation
 *
 * A pool is a list of runs of blocks. The list runs through the first struct
 * page of each run, which nobody else uses while the blocks are ours, so a pool
 * of any size needs no memory. Runs are found by address or by node; looking for
 * them is rare and takes time by the number of runs, few as they are merged.
 *
 * Invariants
 *  - A run lies on one node. On machines that interleave nodes in less than a
 *    run it counts for the node it begins on.
 *
 * Rejected: a tree by address. Deflating takes what comes first, and only memory
 * that goes offline is looked for by address.
 */
#include <linux/mm.h>

#include "balloon_hp.h"

void hpb_pool_init(struct hpb_pool *pool)
{
	INIT_LIST_HEAD(&pool->runs);
	pool->blocks = 0;
}

static void hpb_pool_add(struct hpb *bh, struct hpb_pool *pool,
			 struct hpb_range run, struct list_head *before)
{
	struct page *page = hpb_block_page(bh, run.first);

	set_page_private(page, run.count);
	list_add_tail(&page->lru, before);
	pool->blocks += run.count;
}

static struct hpb_range hpb_pool_del(struct hpb *bh, struct hpb_pool *pool,
				     struct page *page)
{
	struct hpb_range run = {
		.first = hpb_page_block(bh, page),
		.count = page_private(page),
	};

	list_del(&page->lru);
	set_page_private(page, 0);
	pool->blocks -= run.count;
	return run;
}

/* Blocks at the front of @run that are on one node. */
static u32 hpb_same_node(struct hpb *bh, const struct hpb_range *run)
{
	int nid = page_to_nid(hpb_block_page(bh, run->first));
	u32 n = 1;

	if (page_to_nid(hpb_block_page(bh, run->first + run->count - 1)) == nid)
		return run->count;
	while (page_to_nid(hpb_block_page(bh, run->first + n)) == nid)
		n++;
	return n;
}

void hpb_pool_put(struct hpb *bh, struct hpb_pool *pool, struct hpb_range run)
{
	lockdep_assert_held(&bh->lock);
	while (run.count)
		hpb_pool_add(bh, pool,
			     hpb_range_cut(&run, hpb_same_node(bh, &run)),
			     &pool->runs);
}

/* The part of the run at @page that is @where. */
static struct hpb_range hpb_pool_part(struct hpb *bh, struct page *page,
				      const struct hpb_where *where)
{
	struct hpb_range run = {
		.first = hpb_page_block(bh, page),
		.count = page_private(page),
	};

	if (where->nid != NUMA_NO_NODE && where->nid != page_to_nid(page))
		run.count = 0;
	return hpb_range_clip(&run, where->start, where->end);
}

unsigned long hpb_pool_get(struct hpb *bh, struct hpb_pool *pool,
			   const struct hpb_where *where, struct hpb_range *r,
			   unsigned int cap, unsigned int *nr,
			   unsigned long max)
{
	unsigned long moved = 0;
	struct page *page, *next;

	lockdep_assert_held(&bh->lock);
	list_for_each_entry_safe(page, next, &pool->runs, lru) {
		struct hpb_range part = hpb_pool_part(bh, page, where), run;

		if (*nr == cap || moved == max)
			break;
		if (!part.count)
			continue;

		run = hpb_pool_del(bh, pool, page);
		/* What is before the part, the part, and what is behind. */
		hpb_pool_put(bh, pool, hpb_range_cut(&run, part.first - run.first));
		part = hpb_range_cut(&run, min3((unsigned long)part.count,
						max - moved,
						(unsigned long)bh->max_range));
		if (run.count) {
			/* Stays where the run was, and is looked at again. */
			hpb_pool_add(bh, pool, run, &next->lru);
			next = hpb_block_page(bh, run.first);
		}
		r[(*nr)++] = part;
		moved += part.count;
	}
	return moved;
}

unsigned long hpb_pool_count(struct hpb *bh, const struct hpb_pool *pool,
			     const struct hpb_where *where)
{
	unsigned long blocks = 0;
	struct page *page;

	lockdep_assert_held(&bh->lock);
	list_for_each_entry(page, &pool->runs, lru)
		blocks += hpb_pool_part(bh, page, where).count;
	return blocks;
}

void hpb_pool_move(struct hpb *bh, struct hpb_pool *to, struct hpb_pool *from)
{
	lockdep_assert_held(&bh->lock);
	list_splice_tail_init(&from->runs, &to->runs);
	to->blocks += from->blocks;
	from->blocks = 0;
}
