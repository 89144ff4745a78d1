// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp [2] ranges: sort, merge, split, and read answers.
 *
 * Theory of operation
 *
 * The driver thinks in blocks, the device in units (a block is one or more
 * units), and a request carries ranges, runs of blocks. This file does the
 * arithmetic between the three, in both directions: blocks become few ranges
 * on the way out; on the way back the exceptions of an answer, which are runs
 * of units numbered over the bytes of the request, become fates of blocks.
 *
 * Invariants
 *  - Ranges of one request are disjoint and at most @max blocks long.
 *  - A walk yields every block of the request exactly once.
 *  - An answer is checked as a whole before any of it is used. Behind
 *    hpb_answer_parse() the exceptions are known to be in bounds.
 *
 * Rejected: keeping a bitmap or tree of all blocks and cutting requests out of
 * it. It grows with the guest, while a request only needs its own few ranges.
 */
#include <linux/bug.h>
#include <linux/export.h>
#include <linux/minmax.h>
#include <linux/sort.h>
#include <linux/string.h>

#include "compat.h"
#include "ranges.h"

unsigned int hpb_ranges_add(struct hpb_range *r, unsigned int nr, u32 max,
			    u64 block)
{
	if (nr && r[nr - 1].count < max) {
		struct hpb_range *last = &r[nr - 1];

		if (last->first + last->count == block) {
			last->count++;
			return nr;
		}
		if (last->first && block == last->first - 1) {
			last->first--;
			last->count++;
			return nr;
		}
	}
	r[nr] = (struct hpb_range){ .first = block, .count = 1 };
	return nr + 1;
}
EXPORT_SYMBOL_IF_KUNIT(hpb_ranges_add);

static int hpb_range_cmp(const void *a, const void *b)
{
	const struct hpb_range *x = a, *y = b;

	if (x->first == y->first)
		return 0;
	return x->first < y->first ? -1 : 1;
}

unsigned int hpb_ranges_merge(struct hpb_range *r, unsigned int nr, u32 max)
{
	unsigned int i, out = 0;

	sort(r, nr, sizeof(*r), hpb_range_cmp, NULL);
	for (i = 0; i < nr; i++) {
		struct hpb_range next = r[i];

		if (out) {
			struct hpb_range *last = &r[out - 1];
			u64 end = last->first + last->count;

			WARN_ON_ONCE(end > next.first);
			if (end == next.first && last->count < max)
				last->count += hpb_range_cut(&next, max - last->count).count;
			if (!next.count)
				continue;
		}
		r[out++] = next;
	}
	return out;
}
EXPORT_SYMBOL_IF_KUNIT(hpb_ranges_merge);

u64 hpb_ranges_blocks(const struct hpb_range *r, unsigned int nr)
{
	u64 blocks = 0;

	while (nr--)
		blocks += r[nr].count;
	return blocks;
}
EXPORT_SYMBOL_IF_KUNIT(hpb_ranges_blocks);

struct hpb_range hpb_range_cut(struct hpb_range *r, u32 n)
{
	struct hpb_range front = { .first = r->first, .count = min(n, r->count) };

	r->first += front.count;
	r->count -= front.count;
	return front;
}
EXPORT_SYMBOL_IF_KUNIT(hpb_range_cut);

struct hpb_range hpb_range_clip(const struct hpb_range *r, u64 start, u64 end)
{
	u64 lo = max(r->first, start);
	u64 hi = min(r->first + r->count, end);

	return (struct hpb_range){ .first = lo, .count = lo < hi ? hi - lo : 0 };
}
EXPORT_SYMBOL_IF_KUNIT(hpb_range_clip);

/* Whether the request as a whole went through, apart from its exceptions. */
static bool hpb_status_acts(u16 status)
{
	return status == VIRTIO_BALLOON_HP_OK ||
	       status == VIRTIO_BALLOON_HP_PARTIAL;
}

static const char *
hpb_exceptions_check(const struct virtio_balloon_hp_exception *exc, u32 nr,
		     u64 units, u64 *named)
{
	u64 end = 0;
	u32 i;

	*named = 0;
	for (i = 0; i < nr; i++) {
		u64 first = le32_to_cpu(exc[i].first);
		u64 count = le32_to_cpu(exc[i].count);

		if (!count)
			return "an exception without units";
		if (first < end)
			return "exceptions that overlap or do not ascend";
		if (first >= units || count > units - first)
			return "an exception beyond the request";
		if (hpb_status_acts(le16_to_cpu(exc[i].status)))
			return "an exception that is none";
		end = first + count;
		*named += count;
	}
	return NULL;
}

const char *hpb_answer_parse(struct hpb_answer *a, const void *resp,
			     u32 resp_size, u32 used, u64 units, u64 unit)
{
	const struct virtio_balloon_hp_resp *head = resp;
	const struct virtio_balloon_hp_exception *exc =
		resp + sizeof(struct virtio_balloon_hp_resp);
	const char *why;
	u64 done, named;
	u16 status;
	u32 nr;

	if (used < sizeof(*head))
		return "a used length without room for a response";
	if (used > resp_size)
		return "a used length that covers memory of the ranges";

	status = le16_to_cpu(head->status);
	nr = le32_to_cpu(head->nr_exceptions);
	done = le64_to_cpu(head->done);

	if (nr > (resp_size - sizeof(*head)) / sizeof(*exc))
		return "more exceptions than the request had room for";
	if (nr > (used - sizeof(*head)) / sizeof(*exc))
		return "more exceptions than its used length covers";
	why = hpb_exceptions_check(exc, nr, units, &named);
	if (why)
		return why;
	if (!nr && !hpb_status_acts(status))
		named = units;
	if (done % unit || done / unit != units - named)
		return "a count of bytes done that contradicts its exceptions";

	*a = (struct hpb_answer){
		.status = status,
		.zeroed = le16_to_cpu(head->flags) & VIRTIO_BALLOON_HP_RESP_F_ZEROED,
		.nr = nr,
		.exc = exc,
	};
	return NULL;
}
EXPORT_SYMBOL_IF_KUNIT(hpb_answer_parse);

void hpb_walk_init(struct hpb_walk *w, const struct hpb_answer *a,
		   const struct hpb_range *r, unsigned int nr, u32 upb,
		   u16 also_done)
{
	*w = (struct hpb_walk){
		.a = a, .r = r, .nr = nr, .upb = upb, .also_done = also_done,
	};
}
EXPORT_SYMBOL_IF_KUNIT(hpb_walk_init);

/*
 * Fate of the block that starts at unit w->unit. Moves the walk's position in
 * the exceptions past those that end inside the block.
 */
static enum hpb_fate hpb_walk_block(struct hpb_walk *w, u16 *status)
{
	u64 start = w->unit, end = w->unit + w->upb;
	u64 missing = 0;

	*status = VIRTIO_BALLOON_HP_OK;
	while (w->exc < w->a->nr) {
		const struct virtio_balloon_hp_exception *e = &w->a->exc[w->exc];
		u64 lo = max_t(u64, le32_to_cpu(e->first), start);
		u64 e_end = (u64)le32_to_cpu(e->first) + le32_to_cpu(e->count);
		u16 why = le16_to_cpu(e->status);

		if (lo >= end)
			break;
		if (w->also_done == VIRTIO_BALLOON_HP_OK || why != w->also_done) {
			if (!missing)
				*status = why;
			missing += min(e_end, end) - lo;
		} else if (!missing) {
			*status = why;
		}
		if (e_end > end)
			break;
		w->exc++;
	}

	if (!missing)
		return HPB_DONE;
	return missing == w->upb ? HPB_NOT_DONE : HPB_MIXED;
}

/* Fate of the next block; an answer without exceptions speaks for all. */
static enum hpb_fate hpb_walk_fate(struct hpb_walk *w, u16 *status)
{
	if (w->a->nr)
		return hpb_walk_block(w, status);

	if (hpb_status_acts(w->a->status)) {
		*status = VIRTIO_BALLOON_HP_OK;
		return HPB_DONE;
	}
	*status = w->a->status;
	if (w->also_done != VIRTIO_BALLOON_HP_OK && *status == w->also_done)
		return HPB_DONE;
	return HPB_NOT_DONE;
}

bool hpb_walk_next(struct hpb_walk *w, struct hpb_piece *p)
{
	const struct hpb_range *r;

	if (w->at == w->nr)
		return false;

	r = &w->r[w->at];
	p->range = (struct hpb_range){ .first = r->first + w->off, .count = 0 };
	while (w->off < r->count) {
		u32 exc = w->exc;
		enum hpb_fate fate;
		u16 status;

		fate = hpb_walk_fate(w, &status);
		if (!p->range.count) {
			p->fate = fate;
			p->status = status;
		} else if (fate != p->fate || status != p->status) {
			w->exc = exc;
			return true;
		}
		p->range.count++;
		w->off++;
		w->unit += w->upb;
	}
	w->at++;
	w->off = 0;
	return true;
}
EXPORT_SYMBOL_IF_KUNIT(hpb_walk_next);
