// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp: what wakes a balloon that has stopped short of its target.
 *
 * Theory of operation
 *
 * When there is nothing to take, trying again helps only after the guest has
 * freed memory. The kernel has one event for that: page reporting, which calls
 * whoever has registered when blocks have become free. If the device wants
 * reports the event comes with them (reporting.c); else the driver registers
 * for as long as it is stopped, and reports nothing to anybody.
 *
 * An event does not lead to an attempt before the back-off is over, or a
 * guest that frees and allocates all the time would keep the worker busy. And
 * not everything is an event: blocks that could be emptied now, or another
 * driver that has page reporting for itself. So there is a timer as well, a
 * slow one where events can be hoped for.
 *
 * Rejected: a short timer alone, as other balloons have it. It costs most
 * where it helps least, in guests that stay as they are.
 */
#include "balloon_hp.h"

/* How much slower the timer is where events can be hoped for, and its limit. */
#define HPB_WAKE_PATIENCE	32
#define HPB_WAKE_MAX		600000	/* ms */

void hpb_wake(struct hpb *bh)
{
	unsigned long at = READ_ONCE(bh->wake_at), now = jiffies;

	if (!READ_ONCE(bh->waiting) || READ_ONCE(bh->stopping))
		return;
	WRITE_ONCE(bh->waiting, false);
	hpb_count(bh, HPB_C_WAKES, 1);
	mod_delayed_work(bh->wq, &bh->work,
			 time_after(at, now) ? at - now : 0);
}

static int hpb_wake_report(struct page_reporting_dev_info *info,
			   struct scatterlist *sgl, unsigned int nents)
{
	hpb_wake(container_of(info, struct hpb, wake));
	return 0;
}

unsigned int hpb_wake_wait(struct hpb *bh, unsigned int delay)
{
	bool reports = virtio_has_feature(bh->vdev, VIRTIO_BALLOON_HP_F_REPORTING);

	lockdep_assert_held(&bh->op);
	WRITE_ONCE(bh->wake_at, jiffies + msecs_to_jiffies(delay));
	if (!reports && !bh->wake_on) {
		bh->wake.report = hpb_wake_report;
		bh->wake.order = min_t(unsigned int, bh->order, pageblock_order);
		bh->wake_on = !page_reporting_register(&bh->wake);
	}
	WRITE_ONCE(bh->waiting, true);
	if (!bh->wake_on && !bh->reporting_on)
		return delay;
	return min_t(unsigned int, delay * HPB_WAKE_PATIENCE, HPB_WAKE_MAX);
}

void hpb_wake_off(struct hpb *bh)
{
	WRITE_ONCE(bh->waiting, false);
	if (bh->wake_on)
		page_reporting_unregister(&bh->wake);
	bh->wake_on = false;
}
