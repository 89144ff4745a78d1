// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of step [2], guest/linux/ranges.c: what an answer says of every
 * block of the request, without a device.
 *
 * Examples as tables first; then a seeded generator makes many answers, and a
 * slow, obvious model says what became of each unit: a walk covers the request
 * exactly.
 */
#include <kunit/test.h>
#include <linux/prandom.h>

#include "ranges_test.h"

struct expected {
	u64 first;
	u32 count;
	enum hpb_fate fate;
	u16 status;
};

static void expect_walk(struct kunit *test, const struct response *r,
			const struct hpb_range *ranges, unsigned int nr,
			u32 upb, u16 also_done, const struct expected *want,
			unsigned int nr_want)
{
	struct hpb_answer a;
	struct hpb_piece p;
	struct hpb_walk w;
	unsigned int i;

	KUNIT_ASSERT_NULL(test, parse(&a, r, hpb_ranges_blocks(ranges, nr) * upb));
	hpb_walk_init(&w, &a, ranges, nr, upb, also_done);
	for (i = 0; i < nr_want; i++) {
		KUNIT_ASSERT_TRUE(test, hpb_walk_next(&w, &p));
		expect_range(test, p.range, want[i].first, want[i].count);
		KUNIT_EXPECT_EQ(test, p.fate, want[i].fate);
		KUNIT_EXPECT_EQ(test, p.status, want[i].status);
	}
	KUNIT_EXPECT_FALSE(test, hpb_walk_next(&w, &p));
}

#define EXPECT_WALK(test, r, ranges, upb, also_done, ...) do {		\
	const struct expected want_[] = { __VA_ARGS__ };		\
	expect_walk(test, r, ranges, ARRAY_SIZE(ranges), upb, also_done, \
		    want_, ARRAY_SIZE(want_));				\
} while (0)

static const struct hpb_range two_ranges[] = { { 100, 4 }, { 10, 2 } };

static void walk_all_done(struct kunit *test)
{
	struct response r;

	respond(&r, VIRTIO_BALLOON_HP_OK, 6);
	EXPECT_WALK(test, &r, two_ranges, 1, VIRTIO_BALLOON_HP_OK,
		    { 100, 4, HPB_DONE, VIRTIO_BALLOON_HP_OK },
		    { 10, 2, HPB_DONE, VIRTIO_BALLOON_HP_OK });
}

static void walk_none_done(struct kunit *test)
{
	struct response r;

	respond(&r, VIRTIO_BALLOON_HP_NOMEM, 0);
	EXPECT_WALK(test, &r, two_ranges, 1, VIRTIO_BALLOON_HP_NOT_OUT,
		    { 100, 4, HPB_NOT_DONE, VIRTIO_BALLOON_HP_NOMEM },
		    { 10, 2, HPB_NOT_DONE, VIRTIO_BALLOON_HP_NOMEM });

	/* One status for all, and it means "already where you want it". */
	respond(&r, VIRTIO_BALLOON_HP_NOT_OUT, 0);
	EXPECT_WALK(test, &r, two_ranges, 1, VIRTIO_BALLOON_HP_NOT_OUT,
		    { 100, 4, HPB_DONE, VIRTIO_BALLOON_HP_NOT_OUT },
		    { 10, 2, HPB_DONE, VIRTIO_BALLOON_HP_NOT_OUT });
	EXPECT_WALK(test, &r, two_ranges, 1, VIRTIO_BALLOON_HP_OK,
		    { 100, 4, HPB_NOT_DONE, VIRTIO_BALLOON_HP_NOT_OUT },
		    { 10, 2, HPB_NOT_DONE, VIRTIO_BALLOON_HP_NOT_OUT });
}

static void walk_exception_across_ranges(struct kunit *test)
{
	struct response r;

	respond(&r, VIRTIO_BALLOON_HP_PARTIAL, 3);
	except(&r, 2, 3, VIRTIO_BALLOON_HP_BUSY);
	EXPECT_WALK(test, &r, two_ranges, 1, VIRTIO_BALLOON_HP_OK,
		    { 100, 2, HPB_DONE, VIRTIO_BALLOON_HP_OK },
		    { 102, 2, HPB_NOT_DONE, VIRTIO_BALLOON_HP_BUSY },
		    { 10, 1, HPB_NOT_DONE, VIRTIO_BALLOON_HP_BUSY },
		    { 11, 1, HPB_DONE, VIRTIO_BALLOON_HP_OK });
}

static void walk_reasons_are_kept_apart(struct kunit *test)
{
	struct response r;

	respond(&r, VIRTIO_BALLOON_HP_PARTIAL, 4);
	except(&r, 1, 1, VIRTIO_BALLOON_HP_IO);
	except(&r, 2, 1, VIRTIO_BALLOON_HP_DENIED);
	EXPECT_WALK(test, &r, two_ranges, 1, VIRTIO_BALLOON_HP_OK,
		    { 100, 1, HPB_DONE, VIRTIO_BALLOON_HP_OK },
		    { 101, 1, HPB_NOT_DONE, VIRTIO_BALLOON_HP_IO },
		    { 102, 1, HPB_NOT_DONE, VIRTIO_BALLOON_HP_DENIED },
		    { 103, 1, HPB_DONE, VIRTIO_BALLOON_HP_OK },
		    { 10, 2, HPB_DONE, VIRTIO_BALLOON_HP_OK });
}

static void walk_blocks_of_many_units(struct kunit *test)
{
	static const struct hpb_range ranges[] = { { 5, 4 } };
	struct response r;

	/* Units 0-511 are block 5, and so on; block 6 loses its last unit. */
	respond(&r, VIRTIO_BALLOON_HP_PARTIAL, 4 * 512 - 1);
	except(&r, 1023, 1, VIRTIO_BALLOON_HP_IO);
	EXPECT_WALK(test, &r, ranges, 512, VIRTIO_BALLOON_HP_OK,
		    { 5, 1, HPB_DONE, VIRTIO_BALLOON_HP_OK },
		    { 6, 1, HPB_MIXED, VIRTIO_BALLOON_HP_IO },
		    { 7, 2, HPB_DONE, VIRTIO_BALLOON_HP_OK });

	/* An exception that starts in one block and ends in another. */
	respond(&r, VIRTIO_BALLOON_HP_PARTIAL, 4 * 512 - 1025);
	except(&r, 511, 1025, VIRTIO_BALLOON_HP_BUSY);
	EXPECT_WALK(test, &r, ranges, 512, VIRTIO_BALLOON_HP_OK,
		    { 5, 1, HPB_MIXED, VIRTIO_BALLOON_HP_BUSY },
		    { 6, 2, HPB_NOT_DONE, VIRTIO_BALLOON_HP_BUSY },
		    { 8, 1, HPB_DONE, VIRTIO_BALLOON_HP_OK });

	/* Two reasons, between them the whole block. */
	respond(&r, VIRTIO_BALLOON_HP_PARTIAL, 3 * 512);
	except(&r, 0, 100, VIRTIO_BALLOON_HP_BUSY);
	except(&r, 100, 412, VIRTIO_BALLOON_HP_AGAIN);
	EXPECT_WALK(test, &r, ranges, 512, VIRTIO_BALLOON_HP_OK,
		    { 5, 1, HPB_NOT_DONE, VIRTIO_BALLOON_HP_BUSY },
		    { 6, 3, HPB_DONE, VIRTIO_BALLOON_HP_OK });
}

static void walk_already_there_counts_as_done(struct kunit *test)
{
	static const struct hpb_range ranges[] = { { 0, 4 } };
	struct response r;

	/* Half of block 0 was out before: after the request all of it is. */
	respond(&r, VIRTIO_BALLOON_HP_PARTIAL, 8 - 2 - 2 - 1 - 1);
	except(&r, 0, 1, VIRTIO_BALLOON_HP_ALREADY_OUT);
	except(&r, 2, 2, VIRTIO_BALLOON_HP_ALREADY_OUT);
	except(&r, 4, 1, VIRTIO_BALLOON_HP_ALREADY_OUT);
	except(&r, 5, 1, VIRTIO_BALLOON_HP_IO);
	except(&r, 6, 1, VIRTIO_BALLOON_HP_NOT_RAM);
	EXPECT_WALK(test, &r, ranges, 2, VIRTIO_BALLOON_HP_ALREADY_OUT,
		    { 0, 2, HPB_DONE, VIRTIO_BALLOON_HP_ALREADY_OUT },
		    { 2, 1, HPB_MIXED, VIRTIO_BALLOON_HP_IO },
		    { 3, 1, HPB_MIXED, VIRTIO_BALLOON_HP_NOT_RAM });
}

/* A random list of exceptions over @units, and what it says of each unit. */
static u64 random_exceptions(struct rnd_state *rnd, struct response *r,
			     u16 *status, u32 units)
{
	static const u16 reasons[] = {
		VIRTIO_BALLOON_HP_BUSY, VIRTIO_BALLOON_HP_IO,
		VIRTIO_BALLOON_HP_ALREADY_OUT,
	};
	u32 at = 0, n = prandom_u32_state(rnd) % (TEST_EXC + 1);
	u64 done = units;

	memset(status, 0, units * sizeof(*status));
	while (n--) {
		u32 first = at + prandom_u32_state(rnd) % 8;
		u32 count = 1 + prandom_u32_state(rnd) % 8;
		u16 why = reasons[prandom_u32_state(rnd) % ARRAY_SIZE(reasons)];
		u32 u;

		if (first >= units)
			break;
		count = min(count, units - first);
		except(r, first, count, why);
		for (u = first; u < first + count; u++)
			status[u] = why;
		done -= count;
		at = first + count;
	}
	return done;
}

static enum hpb_fate model_fate(const u16 *status, u32 upb, u16 also_done)
{
	u32 u, missing = 0;

	for (u = 0; u < upb; u++)
		missing += status[u] != VIRTIO_BALLOON_HP_OK &&
			   status[u] != also_done;
	return !missing ? HPB_DONE : missing == upb ? HPB_NOT_DONE : HPB_MIXED;
}

static void walk_random(struct kunit *test)
{
	static const u32 upbs[] = { 1, 2, 4, 8 };
	struct hpb_range ranges[4];
	struct rnd_state rnd;
	unsigned int round;
	u16 status[32 * 8];

	prandom_seed_state(&rnd, TEST_SEED);
	for (round = 0; round < TEST_ROUNDS; round++) {
		u32 upb = upbs[prandom_u32_state(&rnd) % ARRAY_SIZE(upbs)];
		unsigned int i, at = 0;
		struct hpb_answer a;
		struct hpb_piece p;
		struct hpb_walk w;
		struct response r;
		u32 blocks = 0, seen = 0;
		u64 done;

		for (i = 0; i < ARRAY_SIZE(ranges); i++) {
			ranges[i].first = i * 1000;
			ranges[i].count = 1 + prandom_u32_state(&rnd) % 8;
			blocks += ranges[i].count;
		}
		respond(&r, VIRTIO_BALLOON_HP_PARTIAL, 0);
		done = random_exceptions(&rnd, &r, status, blocks * upb);
		r.head.done = cpu_to_le64(done * TEST_UNIT);
		KUNIT_ASSERT_NULL(test, parse(&a, &r, (u64)blocks * upb));

		hpb_walk_init(&w, &a, ranges, ARRAY_SIZE(ranges), upb,
			      VIRTIO_BALLOON_HP_ALREADY_OUT);
		while (hpb_walk_next(&w, &p)) {
			u32 b;

			/* The request's order, block by block. */
			KUNIT_ASSERT_GE(test, p.range.count, 1);
			KUNIT_ASSERT_EQ(test, p.range.first,
					ranges[at].first + seen);
			for (b = 0; b < p.range.count; b++) {
				u32 done_before = 0;

				for (i = 0; i < at; i++)
					done_before += ranges[i].count;
				KUNIT_ASSERT_EQ(test, p.fate,
						model_fate(&status[(done_before + seen) * upb],
							   upb,
							   VIRTIO_BALLOON_HP_ALREADY_OUT));
				seen++;
			}
			KUNIT_ASSERT_LE(test, seen, ranges[at].count);
			if (seen == ranges[at].count) {
				at++;
				seen = 0;
			}
		}
		KUNIT_ASSERT_EQ(test, at, ARRAY_SIZE(ranges));
	}
}

static struct kunit_case walk_cases[] = {
	KUNIT_CASE(walk_all_done),
	KUNIT_CASE(walk_none_done),
	KUNIT_CASE(walk_exception_across_ranges),
	KUNIT_CASE(walk_reasons_are_kept_apart),
	KUNIT_CASE(walk_blocks_of_many_units),
	KUNIT_CASE(walk_already_there_counts_as_done),
	KUNIT_CASE(walk_random),
	{}
};

static struct kunit_suite walk_suite = {
	.name = "virtio_balloon_hp_walk",
	.test_cases = walk_cases,
};
kunit_test_suite(walk_suite);
MODULE_LICENSE("GPL");
