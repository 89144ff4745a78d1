/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-balloon-hp [1] ladder: in which order memory is given up, as pure
 * functions; see ladder.c.
 */
#ifndef HPB_LADDER_H
#define HPB_LADDER_H

#include <linux/types.h>

/* Where blocks are looked for, cheapest first. */
enum hpb_rung {
	HPB_RUNG_FREE,		/* blocks that are free */
	HPB_RUNG_UNUSED,	/* free, but not to be had from the allocator */
	HPB_RUNG_CLEAN,		/* free and clean page cache: nothing is moved */
	HPB_RUNG_MOVE,		/* what is in them is moved, least first */
	HPB_RUNG_COMPACT,	/* what the allocator compacts at little cost */
	HPB_RUNG_NONE,		/* there is no more */
};

/* Block that cannot, or must not, be emptied. */
#define HPB_NEVER_EMPTY		(~0UL)
/*
 * Blocks chosen by one scan of memory. 256 MiB at 2 MiB: a scan takes some
 * milliseconds a GiB, and prices do not stay true for long.
 */
#define HPB_CHOICE_MAX		128
/*
 * Blocks emptied for one request: bounds what stands between a new target and
 * an ear for it, and the time until the host sees progress.
 */
#define HPB_EMPTY_BATCH		32
/* Blocks emptied by one call: each call makes all processors flush lists. */
#define HPB_EMPTY_RUN		8
/* Blocks that could not be emptied after all, before a pass gives up. */
#define HPB_EMPTY_FAILS		64
/*
 * Where the free pages that processors keep are more than one part in so many of
 * what the guest has left, and more than so many blocks, it should have them.
 */
#define HPB_FLUSH_SHARE		8
#define HPB_FLUSH_MIN		8

/**
 * struct hpb_census - what is in a block
 * @clean: pages of clean page cache, not mapped, that can be dropped
 * @move:  pages that would have to be moved
 * @free:  the others
 * @stuck: there is something that stays, or that is better left alone
 */
struct hpb_census {
	unsigned long clean;
	unsigned long move;
	unsigned long free;
	bool stuck;
};

/**
 * struct hpb_budget - what the guest can do without
 * @drop: pages of page cache that may be dropped
 * @free: free pages of the zone that may go
 */
struct hpb_budget {
	unsigned long drop;
	unsigned long free;
};

/* A block and its price in pages to move. */
struct hpb_candidate {
	unsigned long cost;
	u64 block;
};

/**
 * struct hpb_choice - the cheapest blocks that a scan has seen
 * @nr:   how many
 * @next: the first that has not been tried
 * @last: the dearest of them, in the order of hpb_candidate_after()
 * @c:    while scanning in the order of price, then in that of address
 */
struct hpb_choice {
	unsigned int nr;
	unsigned int next;
	struct hpb_candidate last;
	struct hpb_candidate c[HPB_CHOICE_MAX];
};

/**
 * hpb_ladder_first() - the rung to begin with
 * @large: blocks are larger than what the page allocator hands out
 * @loan:  for a short time only, so nothing is moved for it
 */
enum hpb_rung hpb_ladder_first(bool large, bool loan);

/* The rung after @rung; @large and @loan as above. */
enum hpb_rung hpb_ladder_next(enum hpb_rung rung, bool large, bool loan);

/* Whether blocks of this rung are emptied by us, not found by the allocator. */
bool hpb_ladder_empties(enum hpb_rung rung);

/* Blocks to take for one request, of @want. */
unsigned long hpb_ladder_batch(enum hpb_rung rung, bool large,
			       unsigned long want);

/**
 * hpb_ladder_cost() - the price of a block on a rung
 * @rung:   UNUSED, CLEAN or MOVE
 * @census: what is in it
 * @budget: what may go
 *
 * Return: pages to move, HPB_NEVER_EMPTY: not on this rung, or not to be spared.
 */
unsigned long hpb_ladder_cost(enum hpb_rung rung,
			      const struct hpb_census *census,
			      const struct hpb_budget *budget);

/**
 * hpb_ladder_room() - whether a run of blocks may be emptied now
 * @free:  free pages of the guest
 * @need:  pages of the run; they leave, and what is in them needs a place
 * @spare: pages that are to stay free
 */
bool hpb_ladder_room(unsigned long free, unsigned long need,
		     unsigned long spare);

/**
 * hpb_ladder_flush() - whether processors are to give up the free pages they keep
 * @spare:  blocks that can go before the guest is at its floor
 * @percpu: what processors keep, in blocks
 *
 * Yes if it is more than HPB_FLUSH_MIN, and the guest has less than
 * HPB_FLUSH_SHARE times as much beside it.
 */
bool hpb_ladder_flush(unsigned long spare, unsigned long percpu);

/* Whether @a comes after @b: it is dearer, or has the higher address. */
bool hpb_candidate_after(const struct hpb_candidate *a,
			 const struct hpb_candidate *b);

/**
 * hpb_choice_begin() - forget all candidates
 * @choice: choice; on return every candidate is worth adding
 */
void hpb_choice_begin(struct hpb_choice *choice);

/**
 * hpb_choice_add() - add a candidate if it is among the cheapest
 * @choice: choice, being made
 * @max:    candidates wanted, up to HPB_CHOICE_MAX
 * @c:      candidate
 */
void hpb_choice_add(struct hpb_choice *choice, unsigned int max,
		    struct hpb_candidate c);

/* The choice is made: put it in the order of addresses. */
void hpb_choice_end(struct hpb_choice *choice);

/**
 * hpb_choice_stale() - whether a block has become dearer than it was chosen for
 * @then: price when it was chosen
 * @now:  price now
 *
 * What is moved out of one block may land in the next: emptying that as well
 * would move it twice.
 */
bool hpb_choice_stale(unsigned long then, unsigned long now);

#endif /* HPB_LADDER_H */
