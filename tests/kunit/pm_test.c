// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit suite virtio_balloon_hp_pm: suspend, hibernation, and what can go wrong
 * on the way back.
 *
 * The device forgets everything on the reset that freeze ends in; the driver
 * must not have touched what is out before it (DRV-23), and finds its way back
 * to the target afterwards.
 */
#include <linux/bitmap.h>
#include <linux/suspend.h>

#include "hp_test.h"

/* kernel/power/power.h, which nobody outside may include */
int pm_notifier_call_chain(unsigned long val);

static void pm_notice(struct kunit *test, unsigned long val)
{
	KUNIT_ASSERT_EQ(test, notifier_to_errno(pm_notifier_call_chain(val)), 0);
}

static void pm_freeze(struct hp_dev *dev)
{
	unsigned long began = jiffies;

	KUNIT_ASSERT_EQ(dev->test, virtio_device_freeze(&dev->vdev), 0);
	KUNIT_EXPECT_LE_MSG(dev->test, jiffies - began, 5 * HZ, "freeze takes too long");
	KUNIT_EXPECT_EQ(dev->test, dev->vdev.config->get_status(&dev->vdev), 0);
}

static void pm_restore(struct hp_dev *dev)
{
	KUNIT_ASSERT_EQ(dev->test, virtio_device_restore(&dev->vdev), 0);
}

static unsigned long *pm_out_copy(struct hp_dev *dev)
{
	size_t bits = dev->mem.end / dev->mem.unit;
	unsigned long *map = kunit_kzalloc(dev->test, BITS_TO_LONGS(bits) * sizeof(long),
					   GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(dev->test, map);
	mutex_lock(&dev->lock);
	bitmap_copy(map, dev->mem.out, bits);
	mutex_unlock(&dev->lock);
	return map;
}

/* A hibernation image leaves the balloon out, and the same blocks go again. */
static void pm_full_balloon(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_STATS),
		.requested = HP_MIB(512),
	});
	struct hp_fixture *fix = test->priv;
	unsigned long *before;

	hp_expect_out(dev, HP_MIB(512));
	before = pm_out_copy(dev);
	pm_freeze(dev);
	KUNIT_EXPECT_EQ(test, hp_dev_actual(dev), 0);
	KUNIT_EXPECT_EQ_MSG(test, hp_count_offline(), fix->offline + HP_PAGES(HP_MIB(512)),
			    "PageOffline while frozen");
	msleep(20 * 1000);
	pm_restore(dev);
	hp_expect_out(dev, HP_MIB(512));
	KUNIT_EXPECT_TRUE_MSG(test, bitmap_equal(before, dev->mem.out,
						 dev->mem.end / dev->mem.unit),
			      "other blocks than before");
	KUNIT_EXPECT_EQ(test, dev->seen.requests[VIRTIO_BALLOON_HP_REQ_DEFLATE], 0);
	KUNIT_EXPECT_EQ(test, hp_dev_poll_stats(dev), 0);
}

static const struct pm_target {
	unsigned int before;
	unsigned int after;
} pm_targets[] = {
	{ 256, 0 }, { 256, 64 }, { 256, 700 }, { 0, 256 }, { 2, 2 },
};

static void pm_target_desc(const struct pm_target *t, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%u to %u MiB", t->before, t->after);
}

KUNIT_ARRAY_PARAM(pm_target, pm_targets, pm_target_desc);

/* The host asks for another size while the guest sleeps. */
static void pm_target_changes(struct kunit *test)
{
	const struct pm_target *t = test->param_value;
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(t->before),
	});

	hp_expect_out(dev, HP_MIB(t->before));
	pm_freeze(dev);
	hp_dev_request(dev, HP_MIB(t->after));
	pm_restore(dev);
	hp_expect_out(dev, HP_MIB(t->after));
	hp_dev_request(dev, HP_MIB(32));
	hp_expect_out(dev, HP_MIB(32));
}

static void pm_in_mid_inflate(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(1200),
		.decide = hp_hold_all,
	});

	HP_WAIT(dev, dev->nr_busy >= 2);
	hp_dev_release(dev, 1, true);
	/* what the notifier of the kernel does first, so that work ends */
	pm_notice(test, PM_SUSPEND_PREPARE);
	msleep(100);
	pm_freeze(dev);
	KUNIT_EXPECT_GE(test, dev->seen.lost, 1);
	hp_set_decide(dev, NULL);
	pm_restore(dev);
	pm_notice(test, PM_POST_SUSPEND);
	hp_expect_out(dev, HP_MIB(1200));
}

static void pm_in_mid_deflate(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(512),
		.decide = hp_hold_deflate,
	});

	hp_expect_out(dev, HP_MIB(512));
	hp_dev_request(dev, HP_MIB(64));
	HP_WAIT(dev, dev->nr_busy);
	pm_notice(test, PM_SUSPEND_PREPARE);
	msleep(100);
	pm_freeze(dev);
	hp_set_decide(dev, NULL);
	pm_restore(dev);
	pm_notice(test, PM_POST_SUSPEND);
	hp_expect_out(dev, HP_MIB(64));
}

/* Between the notice of a suspend and its end no work begins. */
static void pm_notice_holds_work(struct kunit *test)
{
	static const unsigned long pairs[][2] = {
		{ PM_SUSPEND_PREPARE, PM_POST_SUSPEND },
		{ PM_HIBERNATION_PREPARE, PM_POST_HIBERNATION },
		{ PM_RESTORE_PREPARE, PM_POST_RESTORE },
	};
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {});
	unsigned int i, kicks;

	for (i = 0; i < ARRAY_SIZE(pairs); i++) {
		pm_notice(test, pairs[i][0]);
		msleep(100);
		kicks = dev->seen.kicks;
		hp_dev_request(dev, HP_MIB(64 * (i + 1)));
		msleep(10 * 1000);
		KUNIT_EXPECT_EQ(test, dev->seen.kicks, kicks);
		KUNIT_EXPECT_EQ(test, hp_dev_actual(dev), HP_MIB(64 * i));
		pm_notice(test, pairs[i][1]);
		hp_expect_out(dev, HP_MIB(64 * (i + 1)));
	}
}

/* The guest wakes up on a host with another backing. */
static void pm_other_configuration(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(128),
	});

	hp_expect_out(dev, HP_MIB(128));
	pm_freeze(dev);
	/* larger blocks: what was held does not fit, and others are taken */
	dev->config.preferred = cpu_to_le64(SZ_4M);
	dev->params.preferred = SZ_4M;
	pm_restore(dev);
	hp_expect_out(dev, HP_MIB(128));
	pm_freeze(dev);
	dev->config.preferred = cpu_to_le64(SZ_2M);
	dev->params.preferred = SZ_2M;
	pm_restore(dev);
	hp_expect_out(dev, HP_MIB(128));
	hp_dev_request(dev, HP_MIB(2));
	hp_expect_out(dev, HP_MIB(2));
}

/* ... and with one that cannot be served at all: it gets its memory back. */
static void pm_useless_configuration(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(128),
	});

	hp_expect_out(dev, HP_MIB(128));
	pm_freeze(dev);
	dev->config.unit = cpu_to_le64(SZ_1G);
	dev->config.preferred = cpu_to_le64(SZ_1G);
	pm_restore(dev);
	hp_expect_out(dev, 0);
	pm_freeze(dev);
	dev->config.unit = cpu_to_le64(SZ_2M);
	dev->config.preferred = cpu_to_le64(SZ_2M);
	pm_restore(dev);
	hp_expect_out(dev, HP_MIB(128));
}

/* The transport fails on the way back: no balloon, but no memory lost either */
static void pm_restore_fails(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_STATS) |
			    BIT_ULL(VIRTIO_BALLOON_HP_F_DEFLATE_ON_OOM),
		.requested = HP_MIB(128),
	});

	hp_expect_out(dev, HP_MIB(128));
	pm_freeze(dev);
	dev->fail_vqs = true;
	KUNIT_EXPECT_NE(test, virtio_device_restore(&dev->vdev), 0);
	hp_expect_out(dev, 0);
	hp_dev_request(dev, HP_MIB(64));
	msleep(10 * 1000);
	dev->fail_vqs = false;
	device_release_driver(&dev->vdev.dev);
	KUNIT_ASSERT_EQ(test, device_attach(&dev->vdev.dev), 1);
	hp_expect_out(dev, HP_MIB(64));
}

/* The device is pulled while the guest sleeps. */
static void pm_removed_while_frozen(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_STATS),
		.requested = HP_MIB(128),
	});

	hp_expect_out(dev, HP_MIB(128));
	pm_freeze(dev);
	hp_dev_unplug(dev);
}

static void pm_broken_device_recovers(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(128),
	});

	hp_expect_out(dev, HP_MIB(128));
	hp_dev_needs_reset(dev);
	msleep(5000);
	KUNIT_EXPECT_TRUE(test, hp_driver(dev)->state == HPB_BROKEN);
	pm_freeze(dev);
	pm_restore(dev);
	hp_expect_out(dev, HP_MIB(128));
}

static void pm_again_and_again(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_STATS) |
			    BIT_ULL(VIRTIO_BALLOON_HP_F_REPORTING),
		.requested = HP_MIB(256),
	});
	int i;

	for (i = 0; i < 20; i++) {
		if (i & 1)
			hp_expect_out(dev, HP_MIB(256) - i * SZ_2M);
		pm_freeze(dev);
		hp_dev_request(dev, HP_MIB(256) - (i + 1) * SZ_2M);
		pm_restore(dev);
	}
	hp_dev_request(dev, HP_MIB(64));
	hp_expect_out(dev, HP_MIB(64));
}

static struct kunit_case pm_cases[] = {
	KUNIT_CASE_SLOW(pm_full_balloon),
	KUNIT_CASE_PARAM(pm_target_changes, pm_target_gen_params),
	KUNIT_CASE(pm_in_mid_inflate),
	KUNIT_CASE(pm_in_mid_deflate),
	KUNIT_CASE_SLOW(pm_notice_holds_work),
	KUNIT_CASE(pm_other_configuration),
	KUNIT_CASE(pm_useless_configuration),
	KUNIT_CASE_SLOW(pm_restore_fails),
	KUNIT_CASE(pm_removed_while_frozen),
	KUNIT_CASE_SLOW(pm_broken_device_recovers),
	KUNIT_CASE(pm_again_and_again),
	{}
};

HP_SUITE(virtio_balloon_hp_pm, pm_cases);
