// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit suite virtio_balloon_hp_probe: binding, features, configuration.
 *
 * Proves DRV-1 to DRV-6 and what main.c promises: a device that cannot be
 * served is left alone, never a reason to fail.
 */
#include "hp_test.h"

#define HP_OURS (BIT_ULL(VIRTIO_BALLOON_HP_F_STATS) |			\
		 BIT_ULL(VIRTIO_BALLOON_HP_F_DEFLATE_ON_OOM) |		\
		 BIT_ULL(VIRTIO_BALLOON_HP_F_REPORTING) |		\
		 BIT_ULL(VIRTIO_BALLOON_HP_F_NODES) |			\
		 BIT_ULL(VIRTIO_BALLOON_HP_F_STATE) |			\
		 BIT_ULL(VIRTIO_BALLOON_HP_F_RECLAIM))

/* In, out, and back: what every device that can be served must get. */
static void probe_cycle(struct hp_dev *dev, u64 bytes)
{
	hp_dev_request(dev, bytes);
	hp_expect_out(dev, bytes);
	hp_dev_request(dev, 0);
	hp_expect_out(dev, 0);
}

static void probe_idle_is_silent(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = HP_OURS & ~BIT_ULL(VIRTIO_BALLOON_HP_F_REPORTING),
	});
	unsigned int runs, kicks;

	msleep(1000);
	runs = hp_worker_runs();
	kicks = dev->seen.kicks;
	msleep(200 * 1000);
	KUNIT_EXPECT_EQ_MSG(test, hp_worker_runs(), runs, "an idle device wakes the driver");
	KUNIT_EXPECT_EQ(test, dev->seen.kicks, kicks);
	KUNIT_EXPECT_EQ(test, dev->seen.requests[VIRTIO_BALLOON_HP_REQ_INFLATE], 0);
	KUNIT_EXPECT_EQ(test, dev->seen.requests[VIRTIO_BALLOON_HP_REQ_DEFLATE], 0);
}

static void probe_target_at_start(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(64),
	});

	hp_expect_out(dev, HP_MIB(64));
}

/* DRV-3, and no bit that we do not know */
static void probe_accepts_ours_only(struct kunit *test)
{
	u64 mask = GENMASK_ULL(23, 0);
	struct hp_dev *dev = hp_start(test, &(struct hp_params) { .features = mask });

	KUNIT_EXPECT_EQ(test, dev->vdev.features & mask, HP_OURS);
	probe_cycle(dev, HP_MIB(32));
}

/* DEV-2 from the other side */
static void probe_without_features(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {});

	KUNIT_EXPECT_EQ(test, dev->vdev.features & GENMASK_ULL(23, 0), 0);
	probe_cycle(dev, HP_MIB(128));
	KUNIT_EXPECT_EQ(test, dev->seen.stats, 0);
}

/* DRV-2: the device notes an offence if the bit is kept */
static void probe_clears_access_platform(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_F_ACCESS_PLATFORM),
	});

	KUNIT_EXPECT_FALSE(test, __virtio_test_bit(&dev->vdev, VIRTIO_F_ACCESS_PLATFORM));
	probe_cycle(dev, HP_MIB(32));
}

/* DRV-1 */
static void probe_refuses_legacy(struct kunit *test)
{
	struct hp_dev *dev = hp_plug(test, &(struct hp_params) {
		.legacy = true,
		.features = HP_OURS,
		.requested = HP_MIB(32),
	});

	msleep(1000);
	KUNIT_EXPECT_FALSE(test, hp_dev_is_driven(dev));
	KUNIT_EXPECT_NULL(test, dev->vdev.dev.driver);
	KUNIT_EXPECT_EQ(test, dev->seen.kicks, 0);
}

/* DRV-4: transports number queues without gaps, the wire does not */
static void probe_queue_index_gap(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_REPORTING),
	});

	/* free pages are reported every two seconds, if at all */
	probe_cycle(dev, HP_MIB(64));
	msleep(10 * 1000);
	KUNIT_EXPECT_EQ(test, dev->seen.stats, 0);
}

static void probe_bind_again(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = HP_OURS,
		.requested = HP_MIB(64),
	});
	struct hp_fixture *fix = test->priv;
	int i;

	for (i = 0; i < 10; i++) {
		hp_expect_out(dev, HP_MIB(64));
		device_release_driver(&dev->vdev.dev);
		KUNIT_EXPECT_EQ(test, hp_dev_actual(dev), 0);
		KUNIT_EXPECT_EQ(test, hp_count_offline(), fix->offline);
		KUNIT_EXPECT_EQ(test, totalram_pages(), fix->managed);
		KUNIT_ASSERT_EQ(test, device_attach(&dev->vdev.dev), 1);
	}
	hp_expect_out(dev, HP_MIB(64));
}

/* Two balloons are odd, but must not share anything. */
static void probe_two_devices(struct kunit *test)
{
	struct hp_params params = { .requested = HP_MIB(64) };
	struct hp_dev *other = hp_dev_plug(test, &params);
	struct hp_dev *dev = hp_start(test, &params);

	HP_WAIT(dev, hp_dev_actual(dev) == HP_MIB(64));
	HP_WAIT(other, hp_dev_actual(other) == HP_MIB(64));
	hp_dev_unplug(other);
	KUNIT_EXPECT_EQ_MSG(test, other->nr_offences, 0, "%s", other->offence[0]);
	hp_dev_free(other);
	hp_expect_out(dev, HP_MIB(64));
}

/* DRV-6: sizes that DEV-3 allows, and that this kernel can take */
static const struct probe_size {
	const char *name;
	u64 unit;
	u64 preferred;
	bool small;		/* ranges cannot be multiples of preferred */
} probe_sizes[] = {
	{ "2M of 2M", SZ_2M, SZ_2M },
	{ "2M of 4K", SZ_4K, SZ_2M },
	{ "2M of 64K", SZ_64K, SZ_2M },
	{ "4K of 4K", SZ_4K, SZ_4K },
	{ "4M of 4M", SZ_4M, SZ_4M },
	{ "4M of 2M", SZ_2M, SZ_4M },
	{ "1G of 2M", SZ_2M, SZ_1G, true },
	{ "1G of 4K", SZ_4K, SZ_1G, true },
};

static void probe_size_desc(const struct probe_size *s, char *desc)
{
	strscpy(desc, s->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(probe_size, probe_sizes, probe_size_desc);

static void probe_sizes_work(struct kunit *test)
{
	const struct probe_size *s = test->param_value;
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.unit = s->unit,
		.preferred = s->preferred,
	});

	probe_cycle(dev, HP_MIB(96));
	if (!s->small)
		KUNIT_EXPECT_EQ(test, dev->seen.small, 0);
	KUNIT_EXPECT_EQ(test, dev->seen.unmerged, 0);
}

/* DRV-6: what cannot be served, or makes no sense, is left alone */
static const struct probe_lie {
	const char *name;
	u64 unit;
	u64 preferred;
	u32 max_ranges;
} probe_lies[] = {
	{ "units of 8M", SZ_8M, SZ_8M, 1022 },
	{ "units of 1G", SZ_1G, SZ_1G, 1022 },
	{ "units of 2^63", BIT_ULL(63), BIT_ULL(63), 1022 },
	{ "unit is no power of two", 3 * SZ_1M, SZ_4M, 1022 },
	{ "unit below 4K", 512, SZ_2M, 1022 },
	{ "unit of 0", 0, SZ_2M, 1022 },
	{ "preferred below unit", SZ_2M, SZ_4K, 1022 },
	{ "preferred is no power of two", SZ_4K, 3 * SZ_1M, 1022 },
	{ "preferred of 0", SZ_4K, 0, 1022 },
	{ "no ranges", SZ_2M, SZ_2M, 0 },
};

static void probe_lie_desc(const struct probe_lie *l, char *desc)
{
	strscpy(desc, l->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(probe_lie, probe_lies, probe_lie_desc);

static void probe_lies_are_left_alone(struct kunit *test)
{
	const struct probe_lie *l = test->param_value;
	struct virtio_balloon_hp_config config = {
		.requested = cpu_to_le64(SZ_1G),
		.preferred = cpu_to_le64(l->preferred),
		.unit = cpu_to_le64(l->unit),
		.max_ranges = cpu_to_le32(l->max_ranges),
	};
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_STATS),
		.lie = &config,
	});
	unsigned int runs;
	u64 val;

	msleep(1000);
	hp_dev_request(dev, SZ_512M);
	msleep(1000);
	KUNIT_EXPECT_EQ(test, dev->seen.requests[VIRTIO_BALLOON_HP_REQ_INFLATE], 0);
	runs = hp_worker_runs();
	msleep(200 * 1000);
	KUNIT_EXPECT_EQ(test, hp_worker_runs(), runs);
	/* statistics work all the same */
	KUNIT_EXPECT_EQ(test, hp_dev_poll_stats(dev), 0);
	KUNIT_EXPECT_TRUE(test, hp_dev_stat(dev, VIRTIO_BALLOON_HP_STAT_MEMFREE, &val));
	KUNIT_ASSERT_EQ(test, 0, virtio_device_freeze(&dev->vdev));
	KUNIT_ASSERT_EQ(test, 0, virtio_device_restore(&dev->vdev));
	KUNIT_EXPECT_EQ(test, hp_dev_poll_stats(dev), 0);
}

/* DRV-10: rings and limits of any size, with and without indirect tables */
static const struct probe_ring {
	const char *name;
	u64 features;
	u16 queue_size;
	u32 max_ranges;
} probe_rings[] = {
	{ "1024", 0, 1024, 0 },
	{ "1024 indirect", BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC), 1024, 0 },
	{ "1024 event index", BIT_ULL(VIRTIO_RING_F_EVENT_IDX), 1024, 0 },
	{ "1024 both", BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC) |
		       BIT_ULL(VIRTIO_RING_F_EVENT_IDX), 1024, 0 },
	{ "128", 0, 128, 0 },
	{ "4", 0, 4, 0 },
	{ "4 indirect", BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC), 4, 0 },
	{ "one range", 0, 1024, 1 },
	{ "two ranges", BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC), 1024, 2 },
};

static void probe_ring_desc(const struct probe_ring *r, char *desc)
{
	strscpy(desc, r->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(probe_ring, probe_rings, probe_ring_desc);

static void probe_rings_work(struct kunit *test)
{
	const struct probe_ring *r = test->param_value;
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = r->features | BIT_ULL(VIRTIO_BALLOON_HP_F_STATS),
		.queue_size = r->queue_size,
		.max_ranges = r->max_ranges,
	});

	probe_cycle(dev, HP_MIB(200));
	probe_cycle(dev, HP_MIB(2));
}

static struct kunit_case probe_cases[] = {
	KUNIT_CASE_SLOW(probe_idle_is_silent),
	KUNIT_CASE(probe_target_at_start),
	KUNIT_CASE(probe_accepts_ours_only),
	KUNIT_CASE(probe_without_features),
	KUNIT_CASE(probe_clears_access_platform),
	KUNIT_CASE(probe_refuses_legacy),
	KUNIT_CASE(probe_queue_index_gap),
	KUNIT_CASE(probe_bind_again),
	KUNIT_CASE(probe_two_devices),
	KUNIT_CASE_PARAM(probe_sizes_work, probe_size_gen_params),
	KUNIT_CASE_PARAM_ATTR(probe_lies_are_left_alone, probe_lie_gen_params,
			      { .speed = KUNIT_SPEED_SLOW }),
	KUNIT_CASE_PARAM(probe_rings_work, probe_ring_gen_params),
	{}
};

HP_SUITE(virtio_balloon_hp_probe, probe_cases);
