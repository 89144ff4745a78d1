// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit suite virtio_balloon_hp_need: what the guest keeps, what it tells the
 * host, and what wakes a balloon that has stopped (need.c, tell.c, wake.c).
 *
 * Proves DRV-25, DRV-26 and the driver's side of DRV-22 short of an OOM. Memory
 * is taken from the guest by the test itself, so that reasons are real ones.
 */
#include <linux/list.h>
#include <linux/mm.h>

#include "hp_test.h"

#define HP_STATE	BIT_ULL(VIRTIO_BALLOON_HP_F_STATE)
#define HP_RECLAIM	BIT_ULL(VIRTIO_BALLOON_HP_F_RECLAIM)
#define HP_OOM		BIT_ULL(VIRTIO_BALLOON_HP_F_DEFLATE_ON_OOM)

/* Arithmetic */

static void need_floors(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, hpb_need_floor(HP_MIB(100 * 100), 32, 3), HP_MIB(300));
	KUNIT_EXPECT_EQ(test, hpb_need_floor(HP_MIB(1000), 32, 3), HP_MIB(32));
	KUNIT_EXPECT_EQ(test, hpb_need_floor(HP_MIB(1000), 0, 0), 0);
	KUNIT_EXPECT_EQ(test, hpb_need_floor(HP_MIB(1000), 5000, 3), HP_MIB(5000));
	KUNIT_EXPECT_EQ(test, hpb_need_floor(HP_MIB(1000), 0, 1000), HP_MIB(1000));
	KUNIT_EXPECT_EQ(test, hpb_need_floor(U64_MAX, 0, 100),
			U64_MAX / 100 * 100);

	KUNIT_EXPECT_EQ(test, hpb_need_spare(100, 100), 0);
	KUNIT_EXPECT_EQ(test, hpb_need_spare(99, 100), 0);
	KUNIT_EXPECT_EQ(test, hpb_need_spare(101, 100), 1);
}

/* Neither taking to the floor nor giving back calls for the opposite. */
static void need_hysteresis(struct kunit *test)
{
	u64 floor = HP_MIB(128), available, relief;

	for (available = 0; available < 3 * floor; available += HP_MIB(1)) {
		relief = hpb_need_relief(available, floor);
		if (available >= floor / 2)
			KUNIT_EXPECT_EQ(test, relief, 0);
		else
			KUNIT_EXPECT_EQ(test, available + relief, floor);
		KUNIT_EXPECT_EQ(test, hpb_need_spare(available + relief, floor),
				hpb_need_spare(available, floor));
		KUNIT_EXPECT_EQ(test, 0, hpb_need_relief(
				available - hpb_need_spare(available, floor) + relief,
				floor));
	}
}

static void need_page_cache(struct kunit *test)
{
	const u32 free = VIRTIO_BALLOON_HP_RECLAIM_FREE;
	const u32 clean = VIRTIO_BALLOON_HP_RECLAIM_CLEAN;
	const u32 lend_free = VIRTIO_BALLOON_HP_RECLAIM_LEND_FREE;
	const u32 lend_clean = VIRTIO_BALLOON_HP_RECLAIM_LEND_CLEAN;

	KUNIT_EXPECT_EQ(test, hpb_need_droppable(HP_MIB(100), free, 0), 0);
	KUNIT_EXPECT_EQ(test, hpb_need_droppable(HP_MIB(100), clean, 0), HP_MIB(100));
	KUNIT_EXPECT_EQ(test, hpb_need_droppable(HP_MIB(100), clean, HP_MIB(99)),
			HP_MIB(1));
	KUNIT_EXPECT_EQ(test, hpb_need_droppable(HP_MIB(100), clean, HP_MIB(100)), 0);
	KUNIT_EXPECT_EQ(test, hpb_need_droppable(HP_MIB(100), clean, U64_MAX), 0);
	KUNIT_EXPECT_EQ(test, hpb_need_droppable(HP_MIB(100), lend_free, 0), 0);
	KUNIT_EXPECT_EQ(test, hpb_need_droppable(HP_MIB(100), lend_clean, HP_MIB(30)),
			HP_MIB(70));
	KUNIT_EXPECT_FALSE(test, hpb_need_is_loan(free));
	KUNIT_EXPECT_FALSE(test, hpb_need_is_loan(clean));
	KUNIT_EXPECT_TRUE(test, hpb_need_is_loan(lend_free));
	KUNIT_EXPECT_TRUE(test, hpb_need_is_loan(lend_clean));
	KUNIT_EXPECT_FALSE(test, hpb_need_is_loan(7));
	/* DRV-25: a policy of the future is the careful one */
	KUNIT_EXPECT_EQ(test, hpb_need_droppable(HP_MIB(100), 7, 0), 0);
}

/* DRV-27: a loan's floor begins at the lowest watermark, and it wakes no reclaim */
static void need_watermarks(struct kunit *test)
{
	const struct hpb_reserve r = {
		.free = HP_MIB(300), .min = HP_MIB(64), .high = HP_MIB(96),
	};
	const struct hpb_reserve low = {
		.free = HP_MIB(70), .min = HP_MIB(64), .high = HP_MIB(96),
	};
	const struct hpb_reserve none = {
		.free = HP_MIB(60), .min = HP_MIB(64), .high = HP_MIB(96),
	};
	const u64 floor = HP_MIB(32);

	KUNIT_EXPECT_EQ(test, hpb_need_available(HP_MIB(204), &r, false), HP_MIB(204));
	KUNIT_EXPECT_EQ(test, hpb_need_available(HP_MIB(204), &r, true), HP_MIB(236));
	KUNIT_EXPECT_EQ(test, hpb_need_available(0, &low, true), HP_MIB(6));
	KUNIT_EXPECT_EQ(test, hpb_need_available(0, &low, false), 0);
	KUNIT_EXPECT_EQ(test, hpb_need_available(0, &none, true), 0);
	/* a guest at its floor is not short of memory; one that reclaims is */
	KUNIT_EXPECT_EQ(test, hpb_need_relief(HP_MIB(32), floor), 0);
	KUNIT_EXPECT_EQ(test, hpb_need_relief(HP_MIB(6), floor), HP_MIB(26));

	KUNIT_EXPECT_EQ(test, hpb_need_spendable(HP_MIB(204), 0, &r, false, floor),
			HP_MIB(172));
	KUNIT_EXPECT_EQ(test, hpb_need_spendable(HP_MIB(236), 0, &r, true, floor),
			HP_MIB(204));
	/* a floor smaller than the watermarks leaves them alone */
	KUNIT_EXPECT_EQ(test, hpb_need_spendable(HP_MIB(236), 0, &r, true, HP_MIB(4)),
			HP_MIB(204));
	/* page cache counts as far as it may be dropped */
	KUNIT_EXPECT_EQ(test, hpb_need_spendable(HP_MIB(736), 0, &r, true, floor),
			HP_MIB(204));
	KUNIT_EXPECT_EQ(test, hpb_need_spendable(HP_MIB(736), HP_MIB(100), &r, true, floor),
			HP_MIB(304));
	KUNIT_EXPECT_EQ(test, hpb_need_spendable(HP_MIB(6), 0, &low, true, floor), 0);
	KUNIT_EXPECT_EQ(test, hpb_need_spendable(0, HP_MIB(100), &low, false, floor), 0);
}

static void need_news(struct kunit *test)
{
	static const struct {
		struct hpb_told old, now;
		bool news;
	} t[] = {
		{ { 0, 0, 0 }, { 0, 0, 0 }, false },
		/* a size that is reached is not worth a word */
		{ { 0, 1, 0 }, { 0, 2, 0 }, false },
		{ { 0, 0, 0 }, { 2, 0, 0 }, true },
		{ { 2, 1, 0 }, { 2, 1, 0 }, false },
		{ { 2, 1, 0 }, { 2, 2, 0 }, true },
		{ { 2, 1, 0 }, { 0, 1, 0 }, true },
		{ { 0, 0, 0 }, { 0, 0, 1 }, true },
		{ { 0, 0, 9 }, { 0, 0, 0 }, true },
		{ { 0, 0, 100 }, { 0, 0, 150 }, false },
		{ { 0, 0, 100 }, { 0, 0, 60 }, false },
		{ { 0, 0, 100 }, { 0, 0, 200 }, true },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(t); i++)
		KUNIT_EXPECT_EQ_MSG(test, hpb_is_news(&t[i].old, &t[i].now),
				    t[i].news, "case %u", i);
}

/* Taking memory away from the guest */

static void need_take(struct list_head *taken, unsigned int order, u64 leave)
{
	struct page *page;

	while (si_mem_available() > (long)HP_PAGES(leave)) {
		page = alloc_pages(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN,
				   order);
		if (!page)
			break;
		list_add(&page->lru, taken);
	}
}

static unsigned int need_shortages(struct hp_dev *dev)
{
	return atomic64_read(&hp_driver(dev)->counts[HPB_C_SHORTAGES]);
}

/* Take so much that the kernel reclaims, and the driver notices. */
static void need_press(struct hp_dev *dev, struct list_head *taken)
{
	struct page *page;

	need_take(taken, 0, HP_MIB(1));
	while (!need_shortages(dev)) {
		page = alloc_pages(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN, 0);
		if (!page)
			break;
		list_add(&page->lru, taken);
	}
	KUNIT_EXPECT_GE(dev->test, need_shortages(dev), 1);
}

static void need_free(struct list_head *taken, unsigned int order)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, taken, lru) {
		list_del(&page->lru);
		__free_pages(page, order);
	}
}

static u16 need_stop(struct hp_dev *dev)
{
	return le16_to_cpu(READ_ONCE(dev->state.stop));
}

static unsigned int need_states(struct hp_dev *dev)
{
	return READ_ONCE(dev->seen.requests[VIRTIO_BALLOON_HP_REQ_STATE]);
}

/* Telling the host */

/* A resize that works says nothing, whatever was negotiated. */
static void need_silent_success(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = HP_STATE | HP_RECLAIM,
		.requested = HP_MIB(256),
	});

	hp_expect_out(dev, HP_MIB(256));
	hp_dev_request(dev, HP_MIB(64));
	hp_expect_out(dev, HP_MIB(64));
	KUNIT_EXPECT_EQ(test, need_states(dev), 0);
}

/* Too much is asked for: the reason, the target, what is left; then no more. */
static void need_tells_why(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = HP_STATE,
	});
	unsigned int states;

	hp_dev_request(dev, HP_MIB(1 << 20));
	HP_WAIT(dev, need_states(dev));
	msleep(60 * 1000);
	KUNIT_EXPECT_TRUE(test, need_stop(dev) == VIRTIO_BALLOON_HP_STOP_FLOOR ||
			  need_stop(dev) == VIRTIO_BALLOON_HP_STOP_FRAGMENTED);
	KUNIT_EXPECT_EQ(test, le64_to_cpu(dev->state.requested), HP_MIB(1 << 20));
	KUNIT_EXPECT_GE(test, le64_to_cpu(dev->state.available), HP_MIB(24));
	KUNIT_EXPECT_LE(test, le64_to_cpu(dev->state.available), HP_MIB(200));
	/* DRV-26: attempts go on, words do not */
	states = need_states(dev);
	KUNIT_EXPECT_LE(test, states, 3);
	msleep(120 * 1000);
	KUNIT_EXPECT_LE(test, need_states(dev), states + 1);

	hp_dev_request(dev, HP_MIB(64));
	hp_expect_out(dev, HP_MIB(64));
	HP_WAIT(dev, need_stop(dev) == VIRTIO_BALLOON_HP_STOP_NONE);
}

static u16 need_refusal;

static void need_refuse(struct hp_dev *dev, struct hp_request *req)
{
	if (req->type == VIRTIO_BALLOON_HP_REQ_INFLATE ||
	    req->type == VIRTIO_BALLOON_HP_REQ_DEFLATE)
		req->status = need_refusal;
}

static const struct {
	u16 status, stop;
	bool grow;
} need_reasons[] = {
	{ VIRTIO_BALLOON_HP_DENIED, VIRTIO_BALLOON_HP_STOP_REFUSED },
	{ VIRTIO_BALLOON_HP_INVAL, VIRTIO_BALLOON_HP_STOP_REFUSED },
	{ VIRTIO_BALLOON_HP_BUSY, VIRTIO_BALLOON_HP_STOP_HOST },
	{ VIRTIO_BALLOON_HP_IO, VIRTIO_BALLOON_HP_STOP_HOST },
	{ VIRTIO_BALLOON_HP_NOMEM, VIRTIO_BALLOON_HP_STOP_NOMEM, true },
};

/* What the host does not let it do is said back, by reason. */
static void need_tells_refusals(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = HP_STATE,
		.requested = HP_MIB(64),
	});
	unsigned int i;

	hp_expect_out(dev, HP_MIB(64));
	for (i = 0; i < ARRAY_SIZE(need_reasons); i++) {
		need_refusal = need_reasons[i].status;
		hp_set_decide(dev, need_refuse);
		hp_dev_request(dev, need_reasons[i].grow ? 0 : HP_MIB(128 + i));
		HP_WAIT(dev, need_stop(dev) == need_reasons[i].stop);
		hp_set_decide(dev, NULL);
		hp_dev_request(dev, HP_MIB(64));
		hp_expect_out(dev, HP_MIB(64));
		HP_WAIT(dev, need_stop(dev) == VIRTIO_BALLOON_HP_STOP_NONE);
	}
}

static void need_hold_state(struct hp_dev *dev, struct hp_request *req)
{
	if (req->type == VIRTIO_BALLOON_HP_REQ_STATE)
		req->hold = true;
	else
		need_refuse(dev, req);
}

/* DRV-26: a device that is slow to answer gets one message, then the newest. */
static void need_one_at_a_time(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = HP_STATE,
		.decide = need_hold_state,
	});

	need_refusal = VIRTIO_BALLOON_HP_DENIED;
	hp_dev_request(dev, HP_MIB(64));
	HP_WAIT(dev, need_states(dev) == 1);
	need_refusal = VIRTIO_BALLOON_HP_BUSY;
	hp_dev_request(dev, HP_MIB(128));
	msleep(1000);
	hp_dev_request(dev, HP_MIB(192));
	msleep(1000);
	KUNIT_EXPECT_EQ(test, need_states(dev), 1);
	hp_dev_release(dev, 1, false);
	HP_WAIT(dev, need_states(dev) == 2);
	KUNIT_EXPECT_EQ(test, need_stop(dev), VIRTIO_BALLOON_HP_STOP_HOST);
	KUNIT_EXPECT_EQ(test, le64_to_cpu(dev->state.requested), HP_MIB(192));
	hp_set_decide(dev, NULL);
	hp_dev_release(dev, 1, false);
	hp_expect_out(dev, HP_MIB(192));
}

/* A device that lets the message lie is unplugged with it. */
static void need_unanswered(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = HP_STATE,
		.decide = need_hold_state,
	});

	need_refusal = VIRTIO_BALLOON_HP_DENIED;
	hp_dev_request(dev, HP_MIB(64));
	HP_WAIT(dev, need_states(dev) == 1);
	hp_dev_unplug(dev);
}

/* What may be taken */

static void need_reads_reclaim(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = HP_RECLAIM,
	});
	struct hpb *bh = hp_driver(dev);

	msleep(100);
	KUNIT_EXPECT_EQ(test, bh->reclaim, VIRTIO_BALLOON_HP_RECLAIM_FREE);
	hp_dev_reclaim(dev, VIRTIO_BALLOON_HP_RECLAIM_CLEAN, HP_MIB(100));
	msleep(100);
	KUNIT_EXPECT_EQ(test, bh->reclaim, VIRTIO_BALLOON_HP_RECLAIM_CLEAN);
	KUNIT_EXPECT_EQ(test, bh->cache_floor, HP_MIB(100));
}

static void need_reclaim_without_feature(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {});

	hp_dev_reclaim(dev, VIRTIO_BALLOON_HP_RECLAIM_FREE, HP_MIB(100));
	msleep(100);
	KUNIT_EXPECT_EQ(test, hp_driver(dev)->reclaim,
			VIRTIO_BALLOON_HP_RECLAIM_CLEAN);
	KUNIT_EXPECT_EQ(test, hp_driver(dev)->cache_floor, 0);
}

/* Being woken */

/* Nothing is free and nothing changes: attempts become rare. */
static void need_stuck_is_quiet(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {});
	LIST_HEAD(taken);
	unsigned int runs;

	need_take(&taken, 9, HP_MIB(100));
	hp_dev_request(dev, HP_MIB(1000));
	msleep(60 * 1000);
	runs = hp_worker_runs();
	msleep(120 * 1000);
	KUNIT_EXPECT_LE_MSG(test, hp_worker_runs() - runs, 3, "runs in two minutes");
	need_free(&taken, 9);
	hp_expect_out(dev, HP_MIB(1000));
}

/* Memory comes after a long time: it is taken at once, not by the slow timer. */
static void need_woken_by_memory(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {});
	LIST_HEAD(taken);

	need_take(&taken, 9, HP_MIB(100));
	hp_dev_request(dev, HP_MIB(1000));
	msleep(120 * 1000);
	KUNIT_EXPECT_LT(test, hp_dev_actual(dev), HP_MIB(200));
	need_free(&taken, 9);
	/* page reporting waits for two seconds; the back-off was over */
	msleep(5000);
	KUNIT_EXPECT_EQ(test, hp_dev_actual(dev), HP_MIB(1000));
	KUNIT_EXPECT_GE(test, atomic64_read(&hp_driver(dev)->counts[HPB_C_WAKES]), 1);
	KUNIT_EXPECT_FALSE_MSG(test, hp_driver(dev)->wake_on, "still listening");
	hp_expect_out(dev, HP_MIB(1000));
}

/* Being short of memory */

/* Long before an OOM the guest has memory back, and keeps it for a while. */
static void need_relief_comes(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = HP_OOM | HP_STATE,
		.requested = HP_MIB(1000),
	});
	struct hpb *bh = hp_driver(dev);
	LIST_HEAD(taken);
	u64 out;

	hp_expect_out(dev, HP_MIB(1000));
	need_press(dev, &taken);
	msleep(2000);
	out = hp_dev_actual(dev);
	KUNIT_EXPECT_LT(test, out, HP_MIB(1000));
	KUNIT_EXPECT_GT(test, out, HP_MIB(500));
	KUNIT_EXPECT_EQ(test, atomic64_read(&bh->counts[HPB_C_OOM]), 0);
	KUNIT_EXPECT_EQ(test, need_stop(dev), VIRTIO_BALLOON_HP_STOP_PRESSURE);
	/* it does not take with one hand what it gave with the other */
	msleep(20000);
	KUNIT_EXPECT_LE(test, hp_dev_actual(dev), out);
	need_free(&taken, 0);
	hp_expect_out(dev, HP_MIB(1000));
}

/* DRV-27: what is lent goes back on a shortage, without DEFLATE_ON_OOM. */
static void need_loan_goes_back(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = HP_STATE | HP_RECLAIM,
	});
	struct hpb *bh = hp_driver(dev);
	LIST_HEAD(taken);

	hp_dev_reclaim(dev, VIRTIO_BALLOON_HP_RECLAIM_LEND_FREE, 0);
	hp_dev_request(dev, HP_MIB(1000));
	hp_expect_out(dev, HP_MIB(1000));
	need_press(dev, &taken);
	msleep(2000);
	KUNIT_EXPECT_LT(test, hp_dev_actual(dev), HP_MIB(1000));
	KUNIT_EXPECT_EQ(test, atomic64_read(&bh->counts[HPB_C_OOM]), 0);
	/* the loan is over: what is left goes back too, and stays */
	hp_dev_reclaim(dev, VIRTIO_BALLOON_HP_RECLAIM_FREE, 0);
	hp_dev_request(dev, 0);
	hp_expect_out(dev, 0);
	need_free(&taken, 0);
	hp_expect_out(dev, 0);
}

/* Without the feature the guest keeps its balloon, and says what it lacks. */
static void need_shortage_is_told(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = HP_STATE,
		.requested = HP_MIB(1000),
	});
	LIST_HEAD(taken);

	hp_expect_out(dev, HP_MIB(1000));
	need_press(dev, &taken);
	HP_WAIT(dev, READ_ONCE(dev->state.wanted));
	KUNIT_EXPECT_GE(test, le64_to_cpu(dev->state.wanted), HP_MIB(16));
	KUNIT_EXPECT_EQ(test, hp_dev_actual(dev), HP_MIB(1000));
	need_free(&taken, 0);
	HP_WAIT(dev, !READ_ONCE(dev->state.wanted));
	hp_expect_out(dev, HP_MIB(1000));
}

static struct kunit_case need_cases[] = {
	KUNIT_CASE(need_floors),
	KUNIT_CASE(need_hysteresis),
	KUNIT_CASE(need_page_cache),
	KUNIT_CASE(need_watermarks),
	KUNIT_CASE(need_news),
	KUNIT_CASE(need_silent_success),
	KUNIT_CASE_SLOW(need_tells_why),
	KUNIT_CASE(need_tells_refusals),
	KUNIT_CASE(need_one_at_a_time),
	KUNIT_CASE(need_unanswered),
	KUNIT_CASE(need_reads_reclaim),
	KUNIT_CASE(need_reclaim_without_feature),
	KUNIT_CASE_SLOW(need_stuck_is_quiet),
	KUNIT_CASE_SLOW(need_woken_by_memory),
	KUNIT_CASE_SLOW(need_relief_comes),
	KUNIT_CASE_SLOW(need_loan_goes_back),
	KUNIT_CASE_SLOW(need_shortage_is_told),
	{}
};

HP_SUITE(virtio_balloon_hp_need, need_cases);
