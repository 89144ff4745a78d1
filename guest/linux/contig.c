// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp [1] contig: empty blocks that are in use.
 *
 * Theory of operation
 *
 * A piece of memory can be emptied: alloc_contig_range() drops the clean page
 * cache in it and moves the rest elsewhere. All of memory is looked at first,
 * and ladder.c chooses the blocks that have least to move. Neighbours among
 * them are emptied by one call, because each call makes all processors flush
 * their lists of pages. A block with memory of the kernel in it cannot be
 * emptied, and is not tried.
 *
 * Before a block is emptied it is looked at again: what was moved out of an
 * earlier one may have landed in it. Then another is cheaper, and it is left.
 *
 * Looking takes no locks. What it finds decides about the order only; the kernel
 * finds out before it moves anything whether a block has pages that stay.
 *
 * What comes back are pages that are held one by one. Blocks of a size that the
 * allocator knows are joined again by dropping the counts of all pages but the
 * first, so that they go back whole: 50 times faster than page by page.
 *
 * Flushing is of use by itself. After a program has ended each processor keeps
 * tens of MiB of its memory on lists of its own, which count as used. A guest
 * that is at its floor has nothing else to give; one that becomes small cannot
 * spare them either, because the kernel kills before it looks there. To empty a
 * block in which nothing is used moves nothing, and makes all processors give
 * them up.
 *
 * No zone but ZONE_MOVABLE is left with less free memory than its minimum.
 * alloc_contig_range() would take all of it, and the kernel is not made for that:
 * kswapd rests where one zone of a node has enough, while who allocates waits for
 * it because the node as a whole has not, and neither ever goes on.
 *
 * ZONE_MOVABLE is as good as any: memory that goes offline gets its blocks back
 * first (hotplug.c). CMA areas are refused by alloc_contig_range() itself.
 *
 * Rejected: the first piece that can be emptied. Moving takes a hundred times
 * as long as looking.
 */
#include <linux/gfp.h>
#include <linux/jiffies.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/page-flags.h>
#include <linux/page_ref.h>
#include <linux/vmstat.h>

#include "balloon_hp.h"
#include "trace.h"

#ifdef CONFIG_CONTIG_ALLOC

#define HPB_GFP_CONTIG	(GFP_KERNEL | __GFP_NOWARN | __GFP_RETRY_MAYFAIL | \
			 __GFP_SKIP_ZERO)
/* No block has this number. */
#define HPB_NO_BLOCK	U64_MAX
/* Processors fill their lists again; for one target they are emptied so often. */
#define HPB_FLUSH_AGAIN	(60 * HZ)
/* Pages that stay free for the guest while blocks are emptied: 32 MiB. */
#define HPB_CONTIG_SPARE	(SZ_32M >> PAGE_SHIFT)

static bool hpb_is_large(const struct hpb *bh)
{
	return bh->order > HPB_MAX_ORDER;
}

/* Count one page in use. */
static void hpb_census_page(struct page *page, bool large,
			    struct hpb_census *census)
{
	struct folio *folio = page_folio(page);

	if (large) {
		census->move++;
	} else if (!folio_test_lru(folio)) {
		/* Of the kernel, but for few that drivers can move. */
		if (__PageMovable(page))
			census->move++;
		else
			census->stuck = true;
	} else if (folio_test_writeback(folio)) {
		census->stuck = true;
	} else if (folio_test_swapbacked(folio) || folio_test_dirty(folio) ||
		   folio_test_unevictable(folio)) {
		census->move++;
	} else if (atomic_read(&page->_mapcount) >= 0) {
		census->stuck = true;
	} else {
		census->clean++;
	}
}

/* What is in @block? @unused: once anything is, the rest does not matter. */
static struct hpb_census hpb_census(struct hpb *bh, u64 block, bool unused)
{
	unsigned long pfn = block << bh->order, end = pfn + (1UL << bh->order);
	struct hpb_census census = {};
	struct zone *zone = NULL;

	while (pfn < end && !census.stuck &&
	       !(unused && (census.move || census.clean))) {
		struct page *page = pfn_to_online_page(pfn);
		unsigned long order = 0;

		if (!page || PageReserved(page) || PageSlab(page) ||
		    PageOffline(page) || (zone && page_zone(page) != zone)) {
			census.stuck = true;
			break;
		}
		zone = page_zone(page);
		if (PageBuddy(page))
			order = min_t(unsigned long, READ_ONCE(page->private),
				      HPB_MAX_ORDER);
		else if (page_count(page))
			hpb_census_page(page, hpb_is_large(bh), &census);
		pfn += 1UL << order;
		if (!(pfn & (pageblock_nr_pages - 1)))
			cond_resched();
	}
	census.free = (1UL << bh->order) - census.clean - census.move;
	return census;
}

/* Pages of @zone that processors keep for themselves, free but not counted so. */
static unsigned long hpb_percpu_pages(struct zone *zone)
{
	unsigned long pages = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		pages += READ_ONCE(per_cpu_ptr(zone->per_cpu_pageset, cpu)->count);
	return pages;
}

/*
 * What blocks of @zone may cost. What an allocation of ours leaves in the zone is
 * left here too: the minimum, and what is kept for those that can use no other.
 * The kernel itself uses nothing of ZONE_MOVABLE, and waits for none of it.
 */
static struct hpb_budget hpb_budget(struct zone *zone, unsigned long drop)
{
	unsigned long free = zone_page_state(zone, NR_FREE_PAGES) +
			     hpb_percpu_pages(zone);
	unsigned long keep = 0;

	if (zone_idx(zone) != ZONE_MOVABLE)
		keep = min_wmark_pages(zone) +
		       zone->lowmem_reserve[MAX_NR_ZONES - 1];
	return (struct hpb_budget) {
		.drop = drop,
		.free = free > keep ? free - keep : 0,
	};
}

/* What @block needs is taken off @budget. */
static unsigned long hpb_cost(struct hpb *bh, struct hpb_take *take, u64 block,
			      struct hpb_budget *budget)
{
	struct hpb_census census =
		hpb_census(bh, block, take->rung == HPB_RUNG_UNUSED);
	unsigned long cost = hpb_ladder_cost(take->rung, &census, budget);

	if (cost != HPB_NEVER_EMPTY) {
		budget->drop -= census.clean;
		budget->free -= census.free;
	} else if (!census.stuck && census.clean > budget->drop) {
		take->kept = true;
	}
	return cost;
}

/* Look at all memory, and choose up to @max blocks behind @take->after. */
static void hpb_scan(struct hpb *bh, struct hpb_take *take, unsigned int max)
{
	const unsigned long droppable = hpb_droppable_pages(bh);
	struct hpb_budget of_zone = {}, budget;
	struct zone *zone = NULL;
	struct hpb_candidate c;
	u64 end;
	int nid;

	take->kept = false;
	hpb_choice_begin(&bh->choice);
	for_each_node_state(nid, N_MEMORY) {
		if (take->nid != NUMA_NO_NODE && take->nid != nid)
			continue;
		end = node_end_pfn(nid) >> bh->order;
		c.block = DIV_ROUND_UP_ULL(node_start_pfn(nid), 1UL << bh->order);
		for (; c.block < end && !hpb_interrupted(bh, take->seen); c.block++) {
			/* A hole that other nodes fill is theirs to look at. */
			if (!pfn_to_online_page(c.block << bh->order) ||
			    page_to_nid(hpb_block_page(bh, c.block)) != nid)
				continue;
			if (page_zone(hpb_block_page(bh, c.block)) != zone) {
				zone = page_zone(hpb_block_page(bh, c.block));
				of_zone = hpb_budget(zone, droppable);
			}
			budget = of_zone;
			c.cost = hpb_cost(bh, take, c.block, &budget);
			if (c.cost != HPB_NEVER_EMPTY &&
			    (!take->scanned ||
			     hpb_candidate_after(&c, &take->after)))
				hpb_choice_add(&bh->choice, max, c);
		}
	}
	hpb_choice_end(&bh->choice);
	take->after = bh->choice.last;
	take->scanned = true;
	hpb_count(bh, HPB_C_SCANS, 1);
}

/*
 * The next blocks of the choice that are neighbours, in one zone, and as cheap
 * as they were. Return: how many; their price is added to @cost.
 */
static unsigned int hpb_next_run(struct hpb *bh, struct hpb_take *take,
				 unsigned int max, u64 *first,
				 unsigned long *cost)
{
	const unsigned long droppable = hpb_droppable_pages(bh);
	struct hpb_choice *choice = &bh->choice;
	struct hpb_budget budget;
	unsigned int n = 0;

	while (choice->next < choice->nr && n < max) {
		const struct hpb_candidate *c = &choice->c[choice->next];
		struct page *page = hpb_block_page(bh, c->block);

		if (n && (c->block != *first + n ||
			  page_zone(page) != page_zone(hpb_block_page(bh, *first))))
			break;
		if (!n)
			budget = hpb_budget(page_zone(page), droppable);
		choice->next++;
		if (hpb_choice_stale(c->cost,
				     hpb_cost(bh, take, c->block, &budget))) {
			if (n)
				break;
			continue;
		}
		if (!n)
			*first = c->block;
		*cost += c->cost;
		n++;
	}
	return n;
}

/* Make one page of high order of pages that are held one by one. */
static bool hpb_join(struct page *page, unsigned int order)
{
	unsigned int i;

	for (i = 1; i < 1U << order; i++)
		if (!page_ref_freeze(page + i, 1))
			break;
	if (i == 1U << order)
		return true;
	/* Somebody has looked at it just now; the pages go back one by one. */
	while (--i)
		page_ref_unfreeze(page + i, 1);
	free_contig_range(page_to_pfn(page), 1UL << order);
	return false;
}

/* Pages moved by anybody so far. */
static u64 hpb_migrated(void)
{
#ifdef CONFIG_VM_EVENT_COUNTERS
	unsigned long events[NR_VM_EVENT_ITEMS];

	all_vm_events(events);
	return events[PGMIGRATE_SUCCESS];
#else
	return 0;
#endif
}

/* Empty @n blocks; those that were emptied are added to @slot. */
static unsigned int hpb_empty(struct hpb *bh, struct hpb_take *take,
			      struct hpb_slot *slot, u64 first, unsigned int n)
{
	unsigned long pfn = first << bh->order;
	unsigned int i, got = 0;

	if (alloc_contig_range(pfn, pfn + ((unsigned long)n << bh->order),
			       MIGRATE_MOVABLE, HPB_GFP_CONTIG)) {
		/* One of them has spoilt it for the others. */
		for (i = 0; n > 1 && i < n; i++)
			got += hpb_empty(bh, take, slot, first + i, 1);
		take->fails += n == 1;
		return got;
	}
	for (i = 0; i < n; i++) {
		struct page *page = hpb_block_page(bh, first + i);

		if (!hpb_is_large(bh) && !hpb_join(page, bh->order))
			continue;
		slot->nr = hpb_ranges_add(slot->ranges, slot->nr, bh->max_range,
					  first + i);
		got++;
	}
	return got;
}

unsigned long hpb_contig_take(struct hpb *bh, struct hpb_take *take,
			      struct hpb_slot *slot, unsigned long want)
{
	const unsigned int run = hpb_is_large(bh) ? 1 : HPB_EMPTY_RUN;
	unsigned long got = 0, cost;
	struct sysinfo info;
	unsigned int n;
	u64 first = 0, before;

	while (got < want && take->fails < HPB_EMPTY_FAILS &&
	       slot->nr + run <= hpb_slot_cap(bh, slot) &&
	       !hpb_interrupted(bh, take->seen)) {
		if (bh->choice.next == bh->choice.nr) {
			hpb_scan(bh, take, hpb_is_large(bh) ? 1 : HPB_CHOICE_MAX);
			if (!bh->choice.nr)
				break;
		}
		cost = 0;
		n = hpb_next_run(bh, take, min_t(unsigned long, run, want - got),
				 &first, &cost);
		if (!n)
			continue;
		si_meminfo(&info);
		if (!hpb_is_large(bh) && take->rung == HPB_RUNG_MOVE &&
		    !hpb_ladder_room(info.freeram, (unsigned long)n << bh->order,
				     HPB_CONTIG_SPARE))
			break;
		before = hpb_migrated();
		n = hpb_empty(bh, take, slot, first, n);
		before = hpb_migrated() - before;
		got += n;
		hpb_count(bh, HPB_C_EMPTIED_BLOCKS, n);
		hpb_count(bh, HPB_C_MOVED_BYTES, before << PAGE_SHIFT);
		hpb_count(bh, HPB_C_CHEAPEST_BYTES, (u64)cost << PAGE_SHIFT);
		trace_hpb_emptied(bh->vdev->index, (u64)n << bh->shift,
				  before << PAGE_SHIFT, (u64)cost << PAGE_SHIFT);
	}
	return got;
}

/* The first block of @zone that has nothing in use. */
static u64 hpb_unused_block(struct hpb *bh, struct hpb_take *take,
			    struct zone *zone)
{
	u64 block = DIV_ROUND_UP_ULL(zone->zone_start_pfn, 1UL << bh->order);
	u64 end = zone_end_pfn(zone) >> bh->order;

	for (; block < end && !hpb_interrupted(bh, take->seen); block++) {
		struct page *page = pfn_to_online_page(block << bh->order);
		struct hpb_census census;

		if (!page || page_zone(page) != zone)
			continue;
		census = hpb_census(bh, block, true);
		if (!census.stuck && !census.move && !census.clean)
			return block;
	}
	return HPB_NO_BLOCK;
}

static unsigned long hpb_percpu_blocks(struct hpb *bh)
{
	unsigned long pages = 0;
	int nid, zid;

	for_each_node_state(nid, N_MEMORY)
		for (zid = 0; zid < MAX_NR_ZONES; zid++)
			if (populated_zone(&NODE_DATA(nid)->node_zones[zid]))
				pages += hpb_percpu_pages(&NODE_DATA(nid)->node_zones[zid]);
	return pages >> bh->order;
}

static void hpb_flush_zone(struct hpb *bh, struct hpb_take *take,
			   struct zone *zone)
{
	u64 block = hpb_unused_block(bh, take, zone);
	unsigned long pfn = block << bh->order;

	if (block == HPB_NO_BLOCK ||
	    alloc_contig_range(pfn, pfn + (1UL << bh->order), MIGRATE_MOVABLE,
			       HPB_GFP_CONTIG))
		return;
	if (hpb_join(pfn_to_page(pfn), bh->order))
		__free_pages(pfn_to_page(pfn), bh->order);
	hpb_count(bh, HPB_C_FLUSHES, 1);
}

void hpb_contig_flush(struct hpb *bh, struct hpb_take *take,
		      unsigned long spare)
{
	int nid, zid;

	lockdep_assert_held(&bh->op);
	if (hpb_is_large(bh) ||
	    (bh->flush_after && time_before(jiffies, bh->flush_after)) ||
	    !hpb_ladder_flush(spare, hpb_percpu_blocks(bh)))
		return;
	bh->flush_after = (jiffies + HPB_FLUSH_AGAIN) ?: 1;
	for_each_node_state(nid, N_MEMORY)
		for (zid = 0; zid < MAX_NR_ZONES; zid++) {
			struct zone *zone = &NODE_DATA(nid)->node_zones[zid];

			if (populated_zone(zone) &&
			    hpb_percpu_pages(zone) >= 1UL << bh->order)
				hpb_flush_zone(bh, take, zone);
		}
}

void hpb_contig_free(struct hpb *bh, struct page *page)
{
	free_contig_range(page_to_pfn(page), 1UL << bh->order);
}

#else

/* Without the kernel's help nothing is emptied. */
unsigned long hpb_contig_take(struct hpb *bh, struct hpb_take *take,
			      struct hpb_slot *slot, unsigned long want)
{
	return 0;
}

void hpb_contig_flush(struct hpb *bh, struct hpb_take *take,
		      unsigned long spare)
{
}

void hpb_contig_free(struct hpb *bh, struct page *page)
{
	WARN_ON_ONCE(1);
}

#endif /* CONFIG_CONTIG_ALLOC */
