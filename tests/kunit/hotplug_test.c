// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit suite virtio_balloon_hp_hotplug: memory that is about to go offline.
 *
 * UML cannot unplug memory, and its notifier chain is empty; so the test calls
 * the driver's notifier with what the kernel would say.
 */
#include <linux/memory.h>

#include "hp_test.h"

#define HP_WINDOW SZ_128M

static u64 hotplug_out_in(struct hp_dev *dev, u64 start)
{
	struct hp_memory *m = &dev->mem;
	u64 addr, out = 0;

	mutex_lock(&dev->lock);
	for (addr = hp_memory_next(m, start, false); addr < start + HP_WINDOW;
	     addr = hp_memory_next(m, addr + m->unit, false))
		out += m->unit;
	mutex_unlock(&dev->lock);
	return out;
}

/* A stretch of memory of which some is out; an eighth at least. */
static u64 hotplug_window(struct hp_dev *dev)
{
	u64 start;

	for (start = 0; start + HP_WINDOW <= dev->mem.end; start += HP_WINDOW)
		if (hotplug_out_in(dev, start) >= HP_WINDOW / 8)
			return start;
	KUNIT_FAIL_AND_ABORT(dev->test, "nothing is out in any window");
	return 0;
}

static int hotplug_notify(struct hp_dev *dev, unsigned long action, u64 start)
{
	struct memory_notify arg = {
		.start_pfn = start >> PAGE_SHIFT,
		.nr_pages = HP_WINDOW >> PAGE_SHIFT,
	};
	struct notifier_block *nb = &hp_driver(dev)->mem_nb;

	return notifier_to_errno(nb->notifier_call(nb, action, &arg));
}

static struct hp_dev *hotplug_start(struct kunit *test, u64 unit)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(1200),
		.unit = unit,
	});

	hp_expect_out(dev, HP_MIB(1200));
	return dev;
}

/* The window is given back before the notifier returns, and only the window. */
static void hotplug_gives_back(struct kunit *test)
{
	struct hp_dev *dev = hotplug_start(test, 0);
	u64 start = hotplug_window(dev), there = hotplug_out_in(dev, start);

	KUNIT_EXPECT_EQ(test, hotplug_notify(dev, MEM_GOING_OFFLINE, start), 0);
	KUNIT_EXPECT_EQ(test, hotplug_out_in(dev, start), 0);
	KUNIT_EXPECT_EQ(test, hp_dev_actual(dev), HP_MIB(1200) - there);
	hp_expect_books(dev);
	/* others take their place */
	KUNIT_EXPECT_EQ(test, hotplug_notify(dev, MEM_OFFLINE, start), 0);
	hp_expect_out(dev, HP_MIB(1200));
}

static void hotplug_empty_window(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {});

	KUNIT_EXPECT_EQ(test, hotplug_notify(dev, MEM_GOING_OFFLINE, HP_WINDOW), 0);
	KUNIT_EXPECT_EQ(test, hotplug_notify(dev, MEM_CANCEL_OFFLINE, HP_WINDOW), 0);
	KUNIT_EXPECT_EQ(test, dev->seen.requests[VIRTIO_BALLOON_HP_REQ_DEFLATE], 0);
}

static void hotplug_refuse(struct hp_dev *dev, struct hp_request *req)
{
	if (req->type == VIRTIO_BALLOON_HP_REQ_DEFLATE)
		hp_refuse(req, 0, 1, VIRTIO_BALLOON_HP_NOMEM);
}

/* The host has no memory for one block: the memory stays online, and all is well */
static void hotplug_refused(struct kunit *test)
{
	struct hp_dev *dev = hotplug_start(test, 0);
	u64 start = hotplug_window(dev);

	hp_set_decide(dev, hotplug_refuse);
	KUNIT_EXPECT_EQ(test, hotplug_notify(dev, MEM_GOING_OFFLINE, start), -EBUSY);
	KUNIT_EXPECT_GT(test, hotplug_out_in(dev, start), 0);
	hp_set_decide(dev, NULL);
	KUNIT_EXPECT_EQ(test, hotplug_notify(dev, MEM_CANCEL_OFFLINE, start), 0);
	hp_expect_out(dev, HP_MIB(1200));
}

/* No answer: whoever takes memory offline is not kept for ever. */
static void hotplug_unanswered(struct kunit *test)
{
	struct hp_dev *dev = hotplug_start(test, 0);
	u64 start = hotplug_window(dev);
	unsigned long began = jiffies;

	hp_set_decide(dev, hp_hold_deflate);
	KUNIT_EXPECT_EQ(test, hotplug_notify(dev, MEM_GOING_OFFLINE, start), -EBUSY);
	KUNIT_EXPECT_LE(test, jiffies - began, 20 * HZ);
	hp_set_decide(dev, NULL);
	hp_dev_release(dev, HP_REQUESTS, false);
	hp_expect_out(dev, HP_MIB(1200));
}

/* Behind a worker whose request is not answered either */
static void hotplug_in_mid_inflate(struct kunit *test)
{
	struct hp_dev *dev = hotplug_start(test, SZ_4K);
	u64 start = hotplug_window(dev);
	unsigned long began = jiffies;

	hp_set_decide(dev, hp_hold_inflate);
	hp_dev_request(dev, HP_MIB(1500));
	HP_WAIT(dev, dev->nr_busy);
	/* what is in flight may be in the window: it cannot go offline now */
	KUNIT_EXPECT_EQ(test, hotplug_notify(dev, MEM_GOING_OFFLINE, start), -EBUSY);
	KUNIT_EXPECT_LE(test, jiffies - began, 20 * HZ);
	hp_set_decide(dev, NULL);
	hp_dev_release(dev, HP_REQUESTS, false);
	hp_expect_out(dev, HP_MIB(1500));
}

static void hotplug_broken_device(struct kunit *test)
{
	struct hp_dev *dev = hotplug_start(test, 0);
	u64 start = hotplug_window(dev);

	hp_dev_needs_reset(dev);
	msleep(5000);
	KUNIT_EXPECT_EQ(test, hotplug_notify(dev, MEM_GOING_OFFLINE, start), -EBUSY);
	hp_expect_out(dev, HP_MIB(1200));
}

static struct kunit_case hotplug_cases[] = {
	KUNIT_CASE(hotplug_gives_back),
	KUNIT_CASE(hotplug_empty_window),
	KUNIT_CASE(hotplug_refused),
	KUNIT_CASE_SLOW(hotplug_unanswered),
	KUNIT_CASE_SLOW(hotplug_in_mid_inflate),
	KUNIT_CASE_SLOW(hotplug_broken_device),
	{}
};

HP_SUITE(virtio_balloon_hp_hotplug, hotplug_cases);
