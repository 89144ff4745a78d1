// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit suite virtio_balloon_hp_fault: devices that die, and drivers that go.
 *
 * Proves DRV-23 (nothing is used before the reset is complete; the device
 * compares every word of what is out when it is reset), that removal is bounded
 * whatever the device does, and that no page is lost over it.
 */
#include <linux/debugfs.h>
#include <linux/sched.h>

#include "hp_test.h"

/* Longest that a removal may take, on a device that does not answer at all. */
#define HP_REMOVAL (30 * HZ)

static enum hpb_state fault_state(struct hp_dev *dev)
{
	return READ_ONCE(hp_driver(dev)->state);
}

static void fault_unplug(struct hp_dev *dev)
{
	unsigned long began = jiffies;

	hp_dev_unplug(dev);
	KUNIT_EXPECT_LE_MSG(dev->test, jiffies - began, HP_REMOVAL,
			    "removal takes too long");
}

static void fault_unbind(struct hp_dev *dev)
{
	unsigned long began = jiffies;

	device_release_driver(&dev->vdev.dev);
	KUNIT_EXPECT_LE_MSG(dev->test, jiffies - began, HP_REMOVAL,
			    "removal takes too long");
	hp_expect_books(dev);
}

static void fault_bind(struct hp_dev *dev, u64 bytes)
{
	hp_set_decide(dev, NULL);
	hp_dev_request(dev, bytes);
	KUNIT_ASSERT_EQ(dev->test, device_attach(&dev->vdev.dev), 1);
	hp_expect_out(dev, bytes);
}

static void fault_refuse_deflate(struct hp_dev *dev, struct hp_request *req)
{
	if (req->type == VIRTIO_BALLOON_HP_REQ_DEFLATE)
		req->status = VIRTIO_BALLOON_HP_NOMEM;
}

/* The host is asked, and so can say how it wants its memory back. */
static void fault_removal_of_full_balloon(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(1024),
	});

	hp_expect_out(dev, HP_MIB(1024));
	fault_unplug(dev);
	KUNIT_EXPECT_GE(test, dev->seen.answered[VIRTIO_BALLOON_HP_REQ_DEFLATE], 1);
	KUNIT_EXPECT_EQ_MSG(test, dev->seen.reset_out, 0, "bytes out at the reset");
	KUNIT_EXPECT_EQ(test, dev->seen.lost, 0);
}

/* The reset gives back what the device refuses to. */
static void fault_removal_refused(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(256),
		.decide = fault_refuse_deflate,
	});

	hp_expect_out(dev, HP_MIB(256));
	fault_unplug(dev);
	KUNIT_EXPECT_EQ(test, dev->seen.reset_out, HP_MIB(256));
}

static void fault_removal_unanswered(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(256),
		.decide = hp_hold_deflate,
	});

	hp_expect_out(dev, HP_MIB(256));
	fault_unplug(dev);
	KUNIT_EXPECT_GE(test, dev->seen.lost, 1);
	KUNIT_EXPECT_EQ(test, dev->seen.reset_out, HP_MIB(256));
}

static void fault_removal_in_mid_inflate(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(1200),
		.decide = hp_hold_inflate,
	});

	HP_WAIT(dev, dev->nr_busy >= 2);
	/* one of them is done; the others never are */
	hp_dev_release(dev, 1, true);
	fault_unplug(dev);
	KUNIT_EXPECT_GE(test, dev->seen.lost, 1);
}

static void fault_removal_in_mid_deflate(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(512),
		.decide = hp_hold_deflate,
	});

	hp_expect_out(dev, HP_MIB(512));
	hp_dev_request(dev, HP_MIB(8));
	HP_WAIT(dev, dev->nr_busy);
	fault_unplug(dev);
	KUNIT_EXPECT_GE(test, dev->seen.lost, 1);
}

static void fault_new_target(struct hp_dev *dev, struct hp_request *req)
{
	hp_dev_request(dev, req->nr & 1 ? HP_MIB(1024) : HP_MIB(2));
}

/* The host changes its mind all the time while the driver goes. */
static void fault_removal_and_targets(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(1024),
	});

	hp_expect_out(dev, HP_MIB(1024));
	hp_set_decide(dev, fault_new_target);
	hp_dev_request(dev, 0);
	fault_unbind(dev);
	fault_bind(dev, HP_MIB(64));
	/* the interrupt is pending when removal begins */
	hp_dev_request(dev, HP_MIB(700));
	fault_unbind(dev);
	fault_bind(dev, HP_MIB(32));
}

/* DEVICE_NEEDS_RESET with a request on its way, which is never answered */
static void fault_needs_reset(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(64),
	});
	unsigned int runs, requests;

	hp_expect_out(dev, HP_MIB(64));
	hp_set_decide(dev, hp_hold_all);
	hp_dev_request(dev, HP_MIB(256));
	HP_WAIT(dev, dev->nr_busy);
	hp_dev_needs_reset(dev);
	msleep(5000);
	KUNIT_EXPECT_TRUE(test, fault_state(dev) == HPB_BROKEN);
	runs = hp_worker_runs();
	requests = dev->seen.kicks;
	hp_dev_request(dev, 0);
	msleep(60 * 1000);
	KUNIT_EXPECT_LE(test, hp_worker_runs() - runs, 4);
	KUNIT_EXPECT_EQ(test, dev->seen.kicks, requests);
	fault_unbind(dev);
	fault_bind(dev, HP_MIB(128));
}

/* The same while nothing is on its way: only the interrupt tells */
static void fault_needs_reset_idle(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(64),
	});

	hp_expect_out(dev, HP_MIB(64));
	hp_dev_needs_reset(dev);
	msleep(5000);
	KUNIT_EXPECT_TRUE(test, fault_state(dev) == HPB_BROKEN);
	hp_expect_out(dev, HP_MIB(64));
	fault_unbind(dev);
	fault_bind(dev, HP_MIB(2));
}

/* Surprise removal: the transport breaks the queues, and nobody is told. */
static void fault_broken_queues(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(64),
	});

	hp_expect_out(dev, HP_MIB(64));
	hp_set_decide(dev, hp_hold_all);
	hp_dev_request(dev, HP_MIB(256));
	HP_WAIT(dev, dev->nr_busy);
	virtio_break_device(&dev->vdev);
	msleep(10 * 1000);
	KUNIT_EXPECT_TRUE(test, fault_state(dev) == HPB_BROKEN);
	fault_unplug(dev);
}

static void fault_broken_queues_idle(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_STATS),
		.requested = HP_MIB(64),
	});
	unsigned int runs;

	hp_expect_out(dev, HP_MIB(64));
	virtio_break_device(&dev->vdev);
	hp_dev_request(dev, HP_MIB(256));
	msleep(10 * 1000);
	runs = hp_worker_runs();
	msleep(100 * 1000);
	KUNIT_EXPECT_LE(test, hp_worker_runs() - runs, 12);
	hp_expect_out(dev, HP_MIB(64));
	fault_unplug(dev);
}

/* A host under load: minutes without an answer are no reason to give up. */
static void fault_slow_device(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.decide = hp_hold_all,
	});
	unsigned int runs;

	hp_dev_request(dev, HP_MIB(128));
	HP_WAIT(dev, dev->nr_busy);
	runs = hp_worker_runs();
	msleep(200 * 1000);
	KUNIT_EXPECT_LE(test, hp_worker_runs() - runs, 4);
	KUNIT_EXPECT_TRUE(test, fault_state(dev) == HPB_RUNNING);
	hp_set_decide(dev, NULL);
	hp_dev_release(dev, HP_REQUESTS, false);
	hp_expect_out(dev, HP_MIB(128));
}

static void fault_bind_in_flight(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(600),
		.decide = hp_hold_all,
	});
	int i;

	for (i = 0; i < 10; i++) {
		HP_WAIT(dev, dev->nr_busy);
		if (i & 1)
			hp_dev_release(dev, 1, false);
		if (i & 2)
			hp_dev_request(dev, HP_MIB(600 - i));
		fault_unbind(dev);
		KUNIT_ASSERT_EQ(test, device_attach(&dev->vdev.dev), 1);
	}
	hp_set_decide(dev, NULL);
	hp_dev_release(dev, HP_REQUESTS, false);
	hp_dev_request(dev, HP_MIB(100));
	hp_expect_out(dev, HP_MIB(100));
}

/* The transport has no queues for the driver: it says so, and lets go. */
static void fault_no_queues(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_STATS) |
			    BIT_ULL(VIRTIO_BALLOON_HP_F_DEFLATE_ON_OOM) |
			    BIT_ULL(VIRTIO_BALLOON_HP_F_REPORTING),
		.requested = HP_MIB(64),
	});

	fault_unbind(dev);
	dev->fail_vqs = true;
	KUNIT_EXPECT_NE(test, device_attach(&dev->vdev.dev), 1);
	KUNIT_EXPECT_NULL(test, dev->vdev.dev.driver);
	dev->fail_vqs = false;
	/* what a transport does before it lets another driver have a try */
	virtio_reset_device(&dev->vdev);
	fault_bind(dev, HP_MIB(32));
}

/* A switch of the fault injector, which only user space is meant to reach */
static void *fault_switch(struct kunit *test, const char *name)
{
	struct dentry *dir = debugfs_lookup("failslab", NULL);
	struct dentry *file = NULL;
	void *data = NULL;

	if (dir)
		file = debugfs_lookup(name, dir);
	if (file)
		data = d_inode(file)->i_private;
	dput(file);
	dput(dir);
	KUNIT_ASSERT_NOT_NULL_MSG(test, data, "no failslab/%s in debugfs", name);
	return data;
}

/*
 * The first allocation of the probe fails, the second, and so on until none is
 * left to fail: the driver lets go each time, and nothing is lost.
 */
static void fault_allocations_at_probe(struct kunit *test)
{
	bool *spare_sleepers = fault_switch(test, "ignore-gfp-wait");
	unsigned long *verbose = fault_switch(test, "verbose");
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_STATS) |
			    BIT_ULL(VIRTIO_BALLOON_HP_F_DEFLATE_ON_OOM) |
			    BIT_ULL(VIRTIO_BALLOON_HP_F_REPORTING),
		.requested = HP_MIB(32),
	});
	unsigned int nth, failed = 0, left;

	fault_unbind(dev);
	*spare_sleepers = false;
	*verbose = 0;
	for (nth = 1; nth < 1000; nth++) {
		current->fail_nth = nth;
		if (device_attach(&dev->vdev.dev) != 1)
			failed++;
		left = current->fail_nth;
		current->fail_nth = 0;
		if (dev->vdev.dev.driver)
			fault_unbind(dev);
		else
			virtio_reset_device(&dev->vdev);
		if (left)
			break;
	}
	*spare_sleepers = true;
	KUNIT_EXPECT_GE_MSG(test, failed, 20, "of %u allocations", nth - 1);
	KUNIT_EXPECT_LT(test, nth, 1000);
	fault_bind(dev, HP_MIB(64));
}

static struct kunit_case fault_cases[] = {
	KUNIT_CASE(fault_removal_of_full_balloon),
	KUNIT_CASE(fault_removal_refused),
	KUNIT_CASE_SLOW(fault_removal_unanswered),
	KUNIT_CASE_SLOW(fault_removal_in_mid_inflate),
	KUNIT_CASE_SLOW(fault_removal_in_mid_deflate),
	KUNIT_CASE_SLOW(fault_removal_and_targets),
	KUNIT_CASE_SLOW(fault_needs_reset),
	KUNIT_CASE_SLOW(fault_needs_reset_idle),
	KUNIT_CASE_SLOW(fault_broken_queues),
	KUNIT_CASE_SLOW(fault_broken_queues_idle),
	KUNIT_CASE_SLOW(fault_slow_device),
	KUNIT_CASE_SLOW(fault_bind_in_flight),
	KUNIT_CASE(fault_no_queues),
	KUNIT_CASE(fault_allocations_at_probe),
	{}
};

HP_SUITE(virtio_balloon_hp_fault, fault_cases);
