// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit suite virtio_balloon_hp_stats: the statistics queue.
 *
 * Proves DRV-20 (the device compares the buffer when it returns it) and DRV-21,
 * and that the numbers are those of the kernel.
 */
#include <linux/mm.h>

#include "hp_test.h"

static struct hp_dev *stats_start(struct kunit *test, u64 bytes)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_STATS),
		.requested = bytes,
	});

	hp_expect_out(dev, bytes);
	KUNIT_ASSERT_EQ(test, hp_dev_poll_stats(dev), 0);
	return dev;
}

static u64 stats_get(struct hp_dev *dev, u16 tag)
{
	u64 val = 0;

	KUNIT_EXPECT_TRUE_MSG(dev->test, hp_dev_stat(dev, tag, &val),
			      "tag %u is missing", tag);
	return val;
}

static void stats_buffer_at_start(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_STATS),
	});

	HP_WAIT(dev, dev->seen.stats == 1);
	msleep(200 * 1000);
	KUNIT_EXPECT_EQ_MSG(test, dev->seen.stats, 1, "nobody asked for more");
}

/* What the traditional balloon reports, and free ranges */
static void stats_has_every_tag(struct kunit *test)
{
	struct hp_dev *dev = stats_start(test, 0);
	u16 tag;

	for (tag = 0; tag <= VIRTIO_BALLOON_HP_STAT_DIRECT_RECLAIM; tag++) {
		if ((tag == VIRTIO_BALLOON_HP_STAT_HTLB_PGALLOC ||
		     tag == VIRTIO_BALLOON_HP_STAT_HTLB_PGFAIL) &&
		    !IS_ENABLED(CONFIG_HUGETLB_PAGE))
			continue;
		stats_get(dev, tag);
	}
	stats_get(dev, VIRTIO_BALLOON_HP_STAT_FREE_RANGES);
}

/* DRV-21 */
static void stats_is_well_formed(struct kunit *test)
{
	struct hp_dev *dev = stats_start(test, HP_MIB(64));
	const struct virtio_balloon_hp_stat *s = (void *)dev->stats_data;
	unsigned int i, j, n = dev->stats_len / sizeof(*s);

	KUNIT_EXPECT_EQ(test, dev->stats_len % sizeof(*s), 0);
	KUNIT_EXPECT_LE(test, n, 256);
	for (i = 0; i < n; i++) {
		KUNIT_EXPECT_EQ(test, s[i].reserved[0] | s[i].reserved[1] |
				      s[i].reserved[2], 0);
		for (j = 0; j < i; j++)
			KUNIT_EXPECT_NE(test, le16_to_cpu(s[i].tag),
					le16_to_cpu(s[j].tag));
	}
}

static void stats_expect_near(struct hp_dev *dev, u16 tag, u64 want)
{
	u64 val = stats_get(dev, tag);

	KUNIT_EXPECT_LE_MSG(dev->test, abs_diff(val, want), HP_MIB(4), "tag %u", tag);
}

/* The numbers are the kernel's, and follow the balloon. */
static void stats_are_right(struct kunit *test)
{
	struct hp_dev *dev = stats_start(test, 0);
	struct sysinfo info;
	u64 total, ranges;
	int i;

	total = stats_get(dev, VIRTIO_BALLOON_HP_STAT_MEMTOT);
	ranges = stats_get(dev, VIRTIO_BALLOON_HP_STAT_FREE_RANGES);
	for (i = 0; i < 3; i++) {
		hp_dev_request(dev, HP_MIB(256) * i);
		hp_expect_out(dev, HP_MIB(256) * i);
		KUNIT_ASSERT_EQ(test, hp_dev_poll_stats(dev), 0);
		si_meminfo(&info);
		KUNIT_EXPECT_EQ(test, stats_get(dev, VIRTIO_BALLOON_HP_STAT_MEMTOT),
				total - HP_MIB(256) * i);
		KUNIT_EXPECT_EQ(test, stats_get(dev, VIRTIO_BALLOON_HP_STAT_MEMTOT),
				(u64)info.totalram << PAGE_SHIFT);
		stats_expect_near(dev, VIRTIO_BALLOON_HP_STAT_MEMFREE,
				  (u64)info.freeram << PAGE_SHIFT);
		stats_expect_near(dev, VIRTIO_BALLOON_HP_STAT_AVAIL,
				  (u64)si_mem_available() << PAGE_SHIFT);
		KUNIT_EXPECT_LE(test, abs_diff(stats_get(dev, VIRTIO_BALLOON_HP_STAT_FREE_RANGES) +
					       128 * i, ranges), 4);
	}
}

/* Asked a hundred times, and never two buffers at a time */
static void stats_many_times(struct kunit *test)
{
	struct hp_dev *dev = stats_start(test, 0);
	int i;

	for (i = 0; i < 100; i++) {
		if (i % 10 == 5)
			hp_dev_request(dev, HP_MIB(i * 2));
		KUNIT_ASSERT_EQ(test, hp_dev_poll_stats(dev), 0);
	}
	hp_expect_out(dev, HP_MIB(190));
}

/* A request that is not answered does not keep statistics. */
static void stats_while_waiting(struct kunit *test)
{
	struct hp_dev *dev = stats_start(test, HP_MIB(16));

	hp_set_decide(dev, hp_hold_all);
	hp_dev_request(dev, HP_MIB(128));
	HP_WAIT(dev, dev->nr_busy);
	KUNIT_EXPECT_EQ(test, hp_dev_poll_stats(dev), 0);
	KUNIT_EXPECT_EQ(test, hp_dev_poll_stats(dev), 0);
	hp_set_decide(dev, NULL);
	hp_dev_release(dev, HP_REQUESTS, false);
	hp_expect_out(dev, HP_MIB(128));
}

/* DRV-4 */
static void stats_not_negotiated(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_REPORTING),
	});

	msleep(10 * 1000);
	KUNIT_EXPECT_EQ(test, dev->seen.stats, 0);
}

/* DRV-21: the allocator does not count free gigabytes */
static void stats_leaves_out_what_it_cannot_count(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_STATS),
		.preferred = SZ_1G,
	});
	u64 val;

	KUNIT_ASSERT_EQ(test, hp_dev_poll_stats(dev), 0);
	KUNIT_EXPECT_FALSE(test, hp_dev_stat(dev, VIRTIO_BALLOON_HP_STAT_FREE_RANGES, &val));
	stats_get(dev, VIRTIO_BALLOON_HP_STAT_MEMFREE);
}

/* The buffer is with the device, or just back, when the driver goes. */
static void stats_at_removal(struct kunit *test)
{
	struct hp_dev *dev = stats_start(test, 0);
	struct hp_queue *q = &dev->queue[VIRTIO_BALLOON_HP_VQ_STATS];

	mutex_lock(&dev->lock);
	dev->stats_here = false;
	vringh_complete_iotlb(&q->vrh, dev->stats_head, 0);
	hp_irq(dev, VIRTIO_BALLOON_HP_VQ_STATS);
	mutex_unlock(&dev->lock);
	udelay(10);
	hp_dev_unplug(dev);
}

static struct kunit_case stats_cases[] = {
	KUNIT_CASE_SLOW(stats_buffer_at_start),
	KUNIT_CASE(stats_has_every_tag),
	KUNIT_CASE(stats_is_well_formed),
	KUNIT_CASE(stats_are_right),
	KUNIT_CASE(stats_many_times),
	KUNIT_CASE(stats_while_waiting),
	KUNIT_CASE_SLOW(stats_not_negotiated),
	KUNIT_CASE(stats_leaves_out_what_it_cannot_count),
	KUNIT_CASE(stats_at_removal),
	{}
};

HP_SUITE(virtio_balloon_hp_stats, stats_cases);
