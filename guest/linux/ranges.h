/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-balloon-hp [2] ranges: the pure half of the driver.
 *
 * What crosses this interface is numbers: blocks (a block is the naturally
 * aligned piece of memory that the driver takes and returns, block n starts at
 * physical address n << block_shift), runs of blocks, and the bytes of an
 * answer. No function allocates, sleeps, locks or looks at kernel state.
 */
#ifndef HPB_RANGES_H
#define HPB_RANGES_H

#include <linux/types.h>
#include "virtio_balloon_hp.h"

/**
 * struct hpb_range - a run of blocks that are adjacent in memory
 * @first: number of the first block
 * @count: blocks, at least 1
 */
struct hpb_range {
	u64 first;
	u32 count;
};

/**
 * hpb_ranges_add() - append one block
 * @r:   array with room for @nr + 1 entries
 * @nr:  entries in use
 * @max: longest range, in blocks
 * @block: number of the block
 *
 * Extends the last range if @block touches either of its ends: the page
 * allocator mostly hands out neighbours one after the other, and what is
 * merged here need not be sorted later.
 *
 * Return: the new number of entries, @nr or @nr + 1.
 */
unsigned int hpb_ranges_add(struct hpb_range *r, unsigned int nr, u32 max,
			    u64 block);

/**
 * hpb_ranges_merge() - sort by address and join neighbours
 * @r:   array of disjoint ranges
 * @nr:  entries in use
 * @max: longest range, in blocks
 *
 * Return: the new number of entries, at most @nr.
 */
unsigned int hpb_ranges_merge(struct hpb_range *r, unsigned int nr, u32 max);

/**
 * hpb_ranges_blocks() - blocks in an array of ranges
 * @r:  array
 * @nr: entries in use
 */
u64 hpb_ranges_blocks(const struct hpb_range *r, unsigned int nr);

/**
 * hpb_range_cut() - cut blocks off the front of a range
 * @r: range, keeps what is behind the cut; @r->count may become 0
 * @n: blocks wanted
 *
 * Return: the front, min(@n, @r->count) blocks.
 */
struct hpb_range hpb_range_cut(struct hpb_range *r, u32 n);

/**
 * hpb_range_clip() - the part of a range inside [@start, @end)
 * @r:     range
 * @start: first block of the window
 * @end:   first block behind the window
 *
 * Return: the part; its count is 0 if there is none.
 */
struct hpb_range hpb_range_clip(const struct hpb_range *r, u64 start, u64 end);

/**
 * struct hpb_answer - a response that has been checked
 * @status: VIRTIO_BALLOON_HP_* of the whole request
 * @zeroed: VIRTIO_BALLOON_HP_RESP_F_ZEROED is set
 * @nr:     exceptions
 * @exc:    the exceptions, ascending, disjoint, inside the request
 */
struct hpb_answer {
	u16 status;
	bool zeroed;
	u32 nr;
	const struct virtio_balloon_hp_exception *exc;
};

/**
 * hpb_answer_parse() - check a response (DRV-15)
 * @a:         filled in on success, points into @resp
 * @resp:      private copy of the response, so that it cannot change any more
 * @resp_size: bytes of room the request gave
 * @used:      used length the device reported
 * @units:     units in the request
 * @unit:      bytes in a unit
 *
 * Return: NULL if the response can be acted on, else what is wrong with it, in
 * words for the log. The device is broken then.
 */
const char *hpb_answer_parse(struct hpb_answer *a, const void *resp,
			     u32 resp_size, u32 used, u64 units, u64 unit);

/* What became of a block. */
enum hpb_fate {
	HPB_DONE,	/* the device did every unit of it */
	HPB_NOT_DONE,	/* it did none */
	HPB_MIXED,	/* it did some: the block is neither in nor out */
};

/**
 * struct hpb_piece - blocks of one range of a request with the same outcome
 * @range:  the blocks
 * @fate:   outcome
 * @status: OK, the status that counted as done, or the first reason why not
 */
struct hpb_piece {
	struct hpb_range range;
	enum hpb_fate fate;
	u16 status;
};

/**
 * struct hpb_walk - position in an answer while it is mapped to blocks
 *
 * Set up with hpb_walk_init(); the fields are private to ranges.c.
 */
struct hpb_walk {
	const struct hpb_answer *a;
	const struct hpb_range *r;
	unsigned int nr;
	u32 upb;
	u16 also_done;
	unsigned int at;
	u32 off;
	u64 unit;
	u32 exc;
};

/**
 * hpb_walk_init() - start mapping an answer to the blocks of its request
 * @w: walk
 * @a: checked answer
 * @r: ranges of the request, in the order in which they stood in it
 * @nr: entries in @r
 * @upb: units per block
 * @also_done: status that means the unit is already where the request wanted
 *             it (ALREADY_OUT, NOT_OUT), and so counts as done; or OK
 */
void hpb_walk_init(struct hpb_walk *w, const struct hpb_answer *a,
		   const struct hpb_range *r, unsigned int nr, u32 upb,
		   u16 also_done);

/**
 * hpb_walk_next() - the next blocks with one outcome
 * @w: walk
 * @p: filled in
 *
 * The pieces cover the request exactly, in its order.
 *
 * Return: false at the end.
 */
bool hpb_walk_next(struct hpb_walk *w, struct hpb_piece *p);

#endif /* HPB_RANGES_H */
