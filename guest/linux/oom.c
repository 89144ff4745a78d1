// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp: give memory back before the guest kills for it.
 *
 * Theory of operation
 *
 * With DEFLATE_ON_OOM negotiated (DRV-22), and always for memory that is only
 * lent (DRV-27), the kernel asks here before it picks a victim. The notifier runs in whatever task failed to allocate, with any
 * locks of that task held, so it must not allocate and must not wait for
 * anyone who does: it has a slot of its own, sends one request with what the
 * ring has room for, waits a bounded time for the answer, and returns the
 * blocks to the allocator itself. If the worker is deflating already there may
 * be nothing left to ask for; then the notifier waits for the worker's blocks.
 *
 * The worker leaves the guest alone for HPB_OOM_HOLD afterwards, or until
 * another size is requested, and then returns to it as far as the floor lets.
 *
 * Invariants
 *  - hpb.op, which is held across allocations, is never taken here.
 *  - The kernel runs OOM notifiers one at a time, so the slot has one user;
 *    an answer that comes after the wait is claimed by whoever sees it first.
 *
 * Rejected: only kicking the worker. It would deflate too, but after the
 * kernel has been told that nothing was freed, and has killed.
 */
#include <linux/gfp.h>
#include <linux/oom.h>

#include "balloon_hp.h"

/* That of the traditional balloon: in a guest with both, any order works. */
#define HPB_OOM_PRIORITY	80

void hpb_oom_reap(struct hpb *bh)
{
	struct hpb_tally tally = {};

	if (!hpb_slot_claim(bh, &bh->oom_slot, HPB_SLOT_ANSWERED,
			    HPB_SLOT_SETTLING))
		return;
	hpb_settle(bh, &bh->oom_slot, &tally);
	hpb_count(bh, HPB_C_OOM_BLOCKS, tally.done);
}

/* Return: whether a request is on its way. */
static bool hpb_oom_ask(struct hpb *bh)
{
	struct hpb_slot *slot = &bh->oom_slot;
	unsigned int i;

	hpb_oom_reap(bh);
	if (!hpb_slot_claim(bh, slot, HPB_SLOT_FREE, HPB_SLOT_FILLING))
		return true;

	slot->type = VIRTIO_BALLOON_HP_REQ_DEFLATE;
	slot->nr = 0;
	spin_lock(&bh->lock);
	/* Under the lock: a reset moves the blocks elsewhere, see hpb_reset(). */
	slot->blocks = 0;
	slot->from = bh->held.blocks ? &bh->held : &bh->fresh;
	if (hpb_running(bh))
		slot->blocks = hpb_pool_get(bh, slot->from, HPB_ANYWHERE,
					    slot->ranges, hpb_slot_cap(bh, slot),
					    &slot->nr, HPB_OOM_BATCH);
	bh->deflating += slot->blocks;
	bh->oom_marks = slot->from == &bh->fresh;
	spin_unlock(&bh->lock);

	/* Out until the answer, and no longer where hpb_mark_all() looks. */
	if (bh->oom_marks) {
		for (i = 0; i < slot->nr; i++)
			hpb_mark(bh, slot->ranges[i]);
		WRITE_ONCE(bh->oom_marks, false);
		wake_up_all(&bh->answered);
	}

	if (slot->blocks && !hpb_send(bh, slot, GFP_ATOMIC | __GFP_NOWARN))
		return true;

	spin_lock(&bh->lock);
	for (i = 0; i < slot->nr; i++)
		hpb_pool_put(bh, slot->from, slot->ranges[i]);
	bh->deflating -= slot->blocks;
	spin_unlock(&bh->lock);
	hpb_slot_put(bh, slot, HPB_SLOT_FREE);
	return false;
}

static u64 hpb_deflated(struct hpb *bh)
{
	return atomic64_read(&bh->counts[HPB_C_DEFLATE_BLOCKS]);
}

static int hpb_oom_notify(struct notifier_block *nb, unsigned long unused,
			  void *parm)
{
	struct hpb *bh = container_of(nb, struct hpb, oom_nb);
	unsigned long *freed = parm;
	u64 before = hpb_deflated(bh);

	if (!hpb_running(bh) || !hpb_gives_back(bh))
		return NOTIFY_OK;

	spin_lock(&bh->lock);
	bh->oom_until = (jiffies + msecs_to_jiffies(HPB_OOM_HOLD)) ?: 1;
	spin_unlock(&bh->lock);
	hpb_count(bh, HPB_C_OOM, 1);

	if (hpb_oom_ask(bh) || READ_ONCE(bh->deflating))
		wait_event_timeout(bh->answered,
				   READ_ONCE(bh->oom_slot.state) == HPB_SLOT_ANSWERED ||
				   hpb_deflated(bh) != before ||
				   !hpb_running(bh), HPB_OOM_WAIT);
	hpb_oom_reap(bh);
	hpb_kick(bh);

	*freed += (unsigned long)(hpb_deflated(bh) - before) << bh->order;
	return NOTIFY_OK;
}

int hpb_oom_init(struct hpb *bh)
{
	if (!virtio_has_feature(bh->vdev, VIRTIO_BALLOON_HP_F_DEFLATE_ON_OOM) &&
	    !virtio_has_feature(bh->vdev, VIRTIO_BALLOON_HP_F_RECLAIM))
		return 0;
	bh->oom_nb.notifier_call = hpb_oom_notify;
	bh->oom_nb.priority = HPB_OOM_PRIORITY;
	return register_oom_notifier(&bh->oom_nb);
}

void hpb_oom_exit(struct hpb *bh)
{
	if (bh->oom_nb.notifier_call)
		unregister_oom_notifier(&bh->oom_nb);
}
