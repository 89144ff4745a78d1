// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of step [2], guest/linux/ranges.c: arithmetic on blocks and
 * ranges, and the checks of an answer, without a device.
 *
 * Everything is a pure function, so tests state inputs and outputs as tables
 * where they can. Where a property matters more than examples (a merge loses
 * nothing), a seeded generator makes many inputs and a slow, obvious model of a
 * few lines says what is right.
 */
#include <kunit/test.h>
#include <linux/prandom.h>

#include "ranges_test.h"

/* Blocks and ranges */

static void ranges_add_extends_both_ends(struct kunit *test)
{
	struct hpb_range r[4];
	unsigned int nr = 0;

	nr = hpb_ranges_add(r, nr, 8, 10);
	nr = hpb_ranges_add(r, nr, 8, 11);
	nr = hpb_ranges_add(r, nr, 8, 9);
	KUNIT_ASSERT_EQ(test, nr, 1);
	expect_range(test, r[0], 9, 3);

	nr = hpb_ranges_add(r, nr, 8, 7);
	KUNIT_ASSERT_EQ(test, nr, 2);
	expect_range(test, r[1], 7, 1);
}

static void ranges_add_stops_at_longest(struct kunit *test)
{
	struct hpb_range r[4];
	unsigned int nr = 0;
	u64 b;

	for (b = 0; b < 5; b++)
		nr = hpb_ranges_add(r, nr, 2, b);
	KUNIT_ASSERT_EQ(test, nr, 3);
	expect_range(test, r[0], 0, 2);
	expect_range(test, r[1], 2, 2);
	expect_range(test, r[2], 4, 1);
}

static void ranges_add_block_zero(struct kunit *test)
{
	struct hpb_range r[2];
	unsigned int nr;

	/* Block 0 has no block before it; ~0 + 1 must not be taken for one. */
	nr = hpb_ranges_add(r, 0, 8, 0);
	nr = hpb_ranges_add(r, nr, 8, U64_MAX);
	KUNIT_EXPECT_EQ(test, nr, 2);
}

static void ranges_merge_sorts_and_joins(struct kunit *test)
{
	struct hpb_range r[] = {
		{ 20, 2 }, { 0, 1 }, { 10, 5 }, { 15, 5 }, { 30, 1 }, { 1, 1 },
	};
	unsigned int nr = hpb_ranges_merge(r, ARRAY_SIZE(r), 512);

	KUNIT_ASSERT_EQ(test, nr, 3);
	expect_range(test, r[0], 0, 2);
	expect_range(test, r[1], 10, 12);
	expect_range(test, r[2], 30, 1);
}

static void ranges_merge_fills_up_to_longest(struct kunit *test)
{
	struct hpb_range r[] = { { 3, 3 }, { 0, 3 }, { 6, 3 } };
	unsigned int nr = hpb_ranges_merge(r, ARRAY_SIZE(r), 4);

	KUNIT_ASSERT_EQ(test, nr, 3);
	expect_range(test, r[0], 0, 4);
	expect_range(test, r[1], 4, 4);
	expect_range(test, r[2], 8, 1);
}

static void ranges_merge_of_nothing(struct kunit *test)
{
	struct hpb_range r[1] = { { 7, 7 } };

	KUNIT_EXPECT_EQ(test, hpb_ranges_merge(r, 0, 4), 0);
	KUNIT_EXPECT_EQ(test, hpb_ranges_blocks(r, 0), 0);
}

static void ranges_merge_above_4g_blocks(struct kunit *test)
{
	struct hpb_range r[] = { { BIT_ULL(40) + 1, 1 }, { BIT_ULL(40), 1 } };

	KUNIT_ASSERT_EQ(test, hpb_ranges_merge(r, 2, 512), 1);
	expect_range(test, r[0], BIT_ULL(40), 2);
}

static void ranges_merge_random(struct kunit *test)
{
	struct rnd_state rnd;
	struct hpb_range r[64];
	unsigned int round, nr, i;
	bool in[256];

	prandom_seed_state(&rnd, TEST_SEED);
	for (round = 0; round < TEST_ROUNDS; round++) {
		u32 max = 1 + prandom_u32_state(&rnd) % 16;
		unsigned int want = prandom_u32_state(&rnd) % 64;
		u64 blocks = 0;

		memset(in, 0, sizeof(in));
		for (nr = 0, i = 0; i < want; i++) {
			u32 b = prandom_u32_state(&rnd) % ARRAY_SIZE(in);

			if (in[b])
				continue;
			in[b] = true;
			blocks++;
			nr = hpb_ranges_add(r, nr, max, b);
		}
		nr = hpb_ranges_merge(r, nr, max);

		KUNIT_ASSERT_EQ(test, hpb_ranges_blocks(r, nr), blocks);
		for (i = 0; i < nr; i++) {
			u64 end = r[i].first + r[i].count;
			u64 b;

			KUNIT_ASSERT_GE(test, r[i].count, 1);
			KUNIT_ASSERT_LE(test, r[i].count, max);
			for (b = r[i].first; b < end; b++) {
				KUNIT_ASSERT_TRUE(test, in[b]);
				in[b] = false;
			}
			if (i + 1 == nr)
				continue;
			KUNIT_ASSERT_LE(test, end, r[i + 1].first);
			/* Neighbours stay apart only if the first is full. */
			if (end == r[i + 1].first)
				KUNIT_ASSERT_EQ(test, r[i].count, max);
		}
	}
}

static void range_cut(struct kunit *test)
{
	struct hpb_range r = { 100, 10 };

	expect_range(test, hpb_range_cut(&r, 3), 100, 3);
	expect_range(test, r, 103, 7);
	expect_range(test, hpb_range_cut(&r, 0), 103, 0);
	expect_range(test, hpb_range_cut(&r, 50), 103, 7);
	expect_range(test, r, 110, 0);
}

static void range_clip(struct kunit *test)
{
	const struct hpb_range r = { 100, 10 };

	expect_range(test, hpb_range_clip(&r, 0, U64_MAX), 100, 10);
	expect_range(test, hpb_range_clip(&r, 0, 105), 100, 5);
	expect_range(test, hpb_range_clip(&r, 105, 200), 105, 5);
	expect_range(test, hpb_range_clip(&r, 103, 104), 103, 1);
	KUNIT_EXPECT_EQ(test, hpb_range_clip(&r, 0, 100).count, 0);
	KUNIT_EXPECT_EQ(test, hpb_range_clip(&r, 110, 120).count, 0);
	KUNIT_EXPECT_EQ(test, hpb_range_clip(&r, 105, 105).count, 0);
}

/* Checking a response: DRV-15 */

#define EXPECT_GOOD(test, r, units) do {				\
	struct hpb_answer good_;					\
	KUNIT_EXPECT_NULL(test, parse(&good_, r, units));		\
} while (0)

#define EXPECT_BROKEN(test, r, units) do {				\
	struct hpb_answer broken_;					\
	KUNIT_EXPECT_NOT_NULL(test, parse(&broken_, r, units));		\
} while (0)

static void answer_good(struct kunit *test)
{
	struct hpb_answer a;
	struct response r;

	respond(&r, VIRTIO_BALLOON_HP_OK, 100);
	r.head.flags = cpu_to_le16(VIRTIO_BALLOON_HP_RESP_F_ZEROED);
	KUNIT_ASSERT_NULL(test, parse(&a, &r, 100));
	KUNIT_EXPECT_EQ(test, a.status, VIRTIO_BALLOON_HP_OK);
	KUNIT_EXPECT_TRUE(test, a.zeroed);
	KUNIT_EXPECT_EQ(test, a.nr, 0);

	respond(&r, VIRTIO_BALLOON_HP_PARTIAL, 90);
	except(&r, 0, 4, VIRTIO_BALLOON_HP_BUSY);
	except(&r, 4, 1, VIRTIO_BALLOON_HP_IO);
	except(&r, 95, 5, VIRTIO_BALLOON_HP_AGAIN);
	KUNIT_ASSERT_NULL(test, parse(&a, &r, 100));
	KUNIT_EXPECT_FALSE(test, a.zeroed);
	KUNIT_EXPECT_EQ(test, a.nr, 3);

	/* A status for all, with and without a list of reasons. */
	respond(&r, VIRTIO_BALLOON_HP_NOMEM, 0);
	EXPECT_GOOD(test, &r, 100);
	except(&r, 0, 100, VIRTIO_BALLOON_HP_NOMEM);
	EXPECT_GOOD(test, &r, 100);

	/* A status that this driver has never heard of is an answer. */
	respond(&r, 0x1234, 0);
	EXPECT_GOOD(test, &r, 100);
}

static void answer_used_length(struct kunit *test)
{
	struct hpb_answer a;
	struct response r;
	u32 len;

	respond(&r, VIRTIO_BALLOON_HP_OK, 100);
	for (len = 0; len < sizeof(r.head); len++)
		KUNIT_EXPECT_NOT_NULL(test, hpb_answer_parse(&a, &r, TEST_RESP_SIZE,
							     len, 100, TEST_UNIT));
	KUNIT_EXPECT_NOT_NULL(test, hpb_answer_parse(&a, &r, TEST_RESP_SIZE,
						     TEST_RESP_SIZE + 1, 100,
						     TEST_UNIT));

	respond(&r, VIRTIO_BALLOON_HP_PARTIAL, 98);
	except(&r, 1, 1, VIRTIO_BALLOON_HP_BUSY);
	except(&r, 3, 1, VIRTIO_BALLOON_HP_BUSY);
	for (len = sizeof(r.head); len < used(&r); len++)
		KUNIT_EXPECT_NOT_NULL(test, hpb_answer_parse(&a, &r, TEST_RESP_SIZE,
							     len, 100, TEST_UNIT));
	KUNIT_EXPECT_NULL(test, hpb_answer_parse(&a, &r, TEST_RESP_SIZE, used(&r),
						 100, TEST_UNIT));
}

static void answer_too_many_exceptions(struct kunit *test)
{
	struct hpb_answer a;
	struct response r;

	/* The count must not make the check overflow or the driver read on. */
	respond(&r, VIRTIO_BALLOON_HP_PARTIAL, 0);
	r.head.nr_exceptions = cpu_to_le32(TEST_EXC + 1);
	KUNIT_EXPECT_NOT_NULL(test, hpb_answer_parse(&a, &r, TEST_RESP_SIZE,
						     TEST_RESP_SIZE, 100, TEST_UNIT));
	r.head.nr_exceptions = cpu_to_le32(U32_MAX);
	KUNIT_EXPECT_NOT_NULL(test, hpb_answer_parse(&a, &r, TEST_RESP_SIZE,
						     TEST_RESP_SIZE, 100, TEST_UNIT));
}

static void answer_bad_order(struct kunit *test)
{
	struct response r;

	respond(&r, VIRTIO_BALLOON_HP_PARTIAL, 98);
	except(&r, 5, 1, VIRTIO_BALLOON_HP_BUSY);
	except(&r, 4, 1, VIRTIO_BALLOON_HP_BUSY);
	EXPECT_BROKEN(test, &r, 100);

	respond(&r, VIRTIO_BALLOON_HP_PARTIAL, 96);
	except(&r, 4, 2, VIRTIO_BALLOON_HP_BUSY);
	except(&r, 5, 2, VIRTIO_BALLOON_HP_IO);
	EXPECT_BROKEN(test, &r, 100);

	respond(&r, VIRTIO_BALLOON_HP_OK, 100);
	except(&r, 4, 0, VIRTIO_BALLOON_HP_BUSY);
	EXPECT_BROKEN(test, &r, 100);
}

static void answer_beyond_request(struct kunit *test)
{
	struct response r;

	respond(&r, VIRTIO_BALLOON_HP_PARTIAL, 99);
	except(&r, 100, 1, VIRTIO_BALLOON_HP_BUSY);
	EXPECT_BROKEN(test, &r, 100);

	respond(&r, VIRTIO_BALLOON_HP_PARTIAL, 98);
	except(&r, 99, 2, VIRTIO_BALLOON_HP_BUSY);
	EXPECT_BROKEN(test, &r, 100);

	/* first + count wraps around in 32 bits */
	respond(&r, VIRTIO_BALLOON_HP_PARTIAL, 99);
	except(&r, 99, U32_MAX, VIRTIO_BALLOON_HP_BUSY);
	EXPECT_BROKEN(test, &r, 100);
}

static void answer_bad_sum(struct kunit *test)
{
	struct response r;

	respond(&r, VIRTIO_BALLOON_HP_OK, 99);
	EXPECT_BROKEN(test, &r, 100);
	respond(&r, VIRTIO_BALLOON_HP_OK, 101);
	EXPECT_BROKEN(test, &r, 100);

	respond(&r, VIRTIO_BALLOON_HP_OK, 100);
	le64_add_cpu(&r.head.done, 1);
	EXPECT_BROKEN(test, &r, 100);

	respond(&r, VIRTIO_BALLOON_HP_PARTIAL, 100);
	except(&r, 0, 1, VIRTIO_BALLOON_HP_BUSY);
	EXPECT_BROKEN(test, &r, 100);

	/* "none was done", but some were */
	respond(&r, VIRTIO_BALLOON_HP_BUSY, 1);
	EXPECT_BROKEN(test, &r, 100);
}

static void answer_exception_without_reason(struct kunit *test)
{
	struct response r;

	respond(&r, VIRTIO_BALLOON_HP_PARTIAL, 99);
	except(&r, 0, 1, VIRTIO_BALLOON_HP_OK);
	EXPECT_BROKEN(test, &r, 100);

	respond(&r, VIRTIO_BALLOON_HP_PARTIAL, 99);
	except(&r, 0, 1, VIRTIO_BALLOON_HP_PARTIAL);
	EXPECT_BROKEN(test, &r, 100);
}

static struct kunit_case ranges_cases[] = {
	KUNIT_CASE(ranges_add_extends_both_ends),
	KUNIT_CASE(ranges_add_stops_at_longest),
	KUNIT_CASE(ranges_add_block_zero),
	KUNIT_CASE(ranges_merge_sorts_and_joins),
	KUNIT_CASE(ranges_merge_fills_up_to_longest),
	KUNIT_CASE(ranges_merge_of_nothing),
	KUNIT_CASE(ranges_merge_above_4g_blocks),
	KUNIT_CASE(ranges_merge_random),
	KUNIT_CASE(range_cut),
	KUNIT_CASE(range_clip),
	KUNIT_CASE(answer_good),
	KUNIT_CASE(answer_used_length),
	KUNIT_CASE(answer_too_many_exceptions),
	KUNIT_CASE(answer_bad_order),
	KUNIT_CASE(answer_beyond_request),
	KUNIT_CASE(answer_bad_sum),
	KUNIT_CASE(answer_exception_without_reason),
	{}
};

static struct kunit_suite ranges_suite = {
	.name = "virtio_balloon_hp_ranges",
	.test_cases = ranges_cases,
};
kunit_test_suite(ranges_suite);
MODULE_LICENSE("GPL");
