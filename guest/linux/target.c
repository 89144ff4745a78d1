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
 * told the host, and logged once for each target; and, unless the host has refused
 * for good, a next attempt, not before a delay that doubles up to HPB_BACKOFF_MAX
 * as long as attempts achieve little. Where the guest is the reason, what wakes
 * the worker is memory that it has freed (wake.c).
 *
 * A kick (configuration change, memory that came or went) makes a pass stop at
 * the next batch, and the worker look again. It never sleeps but for answers.
 *
 * Invariants
 *  - held + in inflate requests never exceeds the requested size because of
 *    this file (DRV-7).
 *  - No reason for stopping leads to another attempt at once.
 *
 * Rejected: one block at a time through the whole path, simpler, and what the
 * traditional driver does with pages; most time then goes into round trips.
 */
#include "balloon_hp.h"
#include "trace.h"

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

bool hpb_interrupted(struct hpb *bh, int seen)
{
	return atomic_read(&bh->kicks) != seen || READ_ONCE(bh->stopping) ||
	       atomic_read(&bh->holds) || !hpb_running(bh);
}

/* Deflating */

static unsigned long hpb_fill_deflate(struct hpb *bh, struct hpb_pool *pool,
				      const struct hpb_where *where,
				      struct hpb_slot *slot, unsigned long max)
{
	spin_lock(&bh->lock);
	slot->from = pool;
	slot->blocks = hpb_pool_get(bh, pool, where, slot->ranges,
				    hpb_slot_cap(bh, slot), &slot->nr, max);
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
 * @where: part of memory they may come from
 * @want:  blocks to ask for
 * @seen:  value of @bh->kicks at which to go on, NULL: go on in any case
 * @tally: added to
 *
 * Ends when everything was asked for, or something was refused, or on a kick;
 * all requests it sent have been answered then, unless the device is broken or
 * waits are bounded.
 */
static void hpb_deflate_pass(struct hpb *bh, struct hpb_pool *pool,
			     const struct hpb_where *where, unsigned long want,
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
		n = hpb_fill_deflate(bh, pool, where, slot, n);
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
	hpb_deflate_pass(bh, &bh->undo, HPB_ANYWHERE, ULONG_MAX, NULL, &tally);
	hpb_deflate_pass(bh, &bh->held, HPB_ANYWHERE, ULONG_MAX, NULL, &tally);
	return hpb_out(bh) + bh->undo.blocks + bh->deflating;
}

int hpb_deflate_window(struct hpb *bh, const struct hpb_where *where)
{
	struct hpb_tally tally = {};
	unsigned long left;

	hpb_mark_all(bh);
	hpb_deflate_pass(bh, &bh->undo, where, ULONG_MAX, NULL, &tally);
	hpb_deflate_pass(bh, &bh->held, where, ULONG_MAX, NULL, &tally);
	hpb_count(bh, HPB_C_OFFLINE_BLOCKS, tally.done);

	spin_lock(&bh->lock);
	left = hpb_pool_count(bh, &bh->held, where) +
	       hpb_pool_count(bh, &bh->fresh, where) +
	       hpb_pool_count(bh, &bh->undo, where);
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
	struct hpb_where where = { .end = U64_MAX, .nid = take->nid };

	spin_lock(&bh->lock);
	slot->blocks = hpb_pool_get(bh, &bh->idle, &where, slot->ranges,
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
	if (hpb_mark_due(bh))
		hpb_mark_all(bh);
	return err;
}

/**
 * hpb_inflate_pass() - give blocks up until @target are out
 * @bh:     balloon; @bh->op is held
 * @nid:    node they have to come from, NUMA_NO_NODE: any
 * @target: blocks, of all nodes
 * @seen:   value of @bh->kicks at which to go on
 * @tally:  added to
 *
 * Return: why no more blocks could be had, or HPB_STOP_NONE.
 */
static enum hpb_stop hpb_inflate_pass(struct hpb *bh, int nid,
				      unsigned long target, int seen,
				      struct hpb_tally *tally)
{
	enum hpb_stop why = HPB_STOP_NONE, ignored;
	unsigned long out, batch = HPB_INFLATE_FIRST;
	struct hpb_take take;
	struct hpb_slot *slot;
	int err;

	hpb_take_begin(bh, &take, nid, seen);
	while (!hpb_interrupted(bh, seen) && tally->failed < HPB_REFUSED_MAX &&
	       hpb_judge(tally->err) != HPB_LATER && !bh->undo.blocks) {
		hpb_reap(bh, tally);
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
				      min(target - out, batch), &why)) {
			hpb_slot_put(bh, slot, HPB_SLOT_FREE);
			break;
		}
		why = HPB_STOP_NONE;
		batch = min_t(unsigned long, batch * 2, HPB_INFLATE_BATCH);
		err = hpb_send_inflate(bh, slot, tally);
		if (err) {
			hpb_tally_add(tally, 0, 0, err);
			break;
		}
	}
	hpb_tally_add(tally, 0, 0, hpb_drain(bh, tally));
	hpb_mark_all(bh);
	/* The guest must be able to use what it has left. */
	if (!hpb_interrupted(bh, seen))
		hpb_contig_flush(bh, &take, hpb_spare_blocks(bh, &ignored));
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

static void hpb_note_target(struct hpb *bh)
{
	u64 requested = hpb_read_requested(bh);
	bool changed = requested != bh->requested;

	changed |= hpb_nodes_read(bh);
	changed |= hpb_need_read(bh);
	if (!changed)
		return;
	bh->requested = requested;
	bh->backoff = 0;
	bh->flush_after = 0;
	/* That a loan is not all of the memory is no news. */
	bh->told = hpb_need_is_loan(bh->reclaim);
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
	hpb_tell(bh);
}

/* Whether it is for the guest to change this, and no use to ask the host. */
static bool hpb_stop_is_guests(enum hpb_stop stop)
{
	return stop == HPB_STOP_NO_BLOCKS || stop == HPB_STOP_FLOOR ||
	       stop == HPB_STOP_RECLAIM;
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
	else if (hpb_stop_is_guests(stop))
		delay = hpb_wake_wait(bh, delay);
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

	while (bh->undo.blocks) {
		mine = (struct hpb_tally){};
		hpb_deflate_pass(bh, &bh->undo, HPB_ANYWHERE, bh->undo.blocks,
				 NULL, &mine);
		hpb_tally_add(tally, mine.done, mine.failed, mine.err);
		if (!mine.done)
			break;
	}
}

/* Inflate until @target blocks are out, if this is a time for it. */
static enum hpb_stop hpb_inflate(struct hpb *bh, int nid, unsigned long target,
				 int seen, struct hpb_tally *tally)
{
	if (hpb_oom_recent(bh)) {
		hpb_return_pool(bh, &bh->idle);
		return HPB_STOP_OOM;
	}
	/* Not before the last trouble of this kind is over. */
	if (bh->undo.blocks)
		return HPB_STOP_NONE;
	return hpb_inflate_pass(bh, nid, target, seen, tally);
}

/* Bring each node to its target. First what gives memory to the guest. */
static enum hpb_stop hpb_move_nodes(struct hpb *bh, int seen,
				    struct hpb_tally *tally)
{
	enum hpb_stop why = HPB_STOP_NONE, mine;
	int nid;

	for_each_node_state(nid, N_MEMORY) {
		struct hpb_where where = { .end = U64_MAX, .nid = nid };
		unsigned long held = hpb_node_out(bh, nid);

		if (held > bh->node_target[nid])
			hpb_deflate_pass(bh, &bh->held, &where,
					 held - bh->node_target[nid], &seen,
					 tally);
	}
	for_each_node_state(nid, N_MEMORY) {
		unsigned long held = hpb_node_out(bh, nid);

		if (held >= bh->node_target[nid] || hpb_interrupted(bh, seen))
			continue;
		mine = hpb_inflate(bh, nid, hpb_out(bh) +
				   bh->node_target[nid] - held, seen, tally);
		if (mine != HPB_STOP_NONE)
			why = mine;
	}
	return why;
}

/* Give the guest back what it is short of, and leave it alone for a while. */
static void hpb_relieve(struct hpb *bh, struct hpb_tally *tally)
{
	u64 bytes = hpb_shortage(bh);
	u64 before = tally->done;

	if (!bytes || !hpb_gives_back(bh))
		return;
	spin_lock(&bh->lock);
	bh->oom_until = (jiffies + msecs_to_jiffies(HPB_OOM_HOLD)) ?: 1;
	spin_unlock(&bh->lock);
	hpb_deflate_pass(bh, &bh->held, HPB_ANYWHERE,
			 max_t(u64, bytes >> bh->shift, HPB_OOM_BATCH), NULL,
			 tally);
	hpb_count(bh, HPB_C_RELIEF_BLOCKS, tally->done - before);
	hpb_need_looked(bh);
}

/* Return: whether what is out is what should be. */
static bool hpb_reached(struct hpb *bh, unsigned long target)
{
	if (bh->undo.blocks)
		return false;
	return bh->by_node ? hpb_nodes_reached(bh) : hpb_out(bh) == target;
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
	hpb_relieve(bh, tally);
	held = hpb_out(bh);
	if (bh->by_node)
		why = hpb_move_nodes(bh, seen, tally);
	else if (target > held)
		why = hpb_inflate(bh, NUMA_NO_NODE, target, seen, tally);
	else if (target < held)
		hpb_deflate_pass(bh, &bh->held, HPB_ANYWHERE, held - target,
				 &seen, tally);
	hpb_undo(bh, tally);
	/* Only now, so that the pass does not take them a second time. */
	hpb_return_pool(bh, &bh->refused);
	/* After a reset: what was not wanted again, or did not go out again. */
	if (hpb_out(bh) >= target || !hpb_interrupted(bh, seen))
		hpb_return_pool(bh, &bh->idle);

	if (hpb_reached(bh, target))
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

		hpb_note_target(bh);
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
		if (hpb_reached(bh, target)) {
			hpb_set_stop(bh, HPB_STOP_NONE);
			hpb_wake_off(bh);
			bh->backoff = 0;
			return;
		}
	}
}

void hpb_work(struct work_struct *work)
{
	struct hpb *bh = container_of(work, struct hpb, work.work);

	u64 began = ktime_get_ns();

	mutex_lock(&bh->op);
	WRITE_ONCE(bh->waiting, false);
	hpb_follow(bh);
	mutex_unlock(&bh->op);
	hpb_count(bh, HPB_C_WORK_NS, ktime_get_ns() - began);
}
