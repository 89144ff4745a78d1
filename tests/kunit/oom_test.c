// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit suite virtio_balloon_hp_oom: the guest runs out of memory.
 *
 * Proves DRV-22. The kernel's own out_of_memory() is called, with the notifier
 * chain as it is; a notifier of the test behind all others reads off what was
 * freed, and sees to it that nobody is killed (there is nobody to kill here,
 * the kernel would panic).
 */
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/oom.h>

#include "hp_test.h"

#define HP_OOM (BIT_ULL(VIRTIO_BALLOON_HP_F_DEFLATE_ON_OOM) |		\
		BIT_ULL(VIRTIO_BALLOON_HP_F_STATS))

/* Longest that the kernel may be kept from killing. */
#define HP_OOM_PATIENCE (3 * HZ)

static unsigned long oom_freed;
static unsigned int oom_calls;
static bool oom_lifeline;

static int oom_last(struct notifier_block *nb, unsigned long unused, void *parm)
{
	unsigned long *freed = parm;

	oom_calls++;
	oom_freed = *freed;
	if (oom_lifeline)
		*freed += 1;
	return NOTIFY_OK;
}

static struct notifier_block oom_nb = {
	.notifier_call = oom_last,
	.priority = INT_MIN,
};

/* Return: pages that the notifiers say they have freed. */
static unsigned long oom_happens(struct kunit *test)
{
	struct oom_control oc = {
		.zonelist = node_zonelist(first_online_node, GFP_KERNEL),
		.gfp_mask = GFP_KERNEL,
	};
	unsigned long began = jiffies;

	KUNIT_ASSERT_EQ(test, register_oom_notifier(&oom_nb), 0);
	oom_lifeline = true;
	oom_freed = 0;
	mutex_lock(&oom_lock);
	out_of_memory(&oc);
	mutex_unlock(&oom_lock);
	unregister_oom_notifier(&oom_nb);
	KUNIT_EXPECT_LE_MSG(test, jiffies - began, HP_OOM_PATIENCE,
			    "the OOM killer is kept waiting");
	return oom_freed;
}

static struct hp_dev *oom_start(struct kunit *test, u64 bytes, u64 features)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = features,
		.requested = bytes,
	});

	hp_expect_out(dev, bytes);
	return dev;
}

static void oom_deflates(struct kunit *test)
{
	struct hp_dev *dev = oom_start(test, HP_MIB(512), HP_OOM);
	unsigned long freed = oom_happens(test);
	u64 out = hp_dev_actual(dev);

	KUNIT_EXPECT_GE_MSG(test, freed, HP_PAGES(HP_MIB(32)), "pages freed");
	KUNIT_EXPECT_EQ(test, freed, HP_PAGES(HP_MIB(512) - out));
	hp_expect_books(dev);
	/* it leaves the guest in peace for a while, and comes back */
	msleep(5000);
	KUNIT_EXPECT_LE(test, hp_dev_actual(dev), out);
	hp_expect_out(dev, HP_MIB(512));
}

/* Until the last block is gone; then there is nothing to offer, quickly */
static void oom_empties_the_balloon(struct kunit *test)
{
	struct hp_dev *dev = oom_start(test, HP_MIB(700), HP_OOM);
	unsigned long freed, total = 0;
	int i;

	for (i = 0; i < 100 && hp_dev_actual(dev); i++) {
		freed = oom_happens(test);
		KUNIT_EXPECT_GT(test, freed, 0);
		total += freed;
	}
	KUNIT_EXPECT_EQ(test, hp_dev_actual(dev), 0);
	KUNIT_EXPECT_EQ(test, total, HP_PAGES(HP_MIB(700)));
	KUNIT_EXPECT_EQ(test, oom_happens(test), 0);
	hp_expect_out(dev, HP_MIB(700));
}

/* A new target ends the truce. */
static void oom_and_new_target(struct kunit *test)
{
	struct hp_dev *dev = oom_start(test, HP_MIB(512), HP_OOM);
	unsigned long began;

	KUNIT_EXPECT_GT(test, oom_happens(test), 0);
	began = jiffies;
	hp_dev_request(dev, HP_MIB(600));
	HP_WAIT(dev, hp_dev_actual(dev) == HP_MIB(600));
	KUNIT_EXPECT_LE(test, jiffies - began, 5 * HZ);
	KUNIT_EXPECT_GT(test, oom_happens(test), 0);
	hp_dev_request(dev, 0);
	hp_expect_out(dev, 0);
}

static void oom_not_negotiated(struct kunit *test)
{
	struct hp_dev *dev = oom_start(test, HP_MIB(256), 0);

	KUNIT_EXPECT_EQ(test, oom_happens(test), 0);
	hp_expect_out(dev, HP_MIB(256));
	KUNIT_EXPECT_EQ(test, dev->seen.requests[VIRTIO_BALLOON_HP_REQ_DEFLATE], 0);
}

static void oom_refuse(struct hp_dev *dev, struct hp_request *req)
{
	if (req->type == VIRTIO_BALLOON_HP_REQ_DEFLATE)
		req->status = VIRTIO_BALLOON_HP_NOMEM;
}

/* The host has nothing either. */
static void oom_refused(struct kunit *test)
{
	struct hp_dev *dev = oom_start(test, HP_MIB(256), HP_OOM);

	hp_set_decide(dev, oom_refuse);
	KUNIT_EXPECT_EQ(test, oom_happens(test), 0);
	KUNIT_EXPECT_EQ(test, oom_happens(test), 0);
	hp_expect_out(dev, HP_MIB(256));
	hp_set_decide(dev, NULL);
	hp_dev_request(dev, HP_MIB(64));
	hp_expect_out(dev, HP_MIB(64));
}

/* No answer in time; it comes later, and is not lost. */
static void oom_unanswered(struct kunit *test)
{
	struct hp_dev *dev = oom_start(test, HP_MIB(256), HP_OOM);

	hp_set_decide(dev, hp_hold_deflate);
	KUNIT_EXPECT_EQ(test, oom_happens(test), 0);
	KUNIT_EXPECT_EQ(test, oom_happens(test), 0);
	hp_expect_out(dev, HP_MIB(256));
	hp_set_decide(dev, NULL);
	KUNIT_EXPECT_GE(test, hp_dev_release(dev, HP_REQUESTS, false), 1);
	msleep(1000);
	KUNIT_EXPECT_LT(test, hp_dev_actual(dev), HP_MIB(256));
	hp_expect_books(dev);
	hp_expect_out(dev, HP_MIB(256));
}

/* The notifier's request is with the device when the driver goes. */
static void oom_unanswered_at_removal(struct kunit *test)
{
	struct hp_dev *dev = oom_start(test, HP_MIB(256), HP_OOM);
	unsigned long began;

	hp_set_decide(dev, hp_hold_deflate);
	KUNIT_EXPECT_EQ(test, oom_happens(test), 0);
	began = jiffies;
	hp_dev_unplug(dev);
	KUNIT_EXPECT_LE(test, jiffies - began, 30 * HZ);
}

static void oom_and_freeze(struct kunit *test)
{
	struct hp_dev *dev = oom_start(test, HP_MIB(256), HP_OOM);

	hp_set_decide(dev, hp_hold_deflate);
	KUNIT_EXPECT_EQ(test, oom_happens(test), 0);
	KUNIT_ASSERT_EQ(test, virtio_device_freeze(&dev->vdev), 0);
	KUNIT_EXPECT_EQ(test, oom_happens(test), 0);
	hp_set_decide(dev, NULL);
	KUNIT_ASSERT_EQ(test, virtio_device_restore(&dev->vdev), 0);
	hp_expect_out(dev, HP_MIB(256));
	KUNIT_EXPECT_GT(test, oom_happens(test), 0);
}

/* The worker is in the middle of something, and holds its locks. */
static void oom_in_mid_inflate(struct kunit *test)
{
	struct hp_dev *dev = oom_start(test, HP_MIB(256), HP_OOM);

	hp_set_decide(dev, hp_hold_inflate);
	hp_dev_request(dev, HP_MIB(1400));
	HP_WAIT(dev, dev->nr_busy >= 2);
	KUNIT_EXPECT_GT(test, oom_happens(test), 0);
	hp_set_decide(dev, NULL);
	hp_dev_release(dev, HP_REQUESTS, false);
	hp_expect_out(dev, HP_MIB(1400));
}

/* The first inflate is answered; what is asked back must be marked by then. */
static void oom_hold_but_first(struct hp_dev *dev, struct hp_request *req)
{
	unsigned int i;

	req->hold = req->type == VIRTIO_BALLOON_HP_REQ_INFLATE && req->nr;
	if (req->type != VIRTIO_BALLOON_HP_REQ_DEFLATE)
		return;
	for (i = 0; i < req->nr_ranges; i++)
		KUNIT_EXPECT_EQ(dev->test, hp_count_online(req->range[i].addr,
							   req->range[i].len), 0);
}

/* DRV-13: memory is short before the pages that are out have been marked */
static void oom_before_the_mark(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = HP_OOM,
		.decide = oom_hold_but_first,
	});

	hp_dev_request(dev, HP_MIB(192));
	HP_WAIT(dev, dev->nr_busy);
	msleep(HPB_MARK_DELAY / 4);
	KUNIT_EXPECT_EQ(test, hp_driver(dev)->held.blocks, 0);
	KUNIT_EXPECT_GT(test, hp_driver(dev)->fresh.blocks, 0);
	KUNIT_EXPECT_GT(test, oom_happens(test), 0);
	KUNIT_EXPECT_GT(test, dev->seen.requests[VIRTIO_BALLOON_HP_REQ_DEFLATE], 0);
	hp_set_decide(dev, NULL);
	hp_dev_release(dev, HP_REQUESTS, false);
	hp_expect_out(dev, HP_MIB(192));
}

static void oom_in_mid_deflate(struct kunit *test)
{
	struct hp_dev *dev = oom_start(test, HP_MIB(512), HP_OOM);

	hp_set_decide(dev, hp_hold_deflate);
	hp_dev_request(dev, HP_MIB(256));
	HP_WAIT(dev, dev->nr_busy);
	/* the worker's request is first, and unanswered; nothing is freed yet */
	KUNIT_EXPECT_EQ(test, oom_happens(test), 0);
	hp_set_decide(dev, NULL);
	hp_dev_release(dev, HP_REQUESTS, true);
	hp_expect_out(dev, HP_MIB(256));
}

static void oom_broken_device(struct kunit *test)
{
	struct hp_dev *dev = oom_start(test, HP_MIB(128), HP_OOM);

	hp_dev_needs_reset(dev);
	msleep(5000);
	KUNIT_EXPECT_EQ(test, oom_happens(test), 0);
	hp_expect_out(dev, HP_MIB(128));
}

/* No call by hand: memory is allocated until the kernel has none left. */
static void oom_for_real(struct kunit *test)
{
	struct hp_dev *dev = oom_start(test, HP_MIB(1400), HP_OOM);
	unsigned long want = si_mem_available() + HP_PAGES(HP_MIB(512));
	struct page *page, *next;
	unsigned long got;
	LIST_HEAD(taken);

	KUNIT_ASSERT_EQ(test, register_oom_notifier(&oom_nb), 0);
	oom_lifeline = false;
	oom_calls = 0;
	for (got = 0; got < want; got += 8) {
		page = alloc_pages(GFP_KERNEL, 3);
		if (!page)
			break;
		list_add(&page->lru, &taken);
	}
	unregister_oom_notifier(&oom_nb);
	KUNIT_EXPECT_GE(test, got, want);
	KUNIT_EXPECT_GE(test, oom_calls, 1);
	KUNIT_EXPECT_LE(test, hp_dev_actual(dev), HP_MIB(1400 - 400));
	hp_expect_books(dev);
	list_for_each_entry_safe(page, next, &taken, lru) {
		list_del(&page->lru);
		__free_pages(page, 3);
	}
	hp_expect_out(dev, HP_MIB(1400));
}

static struct kunit_case oom_cases[] = {
	KUNIT_CASE_SLOW(oom_deflates),
	KUNIT_CASE_SLOW(oom_empties_the_balloon),
	KUNIT_CASE(oom_and_new_target),
	KUNIT_CASE(oom_not_negotiated),
	KUNIT_CASE_SLOW(oom_refused),
	KUNIT_CASE_SLOW(oom_unanswered),
	KUNIT_CASE_SLOW(oom_unanswered_at_removal),
	KUNIT_CASE_SLOW(oom_and_freeze),
	KUNIT_CASE_SLOW(oom_in_mid_inflate),
	KUNIT_CASE_SLOW(oom_before_the_mark),
	KUNIT_CASE_SLOW(oom_in_mid_deflate),
	KUNIT_CASE_SLOW(oom_broken_device),
	KUNIT_CASE_SLOW(oom_for_real),
	{}
};

HP_SUITE(virtio_balloon_hp_oom, oom_cases);
