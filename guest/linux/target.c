// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp: the worker that drives steps [1] to [3] to the requested
 * size.
 *
 * Theory of operation
 *
 * One work item follows config.requested. It compares what is out with what is
 * asked for and runs a pass in one direction; a pass takes a batch [1], merges
 * it [2], sends it [3], acts on what has been answered meanwhile, and goes on
 * until the target is reached, something new is asked for, or it cannot go
 * on. Then there is a reason, enum hpb_stop, visible in debugfs, traced, and
 * logged once for each target; and, unless the host has refused for good, a next
 * attempt, after a delay that doubles up to HPB_BACKOFF_MAX as long as attempts
 * achieve little.
 *
 * A kick (configuration change, memory that came or went) makes a pass stop at
 * the next batch, and the worker look again. It never sleeps but for answers.
 *
 * Invariants
 *  - held + in inflate requests never exceeds the requested size because of
 *    this file (DRV-7).
 *  - A block reaches the page allocator only after an answer that names it:
 *    a deflate that was done, or an inflate that was not (DRV-13, DRV-16).
 *  - No reason for stopping leads to another attempt at once.
 *
 * Rejected: one block at a time through the whole path, simpler, and what the
 * traditional driver does with pages; most time then goes into round trips.
 */
#include <linux/export.h>
#include <linux/gfp.h>

#include "balloon_hp.h"
#include "trace.h"

/*
 * What to do about an errno from hpb_status_errno(). In ascending order of how
 * much they say about a pass: if some blocks may work later, there is a later.
 */
enum hpb_verdict {
	HPB_FINE,	/* nothing to do */
	HPB_NOW,	/* try again at once */
	HPB_NEVER,	/* trying again does not help, only another target does */
	HPB_LATER,	/* try again after a delay */
};

/* The one switch that decides between trying again and giving up. */
static enum hpb_verdict hpb_judge(int err)
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

static enum hpb_stop hpb_stop_for(int err)
{
	switch (hpb_judge(err)) {
	case HPB_FINE:
	case HPB_NOW:
		return HPB_STOP_NONE;
	case HPB_LATER:
		return err == -ENOMEM ? HPB_STOP_NOMEM : HPB_STOP_HOST;
	case HPB_NEVER:
		break;
	}
	return HPB_STOP_REFUSED;
}

static void hpb_tally_add(struct hpb_tally *t, unsigned long done,
			  unsigned long failed, int err)
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
		if (piece.fate == HPB_DONE)
			hpb_tally_add(&mine, piece.range.count, 0, 0);
		else
			hpb_tally_add(&mine, 0, piece.range.count,
				      hpb_status_errno(piece.status));
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
		hpb_pool_get(bh, &bh->fresh, &run, 1, &nr, HPB_MARK_BATCH);
		spin_unlock(&bh->lock);
		if (!nr)
			return;
		hpb_mark(bh, run);
		spin_lock(&bh->lock);
		hpb_pool_put(bh, &bh->held, run);
		spin_unlock(&bh->lock);
	}
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

/* hpb_wait(), but first do what can be done while waiting. */
static int hpb_await(struct hpb *bh)
{
	while (bh->kcore_off && hpb_mark_some(bh))
		if (hpb_answered(bh))
			return 0;
	hpb_mark_all(bh);
	return hpb_wait(bh);
}

/* Act on answers until none is outstanding. */
static int hpb_drain(struct hpb *bh, struct hpb_tally *tally)
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

/* A slot to fill, or NULL with the reason in @tally. */
static struct hpb_slot *hpb_next_slot(struct hpb *bh, u16 type,
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

/* hpb_send() that waits for room in the ring. */
static int hpb_send_wait(struct hpb *bh, struct hpb_slot *slot,
			 struct hpb_tally *tally)
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

/* Something new to look at: leave the pass. */
static bool hpb_interrupted(struct hpb *bh, int seen)
{
	return atomic_read(&bh->kicks) != seen || READ_ONCE(bh->stopping) ||
	       atomic_read(&bh->holds) || !hpb_running(bh);
}

/* Deflating */

static unsigned long hpb_fill_deflate(struct hpb *bh, struct hpb_pool *pool,
				      struct hpb_slot *slot, unsigned long max,
				      u64 start, u64 end)
{
	spin_lock(&bh->lock);
	slot->from = pool;
	slot->blocks = hpb_pool_clip(bh, pool, slot->ranges,
				     hpb_slot_cap(bh, slot), &slot->nr, max,
				     start, end);
	bh->deflating += slot->blocks;
	spin_unlock(&bh->lock);
	slot->nr = hpb_ranges_merge(slot->ranges, slot->nr, bh->max_range);
	return slot->blocks;
}

/* Put the blocks of a request that could not be sent back where they were. */
static void hpb_unfill(struct hpb *bh, struct hpb_slot *slot)
{
	unsigned int i;

	for (i = 0; i < slot->nr && !slot->from; i++)
		hpb_return_bare(bh, slot->ranges[i]);

	spin_lock(&bh->lock);
	for (i = 0; i < slot->nr && slot->from; i++)
		hpb_pool_put(bh, slot->from, slot->ranges[i]);
	if (slot->type == VIRTIO_BALLOON_HP_REQ_DEFLATE)
		bh->deflating -= slot->blocks;
	else
		bh->inflating -= slot->blocks;
	spin_unlock(&bh->lock);
	hpb_slot_put(bh, slot, HPB_SLOT_FREE);
}

/**
 * hpb_deflate_pass() - ask for blocks back
 * @bh:    balloon; @bh->op is held
 * @pool:  where the blocks are
 * @want:  blocks to ask for
 * @start: first block of the part of memory they may come from
 * @end:   first block behind it
 * @seen:  value of @bh->kicks at which to go on, NULL: go on in any case
 * @tally: added to
 *
 * Ends when everything was asked for, or something was refused, or on a kick;
 * all requests it sent have been answered then, unless the device is broken or
 * waits are bounded.
 */
static void hpb_deflate_pass(struct hpb *bh, struct hpb_pool *pool,
			     unsigned long want, u64 start, u64 end,
			     const int *seen, struct hpb_tally *tally)
{
	struct hpb_slot *slot;
	int err;

	while (want && hpb_judge(tally->err) < HPB_LATER) {
		unsigned long n = min_t(unsigned long, want, HPB_DEFLATE_BATCH);

		if (seen && hpb_interrupted(bh, *seen))
			break;
		slot = hpb_next_slot(bh, VIRTIO_BALLOON_HP_REQ_DEFLATE, tally);
		if (!slot)
			break;
		n = hpb_fill_deflate(bh, pool, slot, n, start, end);
		if (!n) {
			hpb_slot_put(bh, slot, HPB_SLOT_FREE);
			break;
		}
		err = hpb_send_wait(bh, slot, tally);
		if (err) {
			hpb_unfill(bh, slot);
			hpb_tally_add(tally, 0, 0, err);
			break;
		}
		want -= n;
	}
	hpb_tally_add(tally, 0, 0, hpb_drain(bh, tally));
}

unsigned long hpb_deflate_all(struct hpb *bh)
{
	struct hpb_tally tally = {};

	hpb_mark_all(bh);
	hpb_deflate_pass(bh, &bh->undo, ULONG_MAX, 0, U64_MAX, NULL, &tally);
	hpb_deflate_pass(bh, &bh->held, ULONG_MAX, 0, U64_MAX, NULL, &tally);
	return hpb_out(bh) + bh->undo.blocks + bh->deflating;
}

int hpb_deflate_window(struct hpb *bh, u64 start, u64 end)
{
	struct hpb_tally tally = {};
	unsigned long left;

	hpb_mark_all(bh);
	hpb_deflate_pass(bh, &bh->undo, ULONG_MAX, start, end, NULL, &tally);
	hpb_deflate_pass(bh, &bh->held, ULONG_MAX, start, end, NULL, &tally);
	hpb_count(bh, HPB_C_OFFLINE_BLOCKS, tally.done);

	spin_lock(&bh->lock);
	left = hpb_pool_count(bh, &bh->held, start, end) +
	       hpb_pool_count(bh, &bh->fresh, start, end) +
	       hpb_pool_count(bh, &bh->undo, start, end);
	/* Requests without an answer may hold blocks from anywhere. */
	left += bh->inflating + bh->deflating;
	spin_unlock(&bh->lock);
	return left ? -EBUSY : 0;
}

/* Inflating */

static unsigned long hpb_fill_inflate(struct hpb *bh, struct hpb_take *take,
				      struct hpb_slot *slot, unsigned long want,
				      enum hpb_stop *why)
{
	spin_lock(&bh->lock);
	slot->blocks = hpb_pool_get(bh, &bh->idle, slot->ranges,
				    hpb_slot_cap(bh, slot), &slot->nr, want);
	spin_unlock(&bh->lock);
	slot->from = slot->blocks ? &bh->idle : NULL;
	if (slot->from)
		slot->nr = hpb_ranges_merge(slot->ranges, slot->nr,
					    bh->max_range);
	else
		hpb_take_blocks(bh, take, slot, want, why);

	spin_lock(&bh->lock);
	bh->inflating += slot->blocks;
	spin_unlock(&bh->lock);
	return slot->blocks;
}

static int hpb_send_inflate(struct hpb *bh, struct hpb_slot *slot,
			    struct hpb_tally *tally)
{
	int err;

	/* Blocks that come from a pool are unmanaged and marked already. */
	slot->marked = slot->from ? slot->blocks : 0;
	err = hpb_send_wait(bh, slot, tally);
	if (err) {
		hpb_unfill(bh, slot);
	} else if (!slot->from) {
		hpb_unmanage(bh, slot->ranges, slot->nr);
		bh->unmarked += slot->blocks;
	}
	if (bh->unmarked > HPB_UNMARKED_MAX)
		hpb_mark_all(bh);
	return err;
}

/**
 * hpb_inflate_pass() - give blocks up until @target are out
 * @bh:     balloon; @bh->op is held
 * @target: blocks
 * @seen:   value of @bh->kicks at which to go on
 * @tally:  added to
 *
 * Return: why no more blocks could be had, or HPB_STOP_NONE.
 */
static enum hpb_stop hpb_inflate_pass(struct hpb *bh, unsigned long target,
				      int seen, struct hpb_tally *tally)
{
	enum hpb_stop why = HPB_STOP_NONE;
	struct hpb_take take = {};
	struct hpb_slot *slot;
	unsigned long out;
	int err;

	while (!hpb_interrupted(bh, seen) && tally->failed < HPB_REFUSED_MAX &&
	       hpb_judge(tally->err) != HPB_LATER && !bh->undo.blocks) {
		slot = hpb_next_slot(bh, VIRTIO_BALLOON_HP_REQ_INFLATE, tally);
		if (!slot)
			break;
		out = hpb_out(bh) + READ_ONCE(bh->inflating);
		if (out >= target && hpb_in_flight(bh)) {
			/* Others take the place of what will be refused. */
			hpb_slot_put(bh, slot, HPB_SLOT_FREE);
			hpb_tally_add(tally, 0, 0, hpb_drain(bh, tally));
			continue;
		}
		if (out >= target ||
		    !hpb_fill_inflate(bh, &take, slot,
				      min_t(unsigned long, target - out,
					    HPB_INFLATE_BATCH), &why)) {
			hpb_slot_put(bh, slot, HPB_SLOT_FREE);
			break;
		}
		why = HPB_STOP_NONE;
		err = hpb_send_inflate(bh, slot, tally);
		if (err) {
			hpb_tally_add(tally, 0, 0, err);
			break;
		}
	}
	hpb_tally_add(tally, 0, 0, hpb_drain(bh, tally));
	hpb_mark_all(bh);
	return why;
}

/* Following the target */

static u64 hpb_read_requested(struct hpb *bh)
{
	u64 requested;

	virtio_cread_le(bh->vdev, struct virtio_balloon_hp_config, requested,
			&requested);
	return requested;
}

static void hpb_note_target(struct hpb *bh, u64 requested)
{
	if (requested == bh->requested)
		return;
	bh->requested = requested;
	bh->backoff = 0;
	bh->told = false;
	spin_lock(&bh->lock);
	bh->oom_until = 0;
	bh->stop = HPB_STOP_NONE;
	spin_unlock(&bh->lock);
	hpb_count(bh, HPB_C_TARGETS, 1);
	trace_hpb_target(bh->vdev->index, requested,
			 (u64)hpb_out(bh) << bh->shift);
}

static void hpb_set_stop(struct hpb *bh, enum hpb_stop stop)
{
	spin_lock(&bh->lock);
	bh->stop = stop;
	spin_unlock(&bh->lock);
}

/* Ended short of the target: say why, and come back later. */
static void hpb_stop_for_now(struct hpb *bh, enum hpb_stop stop,
			     const struct hpb_tally *tally)
{
	/* What was refused for good is not offered again (DRV-17). */
	bool again = stop != HPB_STOP_REFUSED;
	unsigned int delay = bh->backoff;

	/* Attempts that achieve something start over with short delays. */
	if (tally->done >= HPB_INFLATE_BATCH || !delay)
		delay = HPB_BACKOFF_MIN;
	else
		delay = min(delay * 2, HPB_BACKOFF_MAX);
	bh->backoff = delay;
	if (stop == HPB_STOP_OOM)
		delay = HPB_OOM_HOLD;
	if (!again)
		delay = 0;

	hpb_count(bh, HPB_C_STOPS, 1);
	trace_hpb_stop(bh->vdev->index, stop, bh->requested,
		       (u64)hpb_out(bh) << bh->shift, delay);
	if (!bh->told && bh->stop != stop) {
		bh->told = true;
		dev_info_ratelimited(&bh->vdev->dev,
				     "%llu MiB of %llu MiB are out: %s; %s\n",
				     ((u64)hpb_out(bh) << bh->shift) >> 20,
				     bh->requested >> 20, hpb_stop_name(stop),
				     again ? "trying again from time to time" :
				     "trying again when another size is requested");
	}
	hpb_set_stop(bh, stop);
	if (again && !READ_ONCE(bh->stopping))
		mod_delayed_work(bh->wq, &bh->work, msecs_to_jiffies(delay));
}

static bool hpb_oom_recent(struct hpb *bh)
{
	bool recent;

	spin_lock(&bh->lock);
	if (bh->oom_until && time_after_eq(jiffies, bh->oom_until))
		bh->oom_until = 0;
	recent = bh->oom_until;
	spin_unlock(&bh->lock);
	return recent;
}

/* Get blocks back that are partly out, for as long as that works. */
static void hpb_undo(struct hpb *bh, struct hpb_tally *tally)
{
	struct hpb_tally mine;

	do {
		mine = (struct hpb_tally){};
		hpb_deflate_pass(bh, &bh->undo, bh->undo.blocks, 0, U64_MAX,
				 NULL, &mine);
		hpb_tally_add(tally, mine.done, mine.failed, mine.err);
	} while (bh->undo.blocks && mine.done);
}

/* One pass towards @target blocks. Return: why it stopped short, or NONE. */
static enum hpb_stop hpb_pass(struct hpb *bh, unsigned long target, int seen,
			      struct hpb_tally *tally)
{
	enum hpb_stop why = HPB_STOP_NONE;
	unsigned long held;

	hpb_drain(bh, tally);
	hpb_mark_all(bh);
	hpb_undo(bh, tally);
	held = hpb_out(bh);
	if (target > held) {
		if (hpb_oom_recent(bh))
			return HPB_STOP_OOM;
		/* Not before the last trouble of this kind is over. */
		if (!bh->undo.blocks)
			why = hpb_inflate_pass(bh, target, seen, tally);
	} else if (target < held) {
		hpb_deflate_pass(bh, &bh->held, held - target, 0, U64_MAX,
				 &seen, tally);
	}
	hpb_undo(bh, tally);
	/* Only now, so that the pass does not take them a second time. */
	hpb_return_pool(bh, &bh->refused);
	/* After a reset: what was not wanted again, or did not go out again. */
	if (hpb_out(bh) >= target || !hpb_interrupted(bh, seen))
		hpb_return_pool(bh, &bh->idle);

	if (hpb_out(bh) == target && !bh->undo.blocks)
		return HPB_STOP_NONE;
	if (hpb_stop_for(tally->err) != HPB_STOP_NONE)
		return hpb_stop_for(tally->err);
	/* Told to try at once, but nothing moves: the host is busy. */
	if ((tally->failed && !tally->done) || bh->undo.blocks)
		return HPB_STOP_HOST;
	return why;
}

static void hpb_follow(struct hpb *bh)
{
	for (;;) {
		int seen = atomic_read(&bh->kicks);
		struct hpb_tally tally = {};
		unsigned long target;
		enum hpb_stop stop;

		if (atomic_read(&bh->holds) || READ_ONCE(bh->stopping) ||
		    !hpb_running(bh) || hpb_failed(bh))
			return;

		hpb_note_target(bh, hpb_read_requested(bh));
		target = min_t(u64, bh->requested >> bh->shift, ULONG_MAX);
		stop = hpb_pass(bh, target, seen, &tally);
		if (hpb_interrupted(bh, seen)) {
			/* Who interrupts has queued, or will queue, the work. */
			hpb_count(bh, HPB_C_INTERRUPTED, 1);
			return;
		}
		if (stop != HPB_STOP_NONE) {
			hpb_stop_for_now(bh, stop, &tally);
			return;
		}
		if (hpb_out(bh) == target && !bh->undo.blocks) {
			hpb_set_stop(bh, HPB_STOP_NONE);
			bh->backoff = 0;
			return;
		}
	}
}

void hpb_work(struct work_struct *work)
{
	struct hpb *bh = container_of(work, struct hpb, work.work);

	mutex_lock(&bh->op);
	hpb_follow(bh);
	mutex_unlock(&bh->op);
}
