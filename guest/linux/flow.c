// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp: the flow of requests; between target.c, which wants blocks
 * moved, and step [3], which moves requests.
 *
 * Theory of operation
 *
 * Blocks pass through here on their way out and back. On the way out: a slot
 * is found, its request sent, both waiting for answers if need be. On the way
 * back: an answer is settled, that is, each block goes where it now belongs.
 *
 * The mark (PageOffline) of the pages that were sent out is a write to each
 * struct page, as expensive as all the rest of a change, and nobody needs it at
 * once but /proc/kcore, which is kept out until it is done. So it comes after
 * the answers, if those come soon: the host may free the memory on the very
 * processor that would mark it. Answers that take longer than HPB_MARK_DELAY are
 * waited for while marking, in steps small enough not to be in their way.
 *
 * Invariants
 *  - A block reaches the page allocator only after an answer that names it:
 *    a deflate that was done, or an inflate that was not (DRV-13, DRV-16).
 *  - While pages are unmarked the worker does not wait for the device longer
 *    than HPB_MARK_DELAY, and does not look for memory that takes long to find.
 *    That is how long /proc/kcore may have to wait.
 *
 * Rejected: marking before the request is sent. Simple, and safe without
 * keeping anybody out, but the host then idles for half of the time. Marking
 * whenever there is nothing else to do: on a host whose processors are all
 * busy, and that is when guests are shrunk, the thread that frees waits for it.
 */
#include <linux/gfp.h>

#include "balloon_hp.h"
#include "trace.h"

/* The one switch that decides between trying again and giving up. */
enum hpb_verdict hpb_judge(int err)
{
	switch (err) {
	case 0:
		return HPB_FINE;
	case -EAGAIN:
		return HPB_NOW;
	case -ENOMEM:
	case -EBUSY:
	case -EIO:
	case -ENOSPC:
	case -ETIMEDOUT:
		return HPB_LATER;
	default:
		return HPB_NEVER;
	}
}

void hpb_tally_add(struct hpb_tally *t, unsigned long done, unsigned long failed,
		   int err)
{
	t->done += done;
	t->failed += failed;
	if (hpb_judge(err) > hpb_judge(t->err))
		t->err = err;
}

/* Acting on answers */

static void hpb_settle_inflated(struct hpb *bh, struct hpb_slot *slot,
				const struct hpb_piece *p)
{
	if (p->fate == HPB_MIXED)
		hpb_mark(bh, p->range);

	spin_lock(&bh->lock);
	switch (p->fate) {
	case HPB_DONE:
		hpb_pool_put(bh, slot->marked == slot->blocks ? &bh->held :
							       &bh->fresh, p->range);
		break;
	case HPB_NOT_DONE:
		hpb_pool_put(bh, &bh->refused, p->range);
		break;
	case HPB_MIXED:
		hpb_pool_put(bh, &bh->undo, p->range);
		break;
	}
	bh->inflating -= p->range.count;
	spin_unlock(&bh->lock);
}

static void hpb_settle_deflated(struct hpb *bh, struct hpb_slot *slot,
				const struct hpb_piece *p)
{
	/* The yes has come: from here on the memory may be touched. */
	if (p->fate == HPB_DONE)
		hpb_return(bh, p->range);

	spin_lock(&bh->lock);
	/* A block of which nothing was done is where it was, in or out. */
	if (p->fate == HPB_NOT_DONE)
		hpb_pool_put(bh, slot->from, p->range);
	else if (p->fate == HPB_MIXED)
		hpb_pool_put(bh, &bh->undo, p->range);
	bh->deflating -= p->range.count;
	spin_unlock(&bh->lock);
}

static void hpb_settle_count(struct hpb *bh, bool inflate,
			     const struct hpb_piece *p)
{
	unsigned int status = min_t(unsigned int, p->status, HPB_STATUS_MAX - 1);

	if (p->status != VIRTIO_BALLOON_HP_OK)
		atomic64_add(p->range.count, &bh->statuses[status]);
	if (p->fate == HPB_MIXED)
		hpb_count(bh, HPB_C_MIXED, p->range.count);
	if (p->fate == HPB_DONE)
		hpb_count(bh, inflate ? HPB_C_INFLATE_BLOCKS :
					HPB_C_DEFLATE_BLOCKS, p->range.count);
	else
		hpb_count(bh, inflate ? HPB_C_INFLATE_REFUSED :
					HPB_C_DEFLATE_REFUSED, p->range.count);
}

void hpb_settle(struct hpb *bh, struct hpb_slot *slot, struct hpb_tally *tally)
{
	bool inflate = slot->type == VIRTIO_BALLOON_HP_REQ_INFLATE;
	struct hpb_tally mine = {};
	struct hpb_answer answer;
	struct hpb_piece piece;
	struct hpb_walk walk;
	const char *why;

	memcpy(slot->copy, slot->resp, min_t(size_t, slot->used, HPB_RESP_SIZE));
	why = hpb_answer_parse(&answer, slot->copy, HPB_RESP_SIZE, slot->used,
			       (u64)slot->blocks * bh->upb, bh->unit);
	if (why) {
		/* Nobody knows what the device did: the blocks stay here. */
		hpb_broken(bh, why);
		hpb_slot_put(bh, slot, HPB_SLOT_LOST);
		return;
	}

	/*
	 * A unit that already is where the request wanted it counts as done:
	 * one that is out must not be used, one that is not out is ours.
	 */
	hpb_walk_init(&walk, &answer, slot->ranges, slot->nr, bh->upb,
		      inflate ? VIRTIO_BALLOON_HP_ALREADY_OUT :
				VIRTIO_BALLOON_HP_NOT_OUT);
	while (hpb_walk_next(&walk, &piece)) {
		int err = hpb_status_errno(piece.status);

		/*
		 * What is not the device's (virtio-mem's memory) lies about in
		 * gigabytes, and says nothing about the rest: it is put aside
		 * until the pass is over, and is no reason to end it.
		 */
		if (piece.fate == HPB_DONE)
			hpb_tally_add(&mine, piece.range.count, 0, 0);
		else
			hpb_tally_add(&mine, 0, inflate && err == -ENXIO ? 0 :
				      piece.range.count, err);
		hpb_settle_count(bh, inflate, &piece);
		if (inflate)
			hpb_settle_inflated(bh, slot, &piece);
		else
			hpb_settle_deflated(bh, slot, &piece);
	}
	trace_hpb_answer(bh->vdev->index, slot->type, answer.status, answer.nr,
			 (u64)mine.done << bh->shift,
			 (u64)mine.failed << bh->shift);
	hpb_tally_add(tally, mine.done, mine.failed, mine.err);
	hpb_slot_put(bh, slot, HPB_SLOT_FREE);
}

void hpb_reap(struct hpb *bh, struct hpb_tally *tally)
{
	unsigned int i;

	lockdep_assert_held(&bh->op);
	for (i = 0; i < HPB_SLOTS; i++)
		if (hpb_slot_claim(bh, &bh->slots[i], HPB_SLOT_ANSWERED,
				   HPB_SLOT_SETTLING))
			hpb_settle(bh, &bh->slots[i], tally);
	/* The OOM notifier's, if it gave up waiting. */
	if (READ_ONCE(bh->oom_slot.state) == HPB_SLOT_ANSWERED)
		hpb_oom_reap(bh);
}

/* Mark what is `fresh`. The OOM notifier can have it all but for one batch. */
static void hpb_mark_fresh(struct hpb *bh)
{
	struct hpb_range run;
	unsigned int nr;

	for (;;) {
		nr = 0;
		spin_lock(&bh->lock);
		hpb_pool_get(bh, &bh->fresh, HPB_ANYWHERE, &run, 1, &nr,
			     HPB_MARK_BATCH);
		spin_unlock(&bh->lock);
		if (!nr)
			break;
		hpb_mark(bh, run);
		spin_lock(&bh->lock);
		hpb_pool_put(bh, &bh->held, run);
		spin_unlock(&bh->lock);
	}
	/* What the notifier took from there it marks itself, and at once. */
	wait_event(bh->answered, !READ_ONCE(bh->oom_marks));
}

/*
 * Blocks are sent before their pages are marked. Until that is done /proc/kcore
 * is kept out, the only reader that looks for the mark at any time (DRV-13).
 */
static void hpb_kcore_off(struct hpb *bh)
{
	if (bh->kcore_off)
		return;
	page_offline_begin();
	bh->kcore_off = true;
	bh->mark_at = jiffies + msecs_to_jiffies(HPB_MARK_DELAY);
}

bool hpb_mark_due(struct hpb *bh)
{
	return bh->unmarked > HPB_UNMARKED_MAX ||
	       (bh->kcore_off && time_after_eq(jiffies, bh->mark_at));
}

/* Mark the next blocks of a request that are not marked, at most @n. */
static void hpb_mark_in_slot(struct hpb *bh, struct hpb_slot *slot, u32 n)
{
	unsigned long skip = slot->marked;
	unsigned int i;

	for (i = 0; i < slot->nr && n; i++) {
		struct hpb_range rest = slot->ranges[i], run;

		skip -= hpb_range_cut(&rest, min_t(unsigned long, skip, U32_MAX)).count;
		run = hpb_range_cut(&rest, n);
		hpb_mark(bh, run);
		slot->marked += run.count;
		n -= run.count;
	}
}

/* Mark some blocks in requests. Return: false if none is left to mark. */
static bool hpb_mark_some(struct hpb *bh)
{
	unsigned int i;

	for (i = 0; i < HPB_SLOTS; i++) {
		struct hpb_slot *slot = &bh->slots[i];

		if (slot->type != VIRTIO_BALLOON_HP_REQ_INFLATE ||
		    slot->marked == slot->blocks ||
		    READ_ONCE(slot->state) == HPB_SLOT_FREE ||
		    READ_ONCE(slot->state) == HPB_SLOT_FILLING)
			continue;
		hpb_mark_in_slot(bh, slot, HPB_MARK_BATCH);
		return true;
	}
	return false;
}

void hpb_mark_all(struct hpb *bh)
{
	lockdep_assert_held(&bh->op);
	if (!bh->kcore_off && !READ_ONCE(bh->fresh.blocks))
		return;
	hpb_kcore_off(bh);
	while (hpb_mark_some(bh))
		;
	hpb_mark_fresh(bh);
	bh->unmarked = 0;
	bh->kcore_off = false;
	page_offline_end();
}

/* hpb_wait(), but no longer than pages may be unmarked without marking them. */
static int hpb_await(struct hpb *bh)
{
	if (!hpb_mark_due(bh) && bh->kcore_off &&
	    hpb_wait_until(bh, bh->mark_at))
		return 0;
	while (bh->kcore_off && hpb_mark_some(bh))
		if (hpb_answered(bh))
			return 0;
	hpb_mark_all(bh);
	return hpb_wait(bh);
}

int hpb_drain(struct hpb *bh, struct hpb_tally *tally)
{
	int err = 0;

	hpb_reap(bh, tally);
	/* Who has waited in vain does not wait again. */
	while (!err && tally->err != -ETIMEDOUT && hpb_in_flight(bh)) {
		err = hpb_await(bh);
		hpb_reap(bh, tally);
	}
	return err;
}

struct hpb_slot *hpb_next_slot(struct hpb *bh, u16 type,
			       struct hpb_tally *tally)
{
	struct hpb_slot *slot;
	int err;

	for (;;) {
		if (!hpb_running(bh))
			return NULL;
		/* Sending comes before acting on answers: the host waits. */
		slot = hpb_slot_get(bh, type);
		if (slot)
			return slot;
		err = hpb_await(bh);
		if (err) {
			hpb_tally_add(tally, 0, 0, err);
			return NULL;
		}
		hpb_reap(bh, tally);
	}
}

int hpb_send_wait(struct hpb *bh, struct hpb_slot *slot, struct hpb_tally *tally)
{
	int err;

	for (;;) {
		if (slot->type == VIRTIO_BALLOON_HP_REQ_INFLATE && !slot->from)
			hpb_kcore_off(bh);
		err = hpb_send(bh, slot, GFP_NOWAIT | __GFP_NOWARN);
		if (err != -ENOSPC || !hpb_in_flight(bh))
			return err;
		err = hpb_await(bh);
		if (err)
			return err;
		hpb_reap(bh, tally);
	}
}
