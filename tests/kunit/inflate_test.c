// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit suite virtio_balloon_hp_inflate: giving memory up, and refusals of it.
 *
 * Proves DRV-7, DRV-10, DRV-11 and DRV-17, and that stopping short of the
 * target is honest: bounded work, and a reason.
 */
#include <linux/list.h>
#include <linux/mm.h>

#include "hp_test.h"

static unsigned int inflates(struct hp_dev *dev)
{
	return dev->seen.requests[VIRTIO_BALLOON_HP_REQ_INFLATE];
}

static void inflate_to_target(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {});

	hp_dev_request(dev, HP_MIB(1024));
	hp_expect_out(dev, HP_MIB(1024));
	KUNIT_EXPECT_EQ(test, dev->seen.above, 0);
	KUNIT_EXPECT_EQ(test, dev->seen.small, 0);
	KUNIT_EXPECT_EQ(test, dev->seen.requests[VIRTIO_BALLOON_HP_REQ_DEFLATE], 0);
	/* the main job asks for at most 16 requests each way for 3 GiB */
	KUNIT_EXPECT_LE(test, inflates(dev), 5);
}

/* DRV-10: sorted, merged, and few descriptors on a machine with free memory */
static void inflate_merges(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {});

	hp_dev_request(dev, HP_MIB(512));
	hp_expect_out(dev, HP_MIB(512));
	KUNIT_EXPECT_EQ(test, dev->seen.unmerged, 0);
	KUNIT_EXPECT_EQ(test, dev->seen.unsorted, 0);
	KUNIT_EXPECT_LE(test, dev->seen.ranges[VIRTIO_BALLOON_HP_REQ_INFLATE], 64);
}

/* Each request has twice as much as the one before, from little to a batch. */
static void inflate_expect_growth(struct hp_dev *dev, struct hp_request *req)
{
	const u64 first = (u64)HPB_INFLATE_FIRST * SZ_2M;
	const u64 batch = (u64)HPB_INFLATE_BATCH * SZ_2M;
	u64 due = min(first << req->nr, batch);

	if (req->type == VIRTIO_BALLOON_HP_REQ_INFLATE)
		KUNIT_EXPECT_EQ(dev->test, req->size, due);
}

static void inflate_begins_small(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.decide = inflate_expect_growth,
	});

	hp_dev_request(dev, HP_MIB(64 + 128 + 256 + 512));
	hp_expect_out(dev, HP_MIB(64 + 128 + 256 + 512));
	KUNIT_EXPECT_EQ(test, inflates(dev), 4);
}

/* Pages in requests: all that are, and those that are not PageOffline. */
static unsigned long inflate_claimed(struct hp_dev *dev, unsigned long *online)
{
	struct hp_memory *m = &dev->mem;
	unsigned long units = 0;
	u64 addr;

	*online = 0;
	mutex_lock(&dev->lock);
	for (addr = hp_memory_next(m, 0, true); addr < m->end;
	     addr = hp_memory_next(m, addr + m->unit, true)) {
		*online += hp_count_online(addr, m->unit);
		units++;
	}
	mutex_unlock(&dev->lock);
	return units * (m->unit >> PAGE_SHIFT);
}

static void inflate_expect_claimed_hidden(struct hp_dev *dev)
{
	unsigned long online, pages = inflate_claimed(dev, &online);

	KUNIT_EXPECT_GT(dev->test, pages, 0);
	KUNIT_EXPECT_EQ_MSG(dev->test, online, 0, "pages in requests and not PageOffline");
}

/* The mark waits for answers, but not for long. */
static void inflate_marks_late(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.decide = hp_hold_all,
	});
	unsigned long online, pages;

	hp_dev_request(dev, HP_MIB(256));
	HP_WAIT(dev, dev->seen.requests[VIRTIO_BALLOON_HP_REQ_INFLATE]);
	pages = inflate_claimed(dev, &online);
	KUNIT_EXPECT_GT(test, pages, 0);
	KUNIT_EXPECT_EQ(test, online, pages);
	msleep(2 * HPB_MARK_DELAY + 20);
	KUNIT_EXPECT_EQ(test, inflate_claimed(dev, &online), HP_PAGES(HP_MIB(256)));
	KUNIT_EXPECT_EQ(test, online, 0);
	hp_set_decide(dev, NULL);
	hp_dev_release(dev, HP_REQUESTS, false);
	hp_expect_out(dev, HP_MIB(256));
}

/* DRV-7, DRV-18: several at a time, none beyond the target */
static void inflate_several_in_flight(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.decide = hp_hold_all,
	});

	hp_dev_request(dev, HP_MIB(1200));
	msleep(1000);
	KUNIT_EXPECT_GE(test, dev->seen.in_flight_max, 2);
	KUNIT_EXPECT_LE(test, dev->seen.in_flight_max, 8);
	KUNIT_EXPECT_EQ(test, hp_dev_actual(dev), 0);
	/* what waits for an answer is hidden as well */
	inflate_expect_claimed_hidden(dev);
	hp_set_decide(dev, NULL);
	/* newest first: no order is promised */
	hp_dev_release(dev, HP_REQUESTS, true);
	hp_expect_out(dev, HP_MIB(1200));
	KUNIT_EXPECT_EQ(test, dev->seen.above, 0);
}

/* Delayed answers, one by one, in any order, do not confuse the books. */
static void inflate_answers_in_any_order(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.decide = hp_hold_all,
	});
	int i;

	hp_dev_request(dev, HP_MIB(1600));
	for (i = 0; i < 200 && hp_dev_actual(dev) != HP_MIB(1600); i++) {
		msleep(20);
		hp_dev_release(dev, 1, i % 3);
	}
	hp_expect_out(dev, HP_MIB(1600));
}

static void inflate_follows_every_target(struct kunit *test)
{
	static const unsigned int mib[] = {
		2, 64, 62, 300, 298, 0, 700, 2, 4, 700, 0,
	};
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {});
	int i;

	for (i = 0; i < ARRAY_SIZE(mib); i++) {
		hp_dev_request(dev, HP_MIB(mib[i]));
		hp_expect_out(dev, HP_MIB(mib[i]));
	}
	KUNIT_EXPECT_EQ(test, dev->seen.above, 0);
}

/* DRV-7: the target changes while requests are with the device */
static void inflate_target_changes_in_flight(struct kunit *test)
{
	static const unsigned int mib[] = { 900, 100, 0, 500, 1300, 2, 640 };
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.decide = hp_hold_all,
	});
	int i, round;

	for (round = 0; round < 5; round++)
		for (i = 0; i < ARRAY_SIZE(mib); i++) {
			hp_dev_request(dev, HP_MIB(mib[i]));
			/* some answers come, and some do not, before the next */
			msleep(round);
			hp_dev_release(dev, i % 3, i & 1);
		}
	hp_set_decide(dev, NULL);
	hp_dev_release(dev, HP_REQUESTS, false);
	hp_expect_out(dev, HP_MIB(640));
}

/* A smaller target stops what is under way instead of finishing it first. */
static void inflate_stops_when_target_falls(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.decide = hp_hold_all,
	});
	u64 sent;

	hp_dev_request(dev, HP_MIB(1800));
	msleep(100);
	sent = dev->nr_busy;
	hp_dev_request(dev, HP_MIB(64));
	hp_set_decide(dev, NULL);
	hp_dev_release(dev, HP_REQUESTS, false);
	hp_expect_out(dev, HP_MIB(64));
	KUNIT_EXPECT_LE_MSG(test, inflates(dev), sent + 1,
			    "inflates after the target fell");
}

/* DRV-7: never more than requested, which need not be a multiple of a block */
static void inflate_rounds_down(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) { .unit = SZ_4K });
	unsigned int runs;

	hp_dev_request(dev, HP_MIB(7) + SZ_4K);
	hp_expect_out(dev, HP_MIB(6));
	hp_dev_request(dev, SZ_2M - SZ_4K);
	hp_expect_out(dev, 0);
	KUNIT_EXPECT_EQ(test, dev->seen.above, 0);
	runs = hp_worker_runs();
	msleep(100 * 1000);
	KUNIT_EXPECT_EQ_MSG(test, hp_worker_runs(), runs, "a remainder keeps it busy");
}

static unsigned int inflate_last_stop(struct hp_dev *dev)
{
	return READ_ONCE(hp_driver(dev)->stop);
}

/* More than there is: an honest end, with something left, and no spin. */
static void inflate_stops_at_the_floor(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {});
	unsigned int runs, requests;
	u64 out;

	hp_dev_request(dev, HP_MIB(1 << 20));
	msleep(60 * 1000);
	out = hp_dev_actual(dev);
	KUNIT_EXPECT_GE(test, out, HP_MIB(1500));
	KUNIT_EXPECT_GE_MSG(test, si_mem_available(), HP_PAGES(HP_MIB(24)),
			    "pages left for the guest");
	KUNIT_EXPECT_TRUE(test, inflate_last_stop(dev) == HPB_STOP_FLOOR ||
				inflate_last_stop(dev) == HPB_STOP_NO_BLOCKS);
	/* by now the delays have grown */
	runs = hp_worker_runs();
	requests = inflates(dev);
	msleep(120 * 1000);
	KUNIT_EXPECT_LE_MSG(test, hp_worker_runs() - runs, 12, "worker runs in 120 s");
	KUNIT_EXPECT_LE_MSG(test, inflates(dev) - requests, 12, "inflates in 120 s");
	hp_dev_request(dev, HP_MIB(64));
	hp_expect_out(dev, HP_MIB(64));
	KUNIT_EXPECT_EQ(test, inflate_last_stop(dev), HPB_STOP_NONE);
}

/* Memory that becomes free later is taken without anyone asking again. */
static void inflate_goes_on_when_memory_comes(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {});
	unsigned long pages = 0;
	struct page *page, *next;
	LIST_HEAD(taken);

	while (si_mem_available() > HP_PAGES(HP_MIB(600))) {
		page = alloc_pages(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN, 9);
		if (!page)
			break;
		list_add(&page->lru, &taken);
		pages += 512;
	}
	hp_dev_request(dev, HP_MIB(1000));
	msleep(5000);
	KUNIT_EXPECT_LT(test, hp_dev_actual(dev), HP_MIB(1000));
	KUNIT_EXPECT_GT(test, hp_dev_actual(dev), HP_MIB(200));
	list_for_each_entry_safe(page, next, &taken, lru) {
		list_del(&page->lru);
		__free_pages(page, 9);
	}
	hp_expect_out(dev, HP_MIB(1000));
}

/* Refusals */

static u16 inflate_refusal;
static unsigned int inflate_patience;

static void inflate_refuse_whole(struct hp_dev *dev, struct hp_request *req)
{
	if (req->type == VIRTIO_BALLOON_HP_REQ_INFLATE)
		req->status = inflate_refusal;
}

static void inflate_refuse_odd(struct hp_dev *dev, struct hp_request *req)
{
	u32 i;

	if (req->type != VIRTIO_BALLOON_HP_REQ_INFLATE)
		return;
	for (i = 1; i < req->units && req->nr_exc < HP_EXCEPTIONS; i += 2)
		hp_refuse(req, i, 1, inflate_refusal);
}

static void inflate_refuse_at_first(struct hp_dev *dev, struct hp_request *req)
{
	if (inflate_patience && req->type == VIRTIO_BALLOON_HP_REQ_INFLATE) {
		inflate_patience--;
		req->status = inflate_refusal;
	}
}

static const u16 inflate_statuses[] = {
	VIRTIO_BALLOON_HP_INVAL, VIRTIO_BALLOON_HP_NOT_RAM,
	VIRTIO_BALLOON_HP_OVERLAP, VIRTIO_BALLOON_HP_NOMEM,
	VIRTIO_BALLOON_HP_DENIED, VIRTIO_BALLOON_HP_BUSY, VIRTIO_BALLOON_HP_IO,
	VIRTIO_BALLOON_HP_AGAIN, VIRTIO_BALLOON_HP_UNSUPP, 13, 0x7fff,
};

static void inflate_status_desc(const u16 *status, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "status %u", *status);
}

KUNIT_ARRAY_PARAM(inflate_status, inflate_statuses, inflate_status_desc);

/* DRV-17: all is refused, for ever: the guest keeps its memory, in peace */
static void inflate_refused(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.decide = inflate_refuse_whole,
	});
	unsigned int runs, requests;

	inflate_refusal = *(const u16 *)test->param_value;
	hp_dev_request(dev, HP_MIB(256));
	HP_WAIT(dev, inflates(dev));
	msleep(30 * 1000);
	hp_expect_out(dev, 0);
	KUNIT_EXPECT_NE(test, inflate_last_stop(dev), HPB_STOP_NONE);
	runs = hp_worker_runs();
	requests = inflates(dev);
	KUNIT_EXPECT_LE_MSG(test, requests, 40, "inflates in 30 s");
	msleep(120 * 1000);
	KUNIT_EXPECT_LE_MSG(test, hp_worker_runs() - runs, 12, "worker runs in 120 s");
	KUNIT_EXPECT_LE_MSG(test, inflates(dev) - requests, 12, "inflates in 120 s");
	hp_set_decide(dev, NULL);
	/* a new target is a reason to try at once */
	hp_dev_request(dev, HP_MIB(128));
	HP_WAIT(dev, hp_dev_actual(dev) == HP_MIB(128));
	hp_expect_out(dev, HP_MIB(128));
	KUNIT_EXPECT_EQ(test, inflate_last_stop(dev), HPB_STOP_NONE);
}

/* Much memory of somebody else before ours: one target is enough. */
static void inflate_among_others(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.decide = inflate_refuse_at_first,
	});
	unsigned int refused;

	inflate_refusal = VIRTIO_BALLOON_HP_NOT_RAM;
	inflate_patience = 5;
	hp_dev_request(dev, HP_MIB(256));
	hp_expect_out(dev, HP_MIB(256));
	refused = atomic64_read(&hp_driver(dev)->counts[HPB_C_INFLATE_REFUSED]);
	KUNIT_EXPECT_GT(test, refused, HPB_REFUSED_MAX);
	KUNIT_EXPECT_EQ(test, inflate_last_stop(dev), HPB_STOP_NONE);
}

/* DRV-17: every second unit is refused; only the others are out */
static void inflate_refused_in_part(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.decide = inflate_refuse_odd,
	});
	u64 out;

	inflate_refusal = *(const u16 *)test->param_value;
	hp_dev_request(dev, HP_MIB(128));
	msleep(20 * 1000);
	out = hp_dev_actual(dev);
	KUNIT_EXPECT_GT(test, out, 0);
	KUNIT_EXPECT_LE(test, out, HP_MIB(128));
	KUNIT_EXPECT_LE_MSG(test, inflates(dev), 60, "inflates in 20 s");
	hp_expect_books(dev);
	hp_set_decide(dev, NULL);
	hp_dev_request(dev, HP_MIB(130));
	hp_expect_out(dev, HP_MIB(130));
	hp_dev_request(dev, 0);
	hp_expect_out(dev, 0);
}

/* Busy now, well later: the target is reached without a new one. */
static void inflate_tries_again(struct kunit *test)
{
	static const u16 later[] = {
		VIRTIO_BALLOON_HP_BUSY, VIRTIO_BALLOON_HP_IO,
		VIRTIO_BALLOON_HP_AGAIN,
	};
	struct hp_dev *dev;
	int i;

	dev = hp_start(test, &(struct hp_params) { .decide = inflate_refuse_at_first });
	for (i = 0; i < ARRAY_SIZE(later); i++) {
		inflate_refusal = later[i];
		inflate_patience = 3;
		hp_dev_request(dev, HP_MIB(64 * (i + 1)));
		hp_expect_out(dev, HP_MIB(64 * (i + 1)));
		KUNIT_EXPECT_EQ(test, inflate_patience, 0);
	}
}

/* More exceptions than the response has room for: the rest is AGAIN (DEV-17) */
static void inflate_overflowing_answer(struct kunit *test)
{
	struct hp_fixture *fix = test->priv;
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.unit = SZ_4K,
		.decide = inflate_refuse_odd,
	});

	fix->not_out = true;
	inflate_refusal = VIRTIO_BALLOON_HP_DENIED;
	hp_dev_request(dev, HP_MIB(64));
	msleep(20 * 1000);
	/* no block can be had whole; those out in part come back bit by bit */
	KUNIT_EXPECT_LE_MSG(test, inflates(dev), 60, "inflates in 20 s");
	KUNIT_EXPECT_LE_MSG(test, dev->seen.requests[VIRTIO_BALLOON_HP_REQ_DEFLATE],
			    200, "deflates in 20 s");
	KUNIT_EXPECT_EQ(test, dev->seen.above, 0);
	hp_set_decide(dev, NULL);
	hp_dev_request(dev, HP_MIB(32));
	hp_expect_out(dev, HP_MIB(32));
}

static void inflate_refuse_one_page(struct hp_dev *dev, struct hp_request *req)
{
	if (req->type == VIRTIO_BALLOON_HP_REQ_INFLATE && !req->nr)
		hp_refuse(req, 700, 1, VIRTIO_BALLOON_HP_DENIED);
}

/*
 * A unit is smaller than a block: one that is out in part is asked back whole.
 */
static void inflate_mixed_block(struct kunit *test)
{
	struct hp_fixture *fix = test->priv;
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.unit = SZ_4K,
		.decide = inflate_refuse_one_page,
	});

	fix->not_out = true;
	hp_dev_request(dev, HP_MIB(16));
	hp_expect_out(dev, HP_MIB(16));
	KUNIT_EXPECT_EQ(test, dev->seen.requests[VIRTIO_BALLOON_HP_REQ_DEFLATE], 1);
	hp_dev_request(dev, 0);
	hp_expect_out(dev, 0);
}

static struct kunit_case inflate_cases[] = {
	KUNIT_CASE(inflate_to_target),
	KUNIT_CASE(inflate_merges),
	KUNIT_CASE(inflate_begins_small),
	KUNIT_CASE(inflate_marks_late),
	KUNIT_CASE_SLOW(inflate_several_in_flight),
	KUNIT_CASE(inflate_answers_in_any_order),
	KUNIT_CASE(inflate_follows_every_target),
	KUNIT_CASE(inflate_target_changes_in_flight),
	KUNIT_CASE(inflate_stops_when_target_falls),
	KUNIT_CASE_SLOW(inflate_rounds_down),
	KUNIT_CASE_SLOW(inflate_stops_at_the_floor),
	KUNIT_CASE_SLOW(inflate_goes_on_when_memory_comes),
	KUNIT_CASE_PARAM_ATTR(inflate_refused, inflate_status_gen_params,
			      { .speed = KUNIT_SPEED_SLOW }),
	KUNIT_CASE_PARAM_ATTR(inflate_refused_in_part, inflate_status_gen_params,
			      { .speed = KUNIT_SPEED_SLOW }),
	KUNIT_CASE_SLOW(inflate_among_others),
	KUNIT_CASE_SLOW(inflate_tries_again),
	KUNIT_CASE_SLOW(inflate_overflowing_answer),
	KUNIT_CASE(inflate_mixed_block),
	{}
};

HP_SUITE(virtio_balloon_hp_inflate, inflate_cases);
