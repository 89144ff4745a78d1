// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp [1] contig: blocks larger than the page allocator knows.
 *
 * Theory of operation
 *
 * Where the host backs the guest with pages of 1 GiB, nothing less can be given
 * up. The allocator does not hand out blocks of that size, but a piece of memory
 * can be emptied: the kernel moves what is in it elsewhere, or drops it. Before
 * that each piece is looked at, and the one that has least to move is tried
 * first; one with memory of the kernel in it cannot be emptied, which the kernel
 * finds out before it moves anything.
 *
 * Looking takes no locks. What it finds decides about the order only.
 *
 * ZONE_MOVABLE is as good as any: memory that goes offline gets its blocks back
 * first (hotplug.c). CMA areas are refused by alloc_contig_range() itself.
 *
 * Rejected: the first piece that can be emptied. Moving a gibibyte takes a
 * hundred times as long as finding one that is nearly empty.
 */
#include <linux/gfp.h>
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/page-flags.h>

#include "balloon_hp.h"

#ifdef CONFIG_CONTIG_ALLOC

#define HPB_GFP_CONTIG	(GFP_KERNEL | __GFP_NOWARN | __GFP_RETRY_MAYFAIL)
#define HPB_NEVER_EMPTY	ULONG_MAX

/* What moving all of @block away costs, in pages; HPB_NEVER_EMPTY: impossible. */
static unsigned long hpb_contig_cost(struct hpb *bh, u64 block)
{
	unsigned long pfn = block << bh->order, end = pfn + (1UL << bh->order);
	struct zone *zone = NULL;
	unsigned long cost = 0;

	while (pfn < end) {
		struct page *page = pfn_to_online_page(pfn);
		unsigned long order = 0;

		if (!page || PageReserved(page) || PageSlab(page) ||
		    PageOffline(page) || (zone && page_zone(page) != zone))
			return HPB_NEVER_EMPTY;
		zone = page_zone(page);
		if (PageBuddy(page))
			order = min_t(unsigned long, READ_ONCE(page->private),
				      HPB_MAX_ORDER);
		else if (page_count(page))
			cost++;
		pfn += 1UL << order;
		if (!(pfn & (pageblock_nr_pages - 1)))
			cond_resched();
	}
	return cost;
}

static bool hpb_is_after(const struct hpb_candidate *a,
			 const struct hpb_candidate *b)
{
	return a->cost > b->cost || (a->cost == b->cost && a->block > b->block);
}

/* The cheapest block behind @last in the order of costs, on @nid. */
static bool hpb_contig_next(struct hpb *bh, int nid, struct hpb_candidate *last)
{
	struct hpb_candidate c, best = { .cost = HPB_NEVER_EMPTY };
	u64 end = node_end_pfn(nid) >> bh->order;

	c.block = DIV_ROUND_UP_ULL(node_start_pfn(nid), 1UL << bh->order);
	for (; c.block < end; c.block++) {
		c.cost = hpb_contig_cost(bh, c.block);
		if (c.cost != HPB_NEVER_EMPTY && hpb_is_after(&c, last) &&
		    hpb_is_after(&best, &c))
			best = c;
	}
	if (best.cost == HPB_NEVER_EMPTY)
		return false;
	*last = best;
	return true;
}

static struct page *hpb_contig_take_node(struct hpb *bh, struct hpb_take *take,
					 int nid)
{
	while (hpb_contig_next(bh, nid, &take->contig)) {
		unsigned long pfn = take->contig.block << bh->order;

		if (!alloc_contig_range(pfn, pfn + (1UL << bh->order),
					MIGRATE_MOVABLE, HPB_GFP_CONTIG))
			return pfn_to_page(pfn);
		if (fatal_signal_pending(current) || READ_ONCE(bh->stopping))
			break;
	}
	return NULL;
}

struct page *hpb_contig_take(struct hpb *bh, struct hpb_take *take)
{
	struct page *page;
	int nid;

	for_each_node_state(nid, N_MEMORY) {
		if (node_isset(nid, take->empty) ||
		    (take->nid != NUMA_NO_NODE && take->nid != nid))
			continue;
		page = hpb_contig_take_node(bh, take, nid);
		if (page)
			return page;
		node_set(nid, take->empty);
		take->contig = (struct hpb_candidate){};
	}
	return NULL;
}

void hpb_contig_free(struct hpb *bh, struct page *page)
{
	free_contig_range(page_to_pfn(page), 1UL << bh->order);
}

#else

/* hpb_read_config() chooses no such block. */
struct page *hpb_contig_take(struct hpb *bh, struct hpb_take *take)
{
	return NULL;
}

void hpb_contig_free(struct hpb *bh, struct page *page)
{
	WARN_ON_ONCE(1);
}

#endif /* CONFIG_CONTIG_ALLOC */
