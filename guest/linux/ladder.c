// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp [1] ladder: in which order memory is given up.
 *
 * Theory of operation
 *
 * A pass climbs the ladder. Each rung is used until it gives nothing more:
 *
 *   FREE     what is free in whole blocks costs nothing.
 *   UNUSED   blocks in which nothing is used, but which the allocator does not
 *            hand out: another processor keeps them on its list. To see that a
 *            block is in use takes one page of it, so they are found much faster
 *            than what CLEAN and MOVE look for.
 *   CLEAN    blocks that hold free pages and clean page cache. The cache is
 *            dropped: nothing is copied, written or swapped, and it can be read
 *            again.
 *   MOVE     blocks that have to be emptied. All of memory is looked at, and
 *            those with least to move are taken.
 *   COMPACT  the allocator may compact, and gives up easily: for what a choice
 *            cannot have, and kernels that cannot empty a range.
 *
 * Pages under writeback would be waited for, and mapped pages of files are in
 * use: blocks with such pages are left alone.
 *
 * Here is policy only, arithmetic on what contig.c and pages.c have seen.
 *
 * Rejected: allocating with __GFP_RETRY_MAYFAIL instead of CLEAN and MOVE. It
 * writes and swaps to find free blocks, and compacts first come, first served:
 * half a second for what a choice finds in a few milliseconds.
 * Rejected: compaction before the choice. It takes blocks in the order of their
 * addresses, not of their prices, and was no faster on a fragmented guest.
 * Rejected: reclaim through an allocation without __GFP_IO. The kernel does not
 * compact then, so that dropping pages here and there yields no blocks.
 */
#include <linux/kernel.h>
#include <linux/minmax.h>
#include <linux/sort.h>
#include <linux/string.h>

#include "ladder.h"

enum hpb_rung hpb_ladder_first(bool large, bool loan)
{
	/* Nobody else finds blocks this large, free or not. */
	if (large)
		return loan ? HPB_RUNG_NONE : HPB_RUNG_MOVE;
	return HPB_RUNG_FREE;
}

enum hpb_rung hpb_ladder_next(enum hpb_rung rung, bool large, bool loan)
{
	/* The allocator must not even be asked for large blocks. */
	if (large)
		return HPB_RUNG_NONE;
	/* To move memory makes it dirty: more to send than a loan saves. */
	if (loan && rung == HPB_RUNG_CLEAN)
		return HPB_RUNG_NONE;
	return rung < HPB_RUNG_NONE ? rung + 1 : HPB_RUNG_NONE;
}

bool hpb_ladder_empties(enum hpb_rung rung)
{
	return rung == HPB_RUNG_UNUSED || rung == HPB_RUNG_CLEAN ||
	       rung == HPB_RUNG_MOVE;
}

unsigned long hpb_ladder_batch(enum hpb_rung rung, bool large,
			       unsigned long want)
{
	if (large)
		return min(want, 1UL);
	if (rung == HPB_RUNG_FREE)
		return want;
	return min_t(unsigned long, want, HPB_EMPTY_BATCH);
}

unsigned long hpb_ladder_cost(enum hpb_rung rung,
			      const struct hpb_census *census,
			      const struct hpb_budget *budget)
{
	/* Emptying a block drops the clean page cache in it. */
	if (census->stuck || census->clean > budget->drop ||
	    census->free > budget->free)
		return HPB_NEVER_EMPTY;
	if (rung == HPB_RUNG_UNUSED)
		return census->move || census->clean ? HPB_NEVER_EMPTY : 0;
	if (rung == HPB_RUNG_CLEAN)
		return census->move ? HPB_NEVER_EMPTY : 0;
	return census->move;
}

bool hpb_ladder_room(unsigned long free, unsigned long need,
		     unsigned long spare)
{
	return free >= need && free - need >= spare;
}

bool hpb_ladder_flush(unsigned long spare, unsigned long percpu)
{
	return percpu >= HPB_FLUSH_MIN && spare / HPB_FLUSH_SHARE < percpu;
}

bool hpb_candidate_after(const struct hpb_candidate *a,
			 const struct hpb_candidate *b)
{
	return a->cost > b->cost || (a->cost == b->cost && a->block > b->block);
}

void hpb_choice_begin(struct hpb_choice *choice)
{
	choice->nr = 0;
	choice->next = 0;
}

void hpb_choice_add(struct hpb_choice *choice, unsigned int max,
		    struct hpb_candidate c)
{
	unsigned int i;

	max = min_t(unsigned int, max, HPB_CHOICE_MAX);
	if (!max)
		return;
	if (choice->nr == max) {
		if (!hpb_candidate_after(&choice->c[max - 1], &c))
			return;
		choice->nr--;
	}
	/* Usually in order already: memory is looked at by address. */
	for (i = choice->nr; i && hpb_candidate_after(&choice->c[i - 1], &c); i--)
		choice->c[i] = choice->c[i - 1];
	choice->c[i] = c;
	choice->nr++;
}

static int hpb_cmp_block(const void *a, const void *b)
{
	const struct hpb_candidate *x = a, *y = b;

	return x->block < y->block ? -1 : x->block > y->block;
}

void hpb_choice_end(struct hpb_choice *choice)
{
	if (!choice->nr)
		return;
	choice->last = choice->c[choice->nr - 1];
	sort(choice->c, choice->nr, sizeof(choice->c[0]), hpb_cmp_block, NULL);
}

bool hpb_choice_stale(unsigned long then, unsigned long now)
{
	return now == HPB_NEVER_EMPTY || now > then + then / 16;
}
