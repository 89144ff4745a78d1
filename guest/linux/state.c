// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp: the state of the device as the driver sees it, and who
 * may move blocks.
 *
 * Theory of operation
 *
 * The state changes in hpb_set_state_locked() alone, which knows what may
 * follow what. Everybody who waits for an answer is woken by a change.
 *
 * One operation at a time moves blocks: it holds hpb.op. The worker's passes
 * can be long, so whoever else wants op raises hpb.holds first, and the worker
 * leaves its pass at the next batch.
 */
#include "balloon_hp.h"
#include "trace.h"

static const char * const hpb_state_names[] = {
	[HPB_DOWN]	= "down",
	[HPB_RUNNING]	= "running",
	[HPB_UNUSABLE]	= "unusable",
	[HPB_BROKEN]	= "broken",
	[HPB_GONE]	= "gone",
};

static const char * const hpb_stop_names[] = {
	[HPB_STOP_NONE]		= "none",
	[HPB_STOP_NO_BLOCKS]	= "the guest has no more free blocks",
	[HPB_STOP_FLOOR]	= "the guest needs the rest (floor_mib, floor_percent)",
	[HPB_STOP_RECLAIM]	= "the rest is page cache that the host lets it keep",
	[HPB_STOP_REFUSED]	= "the host refuses",
	[HPB_STOP_HOST]		= "the host is busy or failed",
	[HPB_STOP_NOMEM]	= "the host has no memory",
	[HPB_STOP_OOM]		= "the guest ran out of memory",
	[HPB_STOP_DEVICE]	= "the device is broken or cannot be served",
};

const char *hpb_state_name(enum hpb_state state)
{
	return hpb_state_names[state];
}

const char *hpb_stop_name(enum hpb_stop stop)
{
	return hpb_stop_names[stop];
}

static bool hpb_state_may(enum hpb_state from, enum hpb_state to)
{
	switch (to) {
	case HPB_DOWN:
		return from != HPB_GONE;
	case HPB_RUNNING:
	case HPB_UNUSABLE:
		return from == HPB_DOWN;
	case HPB_BROKEN:
		return from == HPB_RUNNING || from == HPB_UNUSABLE ||
		       from == HPB_DOWN;
	case HPB_GONE:
		return true;
	}
	return false;
}

static void hpb_set_state_locked(struct hpb *bh, enum hpb_state new)
{
	lockdep_assert_held(&bh->lock);
	if (WARN_ON_ONCE(!hpb_state_may(bh->state, new)))
		return;
	trace_hpb_state(bh->vdev->index, bh->state, new);
	WRITE_ONCE(bh->state, new);
	bh->stop = new == HPB_RUNNING ? HPB_STOP_NONE : HPB_STOP_DEVICE;
}

void hpb_set_state(struct hpb *bh, enum hpb_state new)
{
	spin_lock(&bh->lock);
	hpb_set_state_locked(bh, new);
	spin_unlock(&bh->lock);
	wake_up_all(&bh->answered);
}

void hpb_broken(struct hpb *bh, const char *why)
{
	bool news;

	spin_lock(&bh->lock);
	news = bh->state == HPB_RUNNING || bh->state == HPB_UNUSABLE;
	if (news)
		hpb_set_state_locked(bh, HPB_BROKEN);
	spin_unlock(&bh->lock);
	if (!news)
		return;
	wake_up_all(&bh->answered);
	dev_err(&bh->vdev->dev,
		"the device is broken (%s) and is not used any more; what is out stays out until it is reset: unbind and bind the driver, or reboot\n",
		why);
}

void hpb_kick(struct hpb *bh)
{
	atomic_inc(&bh->kicks);
	if (!READ_ONCE(bh->stopping))
		mod_delayed_work(bh->wq, &bh->work, 0);
}

void hpb_op_begin(struct hpb *bh)
{
	atomic_inc(&bh->holds);
	mutex_lock(&bh->op);
}

void hpb_op_end(struct hpb *bh)
{
	mutex_unlock(&bh->op);
	atomic_dec(&bh->holds);
	hpb_kick(bh);
}

void hpb_op_abandon(struct hpb *bh)
{
	WRITE_ONCE(bh->abandon, true);
	wake_up_all(&bh->answered);
	hpb_op_begin(bh);
	WRITE_ONCE(bh->abandon, false);
}
