// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of step [1], guest/linux/ladder.c: the order in which memory is
 * given up, and the choice of blocks to empty. Pure functions, no device.
 *
 * The choice is compared with a slow, obvious model: sort all candidates.
 */
#include <kunit/test.h>
#include <linux/prandom.h>
#include <linux/sort.h>

#include "ladder.h"

#define TEST_SEED	20240602
#define TEST_ROUNDS	50
#define TEST_BLOCKS	600

static void ladder_order(struct kunit *test)
{
	enum hpb_rung rung = hpb_ladder_first(false, false);

	KUNIT_EXPECT_EQ(test, rung, HPB_RUNG_FREE);
	rung = hpb_ladder_next(rung, false, false);
	KUNIT_EXPECT_EQ(test, rung, HPB_RUNG_UNUSED);
	rung = hpb_ladder_next(rung, false, false);
	KUNIT_EXPECT_EQ(test, rung, HPB_RUNG_CLEAN);
	rung = hpb_ladder_next(rung, false, false);
	KUNIT_EXPECT_EQ(test, rung, HPB_RUNG_MOVE);
	rung = hpb_ladder_next(rung, false, false);
	KUNIT_EXPECT_EQ(test, rung, HPB_RUNG_COMPACT);
	rung = hpb_ladder_next(rung, false, false);
	KUNIT_EXPECT_EQ(test, rung, HPB_RUNG_NONE);
	KUNIT_EXPECT_EQ(test, hpb_ladder_next(rung, false, false), HPB_RUNG_NONE);
	/* the allocator knows nothing of large blocks */
	KUNIT_EXPECT_EQ(test, hpb_ladder_first(true, false), HPB_RUNG_MOVE);
	KUNIT_EXPECT_EQ(test, hpb_ladder_next(HPB_RUNG_MOVE, true, false), HPB_RUNG_NONE);
}

/* DRV-27: nothing is moved for a loan. */
static void ladder_loan(struct kunit *test)
{
	enum hpb_rung rung = hpb_ladder_first(false, true);

	KUNIT_EXPECT_EQ(test, rung, HPB_RUNG_FREE);
	rung = hpb_ladder_next(rung, false, true);
	KUNIT_EXPECT_EQ(test, rung, HPB_RUNG_UNUSED);
	rung = hpb_ladder_next(rung, false, true);
	KUNIT_EXPECT_EQ(test, rung, HPB_RUNG_CLEAN);
	KUNIT_EXPECT_EQ(test, hpb_ladder_next(rung, false, true), HPB_RUNG_NONE);
	KUNIT_EXPECT_EQ(test, hpb_ladder_first(true, true), HPB_RUNG_NONE);
}

static void ladder_who_empties(struct kunit *test)
{
	KUNIT_EXPECT_FALSE(test, hpb_ladder_empties(HPB_RUNG_FREE));
	KUNIT_EXPECT_FALSE(test, hpb_ladder_empties(HPB_RUNG_COMPACT));
	KUNIT_EXPECT_TRUE(test, hpb_ladder_empties(HPB_RUNG_UNUSED));
	KUNIT_EXPECT_TRUE(test, hpb_ladder_empties(HPB_RUNG_CLEAN));
	KUNIT_EXPECT_TRUE(test, hpb_ladder_empties(HPB_RUNG_MOVE));
	KUNIT_EXPECT_FALSE(test, hpb_ladder_empties(HPB_RUNG_NONE));
}

/* What is free goes out at once, what costs time in pieces. */
static void ladder_batches(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, hpb_ladder_batch(HPB_RUNG_FREE, false, 256), 256);
	KUNIT_EXPECT_EQ(test, hpb_ladder_batch(HPB_RUNG_COMPACT, false, 256),
			HPB_EMPTY_BATCH);
	KUNIT_EXPECT_EQ(test, hpb_ladder_batch(HPB_RUNG_UNUSED, false, 256),
			HPB_EMPTY_BATCH);
	KUNIT_EXPECT_EQ(test, hpb_ladder_batch(HPB_RUNG_CLEAN, false, 256),
			HPB_EMPTY_BATCH);
	KUNIT_EXPECT_EQ(test, hpb_ladder_batch(HPB_RUNG_MOVE, false, 256),
			HPB_EMPTY_BATCH);
	KUNIT_EXPECT_EQ(test, hpb_ladder_batch(HPB_RUNG_MOVE, false, 3), 3);
	KUNIT_EXPECT_EQ(test, hpb_ladder_batch(HPB_RUNG_MOVE, true, 3), 1);
	KUNIT_EXPECT_EQ(test, hpb_ladder_batch(HPB_RUNG_MOVE, true, 0), 0);
}

static void ladder_costs(struct kunit *test)
{
	const struct hpb_budget all = { .drop = ULONG_MAX, .free = ULONG_MAX };
	static const struct {
		struct hpb_census census;
		unsigned long unused, clean, move;
	} t[] = {
		{ { }, 0, 0, 0 },
		/* clean cache is dropped, which moves nothing */
		{ { .clean = 512 }, HPB_NEVER_EMPTY, 0, 0 },
		{ { .clean = 511, .move = 1 }, HPB_NEVER_EMPTY, HPB_NEVER_EMPTY,
		  1 },
		{ { .move = 512 }, HPB_NEVER_EMPTY, HPB_NEVER_EMPTY, 512 },
		{ { .stuck = true }, HPB_NEVER_EMPTY, HPB_NEVER_EMPTY,
		  HPB_NEVER_EMPTY },
		{ { .clean = 3, .move = 4, .stuck = true }, HPB_NEVER_EMPTY,
		  HPB_NEVER_EMPTY, HPB_NEVER_EMPTY },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(t); i++) {
		KUNIT_EXPECT_EQ(test, t[i].unused,
				hpb_ladder_cost(HPB_RUNG_UNUSED, &t[i].census,
						&all));
		KUNIT_EXPECT_EQ(test, t[i].clean,
				hpb_ladder_cost(HPB_RUNG_CLEAN, &t[i].census,
						&all));
		KUNIT_EXPECT_EQ(test, t[i].move,
				hpb_ladder_cost(HPB_RUNG_MOVE, &t[i].census,
						&all));
	}
}

/* Page cache that is to stay keeps its blocks, whatever else is in them. */
static void ladder_keeps_cache(struct kunit *test)
{
	const struct hpb_budget none = { .free = ULONG_MAX };
	const struct hpb_budget less = { .drop = 99, .free = ULONG_MAX };
	const struct hpb_budget all = { .drop = 100, .free = ULONG_MAX };
	const struct hpb_census cache = { .clean = 100 };
	const struct hpb_census both = { .clean = 100, .move = 7 };
	const struct hpb_census used = { .move = 7 };

	KUNIT_EXPECT_EQ(test, hpb_ladder_cost(HPB_RUNG_CLEAN, &cache, &all), 0);
	KUNIT_EXPECT_EQ(test, hpb_ladder_cost(HPB_RUNG_CLEAN, &cache, &less),
			HPB_NEVER_EMPTY);
	KUNIT_EXPECT_EQ(test, hpb_ladder_cost(HPB_RUNG_MOVE, &both, &all), 7);
	KUNIT_EXPECT_EQ(test, hpb_ladder_cost(HPB_RUNG_MOVE, &both, &less),
			HPB_NEVER_EMPTY);
	KUNIT_EXPECT_EQ(test, hpb_ladder_cost(HPB_RUNG_MOVE, &used, &none), 7);
}

/* So do free pages that the zone must not lose, on every rung. */
static void ladder_keeps_free(struct kunit *test)
{
	const struct hpb_budget none = { .drop = ULONG_MAX };
	const struct hpb_budget less = { .drop = ULONG_MAX, .free = 11 };
	const struct hpb_budget all = { .drop = ULONG_MAX, .free = 12 };
	const struct hpb_census unused = { .free = 12 };
	const struct hpb_census cache = { .clean = 500, .free = 12 };
	const struct hpb_census full = { .clean = 512 };
	const struct hpb_census used = { .move = 500, .free = 12 };

	KUNIT_EXPECT_EQ(test, hpb_ladder_cost(HPB_RUNG_UNUSED, &unused, &all), 0);
	KUNIT_EXPECT_EQ(test, hpb_ladder_cost(HPB_RUNG_UNUSED, &unused, &less),
			HPB_NEVER_EMPTY);
	KUNIT_EXPECT_EQ(test, hpb_ladder_cost(HPB_RUNG_CLEAN, &cache, &all), 0);
	KUNIT_EXPECT_EQ(test, hpb_ladder_cost(HPB_RUNG_CLEAN, &cache, &less),
			HPB_NEVER_EMPTY);
	KUNIT_EXPECT_EQ(test, hpb_ladder_cost(HPB_RUNG_CLEAN, &full, &none), 0);
	KUNIT_EXPECT_EQ(test, hpb_ladder_cost(HPB_RUNG_MOVE, &used, &all), 500);
	KUNIT_EXPECT_EQ(test, hpb_ladder_cost(HPB_RUNG_MOVE, &used, &less),
			HPB_NEVER_EMPTY);
}

static void ladder_room(struct kunit *test)
{
	KUNIT_EXPECT_TRUE(test, hpb_ladder_room(1000, 600, 400));
	KUNIT_EXPECT_FALSE(test, hpb_ladder_room(999, 600, 400));
	KUNIT_EXPECT_FALSE(test, hpb_ladder_room(599, 600, 0));
	KUNIT_EXPECT_TRUE(test, hpb_ladder_room(600, 600, 0));
}

static void ladder_flush(struct kunit *test)
{
	const unsigned long min = HPB_FLUSH_MIN, share = HPB_FLUSH_SHARE;

	KUNIT_EXPECT_FALSE(test, hpb_ladder_flush(0, 0));
	KUNIT_EXPECT_FALSE(test, hpb_ladder_flush(0, min - 1));
	KUNIT_EXPECT_TRUE(test, hpb_ladder_flush(0, min));
	KUNIT_EXPECT_TRUE(test, hpb_ladder_flush(60 * share - 1, 60));
	KUNIT_EXPECT_FALSE(test, hpb_ladder_flush(60 * share, 60));
	KUNIT_EXPECT_TRUE(test, hpb_ladder_flush(60 * share, 61));
	KUNIT_EXPECT_FALSE(test, hpb_ladder_flush(ULONG_MAX, 60));
}

static void choice_stale(struct kunit *test)
{
	KUNIT_EXPECT_FALSE(test, hpb_choice_stale(256, 256));
	KUNIT_EXPECT_FALSE(test, hpb_choice_stale(256, 10));
	KUNIT_EXPECT_FALSE(test, hpb_choice_stale(256, 272));
	KUNIT_EXPECT_TRUE(test, hpb_choice_stale(256, 273));
	KUNIT_EXPECT_TRUE(test, hpb_choice_stale(0, 1));
	KUNIT_EXPECT_TRUE(test, hpb_choice_stale(0, HPB_NEVER_EMPTY));
	KUNIT_EXPECT_TRUE(test, hpb_choice_stale(HPB_NEVER_EMPTY, HPB_NEVER_EMPTY));
}

static void choice_of_nothing(struct kunit *test)
{
	struct hpb_choice *choice = kunit_kzalloc(test, sizeof(*choice), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, choice);
	hpb_choice_begin(choice);
	hpb_choice_add(choice, 0, (struct hpb_candidate) { .block = 1 });
	hpb_choice_end(choice);
	KUNIT_EXPECT_EQ(test, choice->nr, 0);
}

static int cmp_price(const void *a, const void *b)
{
	return hpb_candidate_after(a, b) ? 1 : -1;
}

/* Exactly the cheapest are chosen, and end up in the order of addresses. */
static void choice_random(struct kunit *test)
{
	struct hpb_candidate *all = kunit_kcalloc(test, TEST_BLOCKS, sizeof(*all),
						  GFP_KERNEL);
	struct hpb_choice *choice = kunit_kzalloc(test, sizeof(*choice), GFP_KERNEL);
	struct rnd_state rnd;
	int round, i;

	KUNIT_ASSERT_NOT_NULL(test, all);
	KUNIT_ASSERT_NOT_NULL(test, choice);
	prandom_seed_state(&rnd, TEST_SEED);
	for (round = 0; round < TEST_ROUNDS; round++) {
		unsigned int n = prandom_u32_state(&rnd) % TEST_BLOCKS + 1;
		unsigned int max = prandom_u32_state(&rnd) % (2 * HPB_CHOICE_MAX) + 1;
		unsigned int nr = min3(n, max, (unsigned int)HPB_CHOICE_MAX);
		unsigned long want = 0, got = 0;

		hpb_choice_begin(choice);
		for (i = 0; i < n; i++) {
			all[i].block = i;
			all[i].cost = prandom_u32_state(&rnd) % 100;
			hpb_choice_add(choice, max, all[i]);
		}
		hpb_choice_end(choice);
		sort(all, n, sizeof(*all), cmp_price, NULL);

		KUNIT_ASSERT_EQ(test, choice->nr, nr);
		KUNIT_EXPECT_EQ(test, choice->last.block, all[nr - 1].block);
		for (i = 0; i < nr; i++) {
			want += all[i].cost;
			got += choice->c[i].cost;
			if (i)
				KUNIT_EXPECT_GT(test, choice->c[i].block,
						choice->c[i - 1].block);
			KUNIT_EXPECT_FALSE(test, hpb_candidate_after(&choice->c[i],
								     &all[nr - 1]));
		}
		KUNIT_EXPECT_EQ(test, got, want);
	}
}

static struct kunit_case ladder_cases[] = {
	KUNIT_CASE(ladder_order),
	KUNIT_CASE(ladder_loan),
	KUNIT_CASE(ladder_who_empties),
	KUNIT_CASE(ladder_batches),
	KUNIT_CASE(ladder_costs),
	KUNIT_CASE(ladder_keeps_cache),
	KUNIT_CASE(ladder_keeps_free),
	KUNIT_CASE(ladder_room),
	KUNIT_CASE(ladder_flush),
	KUNIT_CASE(choice_stale),
	KUNIT_CASE(choice_of_nothing),
	KUNIT_CASE(choice_random),
	{}
};

static struct kunit_suite ladder_suite = {
	.name = "virtio_balloon_hp_ladder",
	.test_cases = ladder_cases,
};
kunit_test_suite(ladder_suite);
MODULE_LICENSE("GPL");
