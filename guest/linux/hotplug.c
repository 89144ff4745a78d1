// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp: memory that goes offline.
 *
 * Theory of operation
 *
 * When a memory block is about to go offline the driver deflates what it has
 * there, so that the pages are ordinary free pages when the kernel takes them
 * away. The kernel has isolated the memory by then, so the blocks cannot be
 * taken again; the worker takes others. If the device does not give all of them
 * back in time, offlining fails with -EBUSY, and nothing is lost.
 *
 * Rejected: dropping the page references and letting the memory go offline
 * ballooned, as virtio-mem does with memory it owns. The device would keep
 * counting ranges of a DIMM that may be unplugged next.
 */
#include <linux/memory.h>

#include "balloon_hp.h"

static int hpb_going_offline(struct hpb *bh, const struct memory_notify *mem)
{
	struct hpb_where where = {
		.start = mem->start_pfn >> bh->order,
		.end = DIV_ROUND_UP_ULL((u64)mem->start_pfn + mem->nr_pages,
					1UL << bh->order),
		.nid = NUMA_NO_NODE,
	};
	int err;

	hpb_op_begin(bh);
	/* After a reset: ours already, and the worker has not come yet. */
	hpb_return_pool(bh, &bh->idle);
	err = hpb_deflate_window(bh, &where);
	hpb_op_end(bh);

	if (err)
		dev_info(&bh->vdev->dev,
			 "memory %#llx-%#llx cannot go offline: the device does not give all of it back now\n",
			 where.start << bh->shift, (where.end << bh->shift) - 1);
	return err;
}

static int hpb_memory_notify(struct notifier_block *nb, unsigned long action,
			     void *arg)
{
	struct hpb *bh = container_of(nb, struct hpb, mem_nb);

	switch (action) {
	case MEM_GOING_OFFLINE:
		return notifier_from_errno(hpb_going_offline(bh, arg));
	case MEM_ONLINE:
	case MEM_OFFLINE:
	case MEM_CANCEL_OFFLINE:
		hpb_kick(bh);
		break;
	}
	return NOTIFY_OK;
}

int hpb_hotplug_init(struct hpb *bh)
{
	bh->mem_nb.notifier_call = hpb_memory_notify;
	return register_memory_notifier(&bh->mem_nb);
}

void hpb_hotplug_exit(struct hpb *bh)
{
	unregister_memory_notifier(&bh->mem_nb);
}
