// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit device, the transport: what a PCI or MMIO function is for a real device.
 *
 * Its habits are those of the real transports where the driver can tell:
 * interrupts come in hard interrupt context and some time after their cause
 * (an hrtimer is the interrupt line), notifications may come in atomic context
 * and only wake the device's own thread, queues are numbered by the names that
 * are not NULL, and after a reset nothing of the device touches memory.
 *
 * Rejected: calling the driver's callbacks from the device's thread. It is
 * simpler, but hides lock order and context errors from lockdep.
 */
#include <linux/slab.h>
#include <linux/virtio_ring.h>
#include <linux/vmalloc.h>

#include "hp_device.h"

#define to_hp_dev(v) container_of(v, struct hp_dev, vdev)

/* no driver has this device ID: the test itself drives the device */
#define HP_ID_RAW 0x7fff

/*
 * A requirement of the specification was broken, by its number: DRV-8, DRV-9
 * (room for the response) and so on. A test that ends with one has failed.
 */
void hp_offence(struct hp_dev *dev, unsigned int drv, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	if (dev->nr_offences < HP_OFFENCES)
		vscnprintf(dev->offence[dev->nr_offences],
			   sizeof(dev->offence[0]), fmt, args);
	va_end(args);
	dev->nr_offences++;
	dev->offences[drv]++;
}

static enum hrtimer_restart hp_irq_fire(struct hrtimer *timer)
{
	struct hp_dev *dev = container_of(timer, struct hp_dev, irq);
	unsigned long pending = xchg(&dev->irq_pending, 0);
	unsigned int i;

	for (i = 0; i < VIRTIO_BALLOON_HP_VQ_MAX; i++)
		if (test_bit(i, &pending) && dev->queue[i].vq)
			vring_interrupt(0, dev->queue[i].vq);
	if (test_bit(HP_IRQ_CONFIG, &pending))
		virtio_config_changed(&dev->vdev);
	return HRTIMER_NORESTART;
}

void hp_irq(struct hp_dev *dev, unsigned int bit)
{
	set_bit(bit, &dev->irq_pending);
	hrtimer_start(&dev->irq, ns_to_ktime(1000), HRTIMER_MODE_REL_HARD);
}

static void hp_irq_stop(struct hp_dev *dev)
{
	hrtimer_cancel(&dev->irq);
	dev->irq_pending = 0;
}

static void hp_get(struct virtio_device *vdev, unsigned int offset, void *buf,
		   unsigned int len)
{
	struct hp_dev *dev = to_hp_dev(vdev);
	unsigned long flags;
	size_t size;

	spin_lock_irqsave(&dev->config_lock, flags);
	size = sizeof(dev->config) +
	       le32_to_cpu(dev->config.nr_nodes) * sizeof(*dev->node);
	if (offset <= size && len <= size - offset)
		memcpy(buf, (u8 *)&dev->config + offset, len);
	else
		hp_offence(dev, 5, "config read of %u at %u, which is no field",
			   len, offset);
	spin_unlock_irqrestore(&dev->config_lock, flags);
}

/* DRV-5: the configuration is read-only, whatever the driver writes */
static void hp_set(struct virtio_device *vdev, unsigned int offset,
		   const void *buf, unsigned int len)
{
	hp_offence(to_hp_dev(vdev), 5, "config write of %u at %u", len, offset);
}

static u32 hp_generation(struct virtio_device *vdev)
{
	return READ_ONCE(to_hp_dev(vdev)->generation);
}

static u8 hp_get_status(struct virtio_device *vdev)
{
	return READ_ONCE(to_hp_dev(vdev)->status);
}

static void hp_set_status(struct virtio_device *vdev, u8 status)
{
	struct hp_dev *dev = to_hp_dev(vdev);

	if (status & VIRTIO_CONFIG_S_FEATURES_OK &&
	    !(dev->status & VIRTIO_CONFIG_S_FEATURES_OK)) {
		if (!__virtio_test_bit(vdev, VIRTIO_F_VERSION_1))
			hp_offence(dev, 1, "VERSION_1 was not accepted");
		/* the device cannot work with I/O virtual addresses */
		if (__virtio_test_bit(vdev, VIRTIO_F_ACCESS_PLATFORM)) {
			hp_offence(dev, 2, "ACCESS_PLATFORM was accepted");
			status &= ~VIRTIO_CONFIG_S_FEATURES_OK;
		}
	}
	WRITE_ONCE(dev->status, status);
	/* what was made available before DRIVER_OK is looked at now */
	if (status & VIRTIO_CONFIG_S_DRIVER_OK)
		kthread_queue_work(dev->worker, &dev->work);
	wake_up_all(&dev->wq);
}

static u64 hp_get_features(struct virtio_device *vdev)
{
	return to_hp_dev(vdev)->features;
}

static int hp_finalize_features(struct virtio_device *vdev)
{
	vring_transport_features(vdev);
	if (vdev->features & ~to_hp_dev(vdev)->features)
		hp_offence(to_hp_dev(vdev), 1, "features %llx were not offered",
			   vdev->features & ~to_hp_dev(vdev)->features);
	return 0;
}

/* DRV-23: memory may be used once this returns, and not before. */
static void hp_reset(struct virtio_device *vdev)
{
	struct hp_dev *dev = to_hp_dev(vdev);

	mutex_lock(&dev->lock);
	hp_irq_stop(dev);
	if (dev->status & VIRTIO_CONFIG_S_DRIVER_OK) {
		dev->seen.resets++;
		dev->seen.reset_out = dev->mem.nr_out * dev->mem.unit;
	}
	hp_queue_verify_all(dev, 23);
	hp_queue_abandon(dev);
	hp_memory_clear(&dev->mem);
	dev->silent = false;
	spin_lock_irq(&dev->config_lock);
	dev->config.actual = 0;
	dev->generation++;
	WRITE_ONCE(dev->status, 0);
	spin_unlock_irq(&dev->config_lock);
	mutex_unlock(&dev->lock);
	wake_up_all(&dev->wq);
}

static bool hp_notify(struct virtqueue *vq)
{
	struct hp_dev *dev = to_hp_dev(vq->vdev);

	dev->seen.kicks++;
	if (!(READ_ONCE(dev->status) & VIRTIO_CONFIG_S_DRIVER_OK))
		hp_offence(dev, 4, "queue %u notified without DRIVER_OK", vq->index);
	kthread_queue_work(dev->worker, &dev->work);
	return true;
}

static void hp_free_vqs(struct hp_dev *dev)
{
	unsigned int i;

	mutex_lock(&dev->lock);
	hp_irq_stop(dev);
	for (i = 0; i < VIRTIO_BALLOON_HP_VQ_MAX; i++) {
		if (dev->queue[i].vq)
			vring_del_virtqueue(dev->queue[i].vq);
		dev->queue[i].vq = NULL;
	}
	mutex_unlock(&dev->lock);
}

static void hp_del_vqs(struct virtio_device *vdev)
{
	struct hp_dev *dev = to_hp_dev(vdev);

	if (dev->status & VIRTIO_CONFIG_S_DRIVER_OK)
		hp_offence(dev, 23, "queues deleted while the device may use them");
	hp_free_vqs(dev);
}

static int hp_setup_vq(struct hp_dev *dev, unsigned int index,
		       struct virtqueue_info *info, struct virtqueue **vqp)
{
	struct hp_queue *q = &dev->queue[index];
	struct virtqueue *vq;
	int err;

	vq = vring_create_virtqueue(index, dev->params.queue_size, PAGE_SIZE,
				    &dev->vdev, true, false, info->ctx,
				    hp_notify, info->callback, info->name);
	if (!vq)
		return -ENOMEM;
	vq->num_max = dev->params.queue_size;
	err = vringh_init_iotlb(&q->vrh, dev->vdev.features,
				dev->params.queue_size, true,
				(void *)(uintptr_t)virtqueue_get_desc_addr(vq),
				(void *)(uintptr_t)virtqueue_get_avail_addr(vq),
				(void *)(uintptr_t)virtqueue_get_used_addr(vq));
	if (err) {
		vring_del_virtqueue(vq);
		return err;
	}
	vringh_set_iotlb(&q->vrh, dev->iotlb, &dev->iotlb_lock);
	q->vq = vq;
	*vqp = vq;
	return 0;
}

/* Numbered by names, as virtio_pci and virtio_mmio do it. */
static int hp_find_vqs(struct virtio_device *vdev, unsigned int nvqs,
		       struct virtqueue *vqs[], struct virtqueue_info vqs_info[],
		       struct irq_affinity *desc)
{
	struct hp_dev *dev = to_hp_dev(vdev);
	unsigned int i, index = 0;
	/* tests let the transport fail, as one does that is out of vectors */
	int err = dev->fail_vqs ? -ENOSPC : 0;

	for (i = 0; i < nvqs && !err; i++) {
		vqs[i] = NULL;
		if (!vqs_info[i].name)
			continue;
		if (index == VIRTIO_BALLOON_HP_VQ_MAX)
			err = -ENOENT;
		else
			err = hp_setup_vq(dev, index++, &vqs_info[i], &vqs[i]);
	}
	if (err)
		hp_free_vqs(dev);
	return err;
}

static const char *hp_bus_name(struct virtio_device *vdev)
{
	return "hp-kunit";
}

static const struct virtio_config_ops hp_ops = {
	.get = hp_get,
	.set = hp_set,
	.generation = hp_generation,
	.get_status = hp_get_status,
	.set_status = hp_set_status,
	.reset = hp_reset,
	.find_vqs = hp_find_vqs,
	.del_vqs = hp_del_vqs,
	.get_features = hp_get_features,
	.finalize_features = hp_finalize_features,
	.bus_name = hp_bus_name,
};

static void hp_release_dev(struct device *d)
{
	struct hp_dev *dev = to_hp_dev(dev_to_virtio(d));

	complete(&dev->released);
}

static void hp_dev_defaults(struct hp_dev *dev, const struct hp_params *params)
{
	struct hp_params *p = &dev->params;
	unsigned int i;

	*p = *params;
	p->unit = p->unit ?: SZ_2M;
	p->preferred = p->preferred ?: max_t(u64, p->unit, SZ_2M);
	p->queue_size = p->queue_size ?: HP_QUEUE_SIZE;
	p->max_ranges = p->max_ranges ?: p->queue_size - 2;
	dev->decide = p->decide;
	dev->features = p->features;
	if (!p->legacy)
		dev->features |= BIT_ULL(VIRTIO_F_VERSION_1);
	dev->config.requested = cpu_to_le64(p->requested);
	dev->config.preferred = cpu_to_le64(p->preferred);
	dev->config.unit = cpu_to_le64(p->unit);
	dev->config.max_ranges = cpu_to_le32(p->max_ranges);
	dev->config.nr_nodes = cpu_to_le32(p->nr_nodes);
	for (i = 0; i < HP_NODES; i++)
		dev->node[i].requested = cpu_to_le64(VIRTIO_BALLOON_HP_NODE_ANY);
	if (p->lie)
		dev->config = *p->lie;

	mutex_init(&dev->lock);
	spin_lock_init(&dev->config_lock);
	spin_lock_init(&dev->iotlb_lock);
	init_waitqueue_head(&dev->wq);
	init_completion(&dev->released);
	INIT_LIST_HEAD(&dev->idle);
	INIT_LIST_HEAD(&dev->held);
	kthread_init_work(&dev->work, hp_queue_work);
	hrtimer_init(&dev->irq, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	dev->irq.function = hp_irq_fire;
	for (i = 0; i < VIRTIO_BALLOON_HP_VQ_MAX; i++) {
		dev->queue[i].dev = dev;
		dev->queue[i].index = i;
	}
	dev->vdev.id.device = p->raw ? HP_ID_RAW : VIRTIO_BALLOON_HP_DEVICE_ID;
	dev->vdev.id.vendor = 0x6870;
	dev->vdev.config = &hp_ops;
	dev->vdev.dev.release = hp_release_dev;
}

static int hp_dev_resources(struct hp_dev *dev)
{
	unsigned int i;
	int err;

	err = hp_memory_init(&dev->mem, dev->params.unit);
	if (err)
		return err;
	dev->pool = vcalloc(HP_REQUESTS, sizeof(*dev->pool));
	/* addresses on the ring are physical: one mapping, onto itself */
	dev->iotlb = vhost_iotlb_alloc(1, 0);
	if (!dev->pool || !dev->iotlb)
		return -ENOMEM;
	for (i = 0; i < HP_REQUESTS; i++)
		list_add_tail(&dev->pool[i].link, &dev->idle);
	err = vhost_iotlb_add_range(dev->iotlb, 0, dev->mem.end - 1, 0,
				    VHOST_MAP_RW);
	if (err)
		return err;
	dev->worker = kthread_create_worker(0, "hp-device");
	if (IS_ERR(dev->worker)) {
		err = PTR_ERR(dev->worker);
		dev->worker = NULL;
	}
	return err;
}

struct hp_dev *hp_dev_plug(struct kunit *test, const struct hp_params *params)
{
	struct hp_dev *dev;
	int err;

	dev = kzalloc(sizeof(*dev), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, dev);
	dev->test = test;
	hp_dev_defaults(dev, params);
	err = hp_dev_resources(dev);
	if (err) {
		hp_dev_free(dev);
		KUNIT_FAIL_AND_ABORT(test, "no memory for the device: %d", err);
	}
	err = register_virtio_device(&dev->vdev);
	if (err) {
		put_device(&dev->vdev.dev);
		hp_dev_free(dev);
		KUNIT_FAIL_AND_ABORT(test, "device not registered: %d", err);
	}
	dev->plugged = true;
	return dev;
}

void hp_dev_unplug(struct hp_dev *dev)
{
	if (!dev->plugged)
		return;
	dev->plugged = false;
	unregister_virtio_device(&dev->vdev);
	wait_for_completion(&dev->released);
}

void hp_dev_free(struct hp_dev *dev)
{
	hp_dev_unplug(dev);
	if (dev->worker)
		kthread_destroy_worker(dev->worker);
	hrtimer_cancel(&dev->irq);
	if (dev->iotlb)
		vhost_iotlb_free(dev->iotlb);
	vfree(dev->pool);
	hp_memory_free(&dev->mem);
	kfree(dev);
}

bool hp_dev_is_driven(struct hp_dev *dev)
{
	return dev->vdev.dev.driver &&
	       READ_ONCE(dev->status) & VIRTIO_CONFIG_S_DRIVER_OK;
}

void hp_dev_request(struct hp_dev *dev, u64 bytes)
{
	unsigned int i;

	spin_lock_irq(&dev->config_lock);
	for (i = 0; i < HP_NODES; i++)
		dev->node[i].requested = cpu_to_le64(VIRTIO_BALLOON_HP_NODE_ANY);
	dev->config.requested = cpu_to_le64(bytes);
	dev->generation++;
	spin_unlock_irq(&dev->config_lock);
	hp_irq(dev, HP_IRQ_CONFIG);
}

void hp_dev_request_nodes(struct hp_dev *dev, const u64 bytes[HP_NODES])
{
	u64 sum = 0;
	unsigned int i;

	spin_lock_irq(&dev->config_lock);
	for (i = 0; i < HP_NODES; i++) {
		dev->node[i].requested = cpu_to_le64(bytes[i]);
		sum += bytes[i];
	}
	dev->config.requested = cpu_to_le64(sum);
	dev->generation++;
	spin_unlock_irq(&dev->config_lock);
	hp_irq(dev, HP_IRQ_CONFIG);
}

void hp_dev_reclaim(struct hp_dev *dev, u32 reclaim, u64 cache_floor)
{
	spin_lock_irq(&dev->config_lock);
	dev->config.reclaim = cpu_to_le32(reclaim);
	dev->config.cache_floor = cpu_to_le64(cache_floor);
	dev->generation++;
	spin_unlock_irq(&dev->config_lock);
	hp_irq(dev, HP_IRQ_CONFIG);
}

void hp_dev_needs_reset(struct hp_dev *dev)
{
	mutex_lock(&dev->lock);
	WRITE_ONCE(dev->status, dev->status | VIRTIO_CONFIG_S_NEEDS_RESET);
	mutex_unlock(&dev->lock);
	hp_irq(dev, HP_IRQ_CONFIG);
}

u64 hp_dev_actual(struct hp_dev *dev)
{
	return le64_to_cpu(READ_ONCE(dev->config.actual));
}

void hp_dev_expect_silence(struct hp_dev *dev)
{
	mutex_lock(&dev->lock);
	dev->silent = true;
	mutex_unlock(&dev->lock);
}
