// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp: the virtio driver; probe, removal, suspend.
 *
 * Theory of operation
 *
 * probe reads the configuration, sets up the queues and lets the worker
 * (target.c) follow the requested size. A configuration that cannot be served
 * (DRV-6) leaves the inflate queue unused and statistics working.
 *
 * Going away, for good (remove) or for a while (freeze), ends in a device
 * reset, after which all memory is the driver's (DEV-25). remove first asks
 * politely for everything, so that the host has a say while it can still be
 * heard; it does not wait for ever. freeze does not ask: the blocks stay with
 * the driver, hidden, so that a hibernation image leaves them out, and restore
 * inflates the very same blocks again, without the page allocator. On reboot
 * and kexec the device is reset at once, so that the next kernel finds all of
 * its memory in place.
 *
 * Invariants
 *  - No request is added in a state other than RUNNING. Whoever leaves
 *    RUNNING passes vq_lock once before it resets the device.
 *  - The driver never writes to configuration space (DRV-5).
 *
 * Rejected: deflating everything on freeze, as the traditional driver does.
 * The host would have to find memory for a guest that is about to sleep.
 */
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/reboot.h>
#include <linux/slab.h>
#include <linux/suspend.h>
#include <uapi/linux/virtio_ids.h>

#include "balloon_hp.h"
#define CREATE_TRACE_POINTS
#include "trace.h"

static_assert(VIRTIO_BALLOON_HP_DEVICE_ID == VIRTIO_ID_MEMORY_BALLOON);
static_assert(sizeof(struct virtio_balloon_hp_config) == 56);
static_assert(offsetof(struct virtio_balloon_hp_config, actual) == 8);
static_assert(offsetof(struct virtio_balloon_hp_config, preferred) == 16);
static_assert(offsetof(struct virtio_balloon_hp_config, unit) == 24);
static_assert(offsetof(struct virtio_balloon_hp_config, max_ranges) == 32);
static_assert(sizeof(struct virtio_balloon_hp_req) == 16);
static_assert(offsetof(struct virtio_balloon_hp_req, resp_size) == 4);
static_assert(offsetof(struct virtio_balloon_hp_req, size) == 8);
static_assert(sizeof(struct virtio_balloon_hp_resp) == 16);
static_assert(offsetof(struct virtio_balloon_hp_resp, nr_exceptions) == 4);
static_assert(offsetof(struct virtio_balloon_hp_resp, done) == 8);
static_assert(sizeof(struct virtio_balloon_hp_exception) == 16);
static_assert(offsetof(struct virtio_balloon_hp_exception, status) == 8);
static_assert(sizeof(struct virtio_balloon_hp_stat) == 16);
static_assert(offsetof(struct virtio_balloon_hp_stat, val) == 8);
static_assert(offsetof(struct virtio_balloon_hp_config, reclaim) == 40);
static_assert(offsetof(struct virtio_balloon_hp_config, cache_floor) == 48);
static_assert(sizeof(struct virtio_balloon_hp_state) == 32);
static_assert(HPB_RESP_SIZE >= VIRTIO_BALLOON_HP_RESP_SIZE_MIN);

static void hpb_config_changed(struct virtio_device *vdev)
{
	struct hpb *bh = vdev->priv;

	hpb_kick(bh);
}

/* Bringing the device up */

/*
 * Read what is constant until the next reset. Sets @bh->order and what follows
 * from it; false if no block this driver can take suits the device.
 */
static bool hpb_read_config(struct hpb *bh, unsigned int *order)
{
	struct device *dev = &bh->vdev->dev;
	u64 block, largest = (u64)PAGE_SIZE << HPB_MAX_ORDER;
	u32 max;

	virtio_cread_le(bh->vdev, struct virtio_balloon_hp_config, preferred,
			&bh->preferred);
	virtio_cread_le(bh->vdev, struct virtio_balloon_hp_config, unit,
			&bh->unit);
	virtio_cread_le(bh->vdev, struct virtio_balloon_hp_config, max_ranges,
			&max);
	bh->max_ranges = min_t(u32, max, HPB_RANGES_MAX);

	if (!is_power_of_2(bh->unit) || bh->unit < SZ_4K ||
	    !is_power_of_2(bh->preferred) || bh->preferred < bh->unit || !max) {
		dev_err(dev, "the device's configuration makes no sense (unit %llu, preferred %llu, max_ranges %u): nothing will be ballooned; is QEMU's device the one this driver was written for?\n",
			bh->unit, bh->preferred, max);
		return false;
	}
	/* Beyond what the allocator hands out only where nothing less will do. */
	if (bh->unit > largest && IS_ENABLED(CONFIG_CONTIG_ALLOC))
		largest = HPB_RANGE_BYTES_MAX;
	block = bh->preferred <= largest ? bh->preferred : bh->unit;
	block = max_t(u64, block, HPB_BLOCK_MIN);
	if (block > largest) {
		dev_err(dev, "the device moves memory in units of %llu KiB, the guest's kernel cannot take more than %llu KiB in one piece: nothing will be ballooned; give the guest memory with smaller pages\n",
			bh->unit >> 10, largest >> 10);
		return false;
	}
	if (bh->preferred > block)
		dev_warn(dev, "the device prefers ranges of %llu KiB, the guest's kernel can take %llu KiB in one piece: less may be freed on the host than is ballooned\n",
			 bh->preferred >> 10, block >> 10);
	*order = ilog2(block) - PAGE_SHIFT;
	return true;
}

static void hpb_set_order(struct hpb *bh, unsigned int order)
{
	bh->order = order;
	bh->shift = order + PAGE_SHIFT;
	bh->upb = (1ULL << bh->shift) >> ilog2(bh->unit);
	bh->max_range = max_t(u64, HPB_RANGE_BYTES_MAX >> bh->shift, 1);
}

static int hpb_init_vqs(struct hpb *bh)
{
	struct virtqueue_info info[VIRTIO_BALLOON_HP_VQ_MAX] = {
		[VIRTIO_BALLOON_HP_VQ_INFLATE] = { "inflate", hpb_vq_answered },
		[VIRTIO_BALLOON_HP_VQ_DEFLATE] = { "deflate", hpb_vq_answered },
		[VIRTIO_BALLOON_HP_VQ_STATS] = { "stats", hpb_stats_wanted },
		[VIRTIO_BALLOON_HP_VQ_REPORTING] = { "reporting", hpb_reporting_answered },
	};
	unsigned int nr = VIRTIO_BALLOON_HP_VQ_DEFLATE + 1;
	unsigned int ring;
	int err;

	/*
	 * Transports number queues without gaps: the reporting queue is only
	 * found behind a statistics queue, which is set up but not used (DRV-4)
	 * if its feature was not negotiated.
	 */
	if (virtio_has_feature(bh->vdev, VIRTIO_BALLOON_HP_F_STATS))
		nr = VIRTIO_BALLOON_HP_VQ_STATS + 1;
	if (virtio_has_feature(bh->vdev, VIRTIO_BALLOON_HP_F_REPORTING))
		nr = VIRTIO_BALLOON_HP_VQ_REPORTING + 1;
	memset(bh->vqs, 0, sizeof(bh->vqs));
	err = hpb_find_vqs(bh->vdev, nr, bh->vqs, info);
	if (err && nr > VIRTIO_BALLOON_HP_VQ_REPORTING &&
	    !virtio_has_feature(bh->vdev, VIRTIO_BALLOON_HP_F_STATS)) {
		nr = VIRTIO_BALLOON_HP_VQ_DEFLATE + 1;
		err = hpb_find_vqs(bh->vdev, nr, bh->vqs, info);
	}
	if (err) {
		dev_err(&bh->vdev->dev, "cannot set up the device's %u queues (error %d)\n",
			nr, err);
		return err;
	}

	/*
	 * A request must fit into the ring without an indirect table, beside
	 * the message of tell.c, for which small rings have to make room.
	 */
	ring = min(virtqueue_get_vring_size(bh->vqs[VIRTIO_BALLOON_HP_VQ_INFLATE]),
		   virtqueue_get_vring_size(bh->vqs[VIRTIO_BALLOON_HP_VQ_DEFLATE]));
	if (ring < 3) {
		dev_err(&bh->vdev->dev, "the device's queues of %u entries have no room for a request\n",
			ring);
		bh->vdev->config->del_vqs(bh->vdev);
		return -EINVAL;
	}
	bh->max_ranges = min(bh->max_ranges, ring < 8 ? ring - 2 : ring - 4);
	return 0;
}

/* The device works from here on. */
static void hpb_go(struct hpb *bh, bool usable)
{
	virtio_device_ready(bh->vdev);
	hpb_set_state(bh, usable ? HPB_RUNNING : HPB_UNUSABLE);
	hpb_stats_start(bh);
	hpb_kick(bh);
}

static bool hpb_slot_busy(const struct hpb_slot *slot)
{
	enum hpb_slot_state state = READ_ONCE(slot->state);

	return state == HPB_SLOT_FILLING || state == HPB_SLOT_SETTLING;
}

/*
 * Stop and reset: nothing is out afterwards, no callback runs, and all blocks
 * are in bh->idle. @bh->op is held.
 */
static void hpb_reset(struct hpb *bh, enum hpb_state state)
{
	unsigned long flags;

	hpb_mark_all(bh);
	hpb_set_state(bh, state);
	/* Who is adding a request has added it; nobody will add another. */
	spin_lock_irqsave(&bh->vq_lock, flags);
	spin_unlock_irqrestore(&bh->vq_lock, flags);
	/* The OOM notifier does not take op; what it has begun ends soon. */
	wait_event(bh->answered, !hpb_slot_busy(&bh->oom_slot));
	hpb_stats_stop(bh);
	hpb_need_stop(bh);
	hpb_tell_stop(bh);

	virtio_reset_device(bh->vdev);
	hpb_stats_stop(bh);
	hpb_tell_reset(bh);
	spin_lock_irqsave(&bh->vq_lock, flags);
	WRITE_ONCE(bh->resets, bh->resets + 1);
	spin_unlock_irqrestore(&bh->vq_lock, flags);
	wake_up_all(&bh->answered);

	hpb_slots_recover(bh);
	spin_lock(&bh->lock);
	hpb_pool_move(bh, &bh->idle, &bh->held);
	hpb_pool_move(bh, &bh->idle, &bh->fresh);
	hpb_pool_move(bh, &bh->idle, &bh->undo);
	hpb_pool_move(bh, &bh->idle, &bh->refused);
	bh->inflating = 0;
	bh->deflating = 0;
	spin_unlock(&bh->lock);
}

/* Reboot, halt and kexec: the next kernel wants all of its memory. */
static int hpb_reboot(struct notifier_block *nb, unsigned long action,
		      void *unused)
{
	struct hpb *bh = container_of(nb, struct hpb, reboot_nb);

	WRITE_ONCE(bh->stopping, true);
	hpb_op_abandon(bh);
	hpb_reset(bh, HPB_GONE);
	hpb_op_end(bh);
	return NOTIFY_DONE;
}

/*
 * The worker's queue is frozen for a suspend, which waits for work that has
 * begun: make it end soon.
 */
static int hpb_pm_notify(struct notifier_block *nb, unsigned long action,
			 void *unused)
{
	struct hpb *bh = container_of(nb, struct hpb, pm_nb);

	switch (action) {
	case PM_SUSPEND_PREPARE:
	case PM_HIBERNATION_PREPARE:
	case PM_RESTORE_PREPARE:
		atomic_inc(&bh->holds);
		break;
	case PM_POST_SUSPEND:
	case PM_POST_HIBERNATION:
	case PM_POST_RESTORE:
		atomic_dec(&bh->holds);
		hpb_kick(bh);
		break;
	}
	return NOTIFY_OK;
}

static struct hpb *hpb_alloc_balloon(struct virtio_device *vdev)
{
	struct hpb *bh = kzalloc(sizeof(*bh), GFP_KERNEL);

	if (!bh)
		return NULL;
	bh->vdev = vdev;
	bh->state = HPB_DOWN;
	bh->stop = HPB_STOP_DEVICE;
	mutex_init(&bh->op);
	spin_lock_init(&bh->lock);
	spin_lock_init(&bh->vq_lock);
	init_waitqueue_head(&bh->answered);
	hpb_pool_init(&bh->held);
	hpb_pool_init(&bh->fresh);
	hpb_pool_init(&bh->undo);
	hpb_pool_init(&bh->idle);
	hpb_pool_init(&bh->refused);
	INIT_DELAYED_WORK(&bh->work, hpb_work);
	/*
	 * MEM_RECLAIM: deflating must go on when there is no memory for
	 * another worker thread. FREEZABLE: no requests while devices suspend.
	 */
	bh->wq = alloc_workqueue("hpb-%s", WQ_UNBOUND | WQ_FREEZABLE |
				 WQ_MEM_RECLAIM, 0, dev_name(&vdev->dev));
	if (!bh->wq) {
		kfree(bh);
		return NULL;
	}
	return bh;
}

static void hpb_free_balloon(struct hpb *bh)
{
	destroy_workqueue(bh->wq);
	kfree(bh);
}

static int hpb_notifiers_init(struct hpb *bh)
{
	int err;

	err = hpb_need_init(bh);
	if (err)
		return err;
	err = hpb_oom_init(bh);
	if (err)
		goto need;
	err = hpb_hotplug_init(bh);
	if (err)
		goto oom;
	bh->pm_nb.notifier_call = hpb_pm_notify;
	err = register_pm_notifier(&bh->pm_nb);
	if (err)
		goto hotplug;
	bh->reboot_nb.notifier_call = hpb_reboot;
	err = register_reboot_notifier(&bh->reboot_nb);
	if (err)
		goto pm;
	return 0;

pm:
	unregister_pm_notifier(&bh->pm_nb);
hotplug:
	hpb_hotplug_exit(bh);
oom:
	hpb_oom_exit(bh);
need:
	hpb_need_exit(bh);
	return err;
}

static void hpb_notifiers_exit(struct hpb *bh)
{
	unregister_reboot_notifier(&bh->reboot_nb);
	unregister_pm_notifier(&bh->pm_nb);
	hpb_hotplug_exit(bh);
	hpb_oom_exit(bh);
	hpb_need_exit(bh);
}

static int hpb_probe(struct virtio_device *vdev)
{
	unsigned int order = 0;
	struct hpb *bh;
	bool usable;
	int err;

	if (!vdev->config->get) {
		dev_err(&vdev->dev, "the transport gives no access to the configuration, which says what to balloon: not used\n");
		return -EINVAL;
	}
	bh = hpb_alloc_balloon(vdev);
	if (!bh)
		return -ENOMEM;
	vdev->priv = bh;

	usable = hpb_read_config(bh, &order);
	err = hpb_init_vqs(bh);
	if (err)
		goto free_balloon;
	if (usable) {
		hpb_set_order(bh, order);
		err = hpb_slots_alloc(bh);
		if (err)
			goto del_vqs;
	}
	err = hpb_nodes_alloc(bh);
	if (err)
		goto free_slots;
	err = hpb_stats_init(bh);
	if (err)
		goto free_nodes;
	err = hpb_tell_init(bh);
	if (err)
		goto free_stats;
	err = hpb_notifiers_init(bh);
	if (err)
		goto free_tell;

	hpb_debugfs_add(bh);
	hpb_go(bh, usable);

	err = usable ? hpb_reporting_init(bh) : 0;
	if (err)
		dev_warn(&vdev->dev,
			 "free pages are not reported (error %d; %d: another driver does it already)\n",
			 err, -EBUSY);
	return 0;

free_tell:
	hpb_tell_exit(bh);
free_stats:
	hpb_stats_exit(bh);
free_nodes:
	hpb_nodes_free(bh);
free_slots:
	hpb_slots_free(bh);
del_vqs:
	vdev->config->del_vqs(vdev);
free_balloon:
	hpb_free_balloon(bh);
	return err;
}

static void hpb_remove(struct virtio_device *vdev)
{
	struct hpb *bh = vdev->priv;
	unsigned long left = 0;

	hpb_debugfs_del(bh);
	hpb_notifiers_exit(bh);

	WRITE_ONCE(bh->stopping, true);
	wake_up_all(&bh->answered);
	cancel_delayed_work_sync(&bh->work);

	mutex_lock(&bh->op);
	if (hpb_running(bh))
		left = hpb_deflate_all(bh);
	hpb_reset(bh, HPB_GONE);
	mutex_unlock(&bh->op);
	if (left)
		dev_warn(&vdev->dev,
			 "the device did not give %llu MiB back; it was reset, which does\n",
			 ((u64)left << bh->shift) >> 20);

	hpb_wake_off(bh);
	hpb_reporting_exit(bh);
	/* A callback may have queued it just before. */
	cancel_delayed_work_sync(&bh->work);
	hpb_return_pool(bh, &bh->idle);
	vdev->config->del_vqs(vdev);
	hpb_tell_exit(bh);
	hpb_stats_exit(bh);
	hpb_nodes_free(bh);
	hpb_slots_free(bh);
	hpb_free_balloon(bh);
}

#ifdef CONFIG_PM_SLEEP
static int hpb_freeze(struct virtio_device *vdev)
{
	struct hpb *bh = vdev->priv;

	hpb_op_abandon(bh);
	hpb_reset(bh, HPB_DOWN);
	hpb_op_end(bh);
	vdev->config->del_vqs(vdev);
	return 0;
}

static int hpb_restore(struct virtio_device *vdev)
{
	struct hpb *bh = vdev->priv;
	unsigned int order = bh->order;
	bool usable;
	int err;

	/* The host may be another one, with another configuration. */
	usable = hpb_read_config(bh, &order) && bh->slots[0].cap;
	if (!usable || order != bh->order)
		hpb_return_pool(bh, &bh->idle);
	if (usable)
		hpb_set_order(bh, order);

	err = hpb_init_vqs(bh);
	if (err) {
		hpb_return_pool(bh, &bh->idle);
		hpb_set_state(bh, HPB_BROKEN);
		return err;
	}
	hpb_go(bh, usable);
	return 0;
}
#endif

static int hpb_validate(struct virtio_device *vdev)
{
	/* Ranges are guest-physical (DRV-2). */
	__virtio_clear_bit(vdev, VIRTIO_F_ACCESS_PLATFORM);

	if (!virtio_has_feature(vdev, VIRTIO_F_VERSION_1)) {
		dev_err(&vdev->dev, "the device does not offer VIRTIO_F_VERSION_1: it is not used; turn off disable-modern in QEMU\n");
		return -ENODEV;
	}
	if (virtio_has_feature(vdev, VIRTIO_BALLOON_HP_F_REPORTING) &&
	    !hpb_reporting_safe()) {
		dev_info(&vdev->dev, "free pages are not reported: page poisoning expects their contents to stay\n");
		__virtio_clear_bit(vdev, VIRTIO_BALLOON_HP_F_REPORTING);
	}
	return 0;
}

static const unsigned int hpb_features[] = {
	VIRTIO_BALLOON_HP_F_STATS,
	VIRTIO_BALLOON_HP_F_DEFLATE_ON_OOM,
	VIRTIO_BALLOON_HP_F_REPORTING,
	VIRTIO_BALLOON_HP_F_NODES,
	VIRTIO_BALLOON_HP_F_STATE,
	VIRTIO_BALLOON_HP_F_RECLAIM,
};

static const struct virtio_device_id hpb_ids[] = {
	{ VIRTIO_BALLOON_HP_DEVICE_ID, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, hpb_ids);

static struct virtio_driver hpb_driver = {
	.driver.name		= "virtio_balloon_hp",
	.driver.owner		= THIS_MODULE,
	.id_table		= hpb_ids,
	.feature_table		= hpb_features,
	.feature_table_size	= ARRAY_SIZE(hpb_features),
	.validate		= hpb_validate,
	.probe			= hpb_probe,
	.remove			= hpb_remove,
	.config_changed		= hpb_config_changed,
#ifdef CONFIG_PM_SLEEP
	.freeze			= hpb_freeze,
	.restore		= hpb_restore,
#endif
};

static int __init hpb_module_init(void)
{
	int err;

	hpb_debugfs_init();
	err = register_virtio_driver(&hpb_driver);
	if (err)
		hpb_debugfs_exit();
	return err;
}
module_init(hpb_module_init);

static void __exit hpb_module_exit(void)
{
	unregister_virtio_driver(&hpb_driver);
	hpb_debugfs_exit();
}
module_exit(hpb_module_exit);

MODULE_DESCRIPTION("Huge-page memory balloon (virtio device 13)");
MODULE_LICENSE("GPL");
