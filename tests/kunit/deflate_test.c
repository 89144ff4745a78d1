// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit suite virtio_balloon_hp_deflate: asking for memory back.
 *
 * Proves DRV-13 at its end (nothing is touched before the yes; the device
 * compares every word) and DRV-16 (what is refused stays out, and is asked for
 * again, more and more rarely, or when the target changes).
 */
#include "hp_test.h"

#define HP_TRIES 64

/**
 * struct refusal - script of the device for deflates
 * @status: reason
 * @left:   deflates still to refuse
 * @every:  refuse only every nth unit; 0: all, without exceptions
 * @after:  from the second deflate on, refuse all
 * @nr:     deflates seen
 * @at:     when they came
 */
static struct refusal {
	u16 status;
	unsigned int left;
	unsigned int every;
	bool after;
	unsigned int nr;
	unsigned long at[HP_TRIES];
} refusal;

static void deflate_refuse(struct hp_dev *dev, struct hp_request *req)
{
	u32 i;

	if (req->type != VIRTIO_BALLOON_HP_REQ_DEFLATE)
		return;
	if (refusal.nr < HP_TRIES)
		refusal.at[refusal.nr] = jiffies;
	refusal.nr++;
	if (!refusal.left)
		return;
	refusal.left--;
	if (!refusal.every || (refusal.after && refusal.nr > 1))
		req->status = refusal.status;
	else
		for (i = 0; i < req->units; i += refusal.every)
			hp_refuse(req, i, 1, refusal.status);
}

static struct hp_dev *deflate_start(struct kunit *test, u64 bytes,
				    const struct refusal *script)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = bytes,
		.decide = deflate_refuse,
	});

	refusal = *script;
	hp_expect_out(dev, bytes);
	return dev;
}

static void deflate_to_zero(struct kunit *test)
{
	struct hp_dev *dev = deflate_start(test, HP_MIB(1024), &(struct refusal) {});

	hp_dev_request(dev, 0);
	hp_expect_out(dev, 0);
	KUNIT_EXPECT_LE(test, dev->seen.requests[VIRTIO_BALLOON_HP_REQ_DEFLATE], 5);
	KUNIT_EXPECT_EQ(test, dev->seen.unmerged, 0);
	KUNIT_EXPECT_EQ(test, dev->seen.small, 0);
}

static void deflate_zeroed(struct hp_dev *dev, struct hp_request *req)
{
	req->zeroed = req->type == VIRTIO_BALLOON_HP_REQ_DEFLATE;
}

static void deflate_answers_zeroed(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(64),
		.decide = deflate_zeroed,
	});

	hp_expect_out(dev, HP_MIB(64));
	hp_dev_request(dev, 0);
	hp_expect_out(dev, 0);
}

/* DRV-13: until the yes the pages are neither managed nor online */
static void deflate_waits_for_the_yes(struct kunit *test)
{
	struct hp_dev *dev = deflate_start(test, HP_MIB(256), &(struct refusal) {});

	hp_set_decide(dev, hp_hold_deflate);
	hp_dev_request(dev, 0);
	HP_WAIT(dev, dev->nr_busy);
	msleep(5000);
	KUNIT_EXPECT_EQ(test, hp_dev_actual(dev), HP_MIB(256));
	hp_expect_books(dev);
	hp_set_decide(dev, NULL);
	hp_dev_release(dev, HP_REQUESTS, false);
	hp_expect_out(dev, 0);
}

/* Another target while the device thinks about a deflate */
static void deflate_overtaken_by_target(struct kunit *test)
{
	struct hp_dev *dev = deflate_start(test, HP_MIB(1024), &(struct refusal) {});
	int i;

	for (i = 0; i < 4; i++) {
		hp_set_decide(dev, hp_hold_all);
		hp_dev_request(dev, HP_MIB(16));
		HP_WAIT(dev, dev->nr_busy);
		hp_dev_request(dev, HP_MIB(1024) - i * SZ_2M);
		msleep(100);
		hp_set_decide(dev, NULL);
		hp_dev_release(dev, HP_REQUESTS, i & 1);
		hp_expect_out(dev, HP_MIB(1024) - i * SZ_2M);
	}
}

/* DRV-16: no memory for minutes; asked again ever more rarely, never lost */
static void deflate_backs_off(struct kunit *test)
{
	struct hp_dev *dev = deflate_start(test, HP_MIB(64), &(struct refusal) {
		.status = VIRTIO_BALLOON_HP_NOMEM, .left = UINT_MAX,
	});
	unsigned long gap, last = 0;
	unsigned int i;

	hp_dev_request(dev, 0);
	msleep(150 * 1000);
	hp_expect_out(dev, HP_MIB(64));
	KUNIT_EXPECT_GE(test, refusal.nr, 5);
	KUNIT_EXPECT_LE(test, refusal.nr, 20);
	for (i = 1; i < refusal.nr; i++) {
		gap = refusal.at[i] - refusal.at[i - 1];
		KUNIT_EXPECT_GE_MSG(test, gap, msecs_to_jiffies(90), "try %u", i);
		KUNIT_EXPECT_GE_MSG(test, gap + 2, last, "delays shrink, try %u", i);
		KUNIT_EXPECT_LE_MSG(test, gap, 60 * HZ, "try %u", i);
		last = gap;
	}
	KUNIT_EXPECT_TRUE(test, hp_driver(dev)->stop == HPB_STOP_NOMEM);
	/* the host has memory again: nobody has to say so */
	refusal.left = 0;
	HP_WAIT(dev, !hp_dev_actual(dev));
	hp_expect_out(dev, 0);
	KUNIT_EXPECT_TRUE(test, hp_driver(dev)->stop == HPB_STOP_NONE);
}

/* DRV-16: a change of the target is a reason to ask at once */
static void deflate_asks_again_on_target(struct kunit *test)
{
	struct hp_dev *dev = deflate_start(test, HP_MIB(64), &(struct refusal) {
		.status = VIRTIO_BALLOON_HP_NOMEM, .left = UINT_MAX,
	});
	unsigned int nr;

	hp_dev_request(dev, 0);
	msleep(100 * 1000);
	nr = refusal.nr;
	refusal.left = 0;
	hp_dev_request(dev, HP_MIB(2));
	msleep(100);
	KUNIT_EXPECT_GT(test, refusal.nr, nr);
	hp_expect_out(dev, HP_MIB(2));
}

static const u16 deflate_statuses[] = {
	VIRTIO_BALLOON_HP_INVAL, VIRTIO_BALLOON_HP_NOT_RAM,
	VIRTIO_BALLOON_HP_ALREADY_OUT, VIRTIO_BALLOON_HP_OVERLAP,
	VIRTIO_BALLOON_HP_NOMEM, VIRTIO_BALLOON_HP_DENIED,
	VIRTIO_BALLOON_HP_BUSY, VIRTIO_BALLOON_HP_IO, VIRTIO_BALLOON_HP_AGAIN,
	VIRTIO_BALLOON_HP_UNSUPP, 13, 0x7fff,
};

static void deflate_status_desc(const u16 *status, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "status %u", *status);
}

KUNIT_ARRAY_PARAM(deflate_status, deflate_statuses, deflate_status_desc);

/* DRV-16: whatever the reason, it stays out, and nobody spins */
static void deflate_refused(struct kunit *test)
{
	struct hp_dev *dev = deflate_start(test, HP_MIB(64), &(struct refusal) {
		.status = *(const u16 *)test->param_value, .left = UINT_MAX,
	});
	unsigned int runs, nr;

	hp_dev_request(dev, HP_MIB(32));
	msleep(30 * 1000);
	hp_expect_out(dev, HP_MIB(64));
	KUNIT_EXPECT_GE(test, refusal.nr, 1);
	KUNIT_EXPECT_LE_MSG(test, refusal.nr, 40, "deflates in 30 s");
	nr = refusal.nr;
	runs = hp_worker_runs();
	msleep(120 * 1000);
	KUNIT_EXPECT_LE_MSG(test, refusal.nr - nr, 12, "deflates in 120 s");
	KUNIT_EXPECT_LE_MSG(test, hp_worker_runs() - runs, 12, "worker runs in 120 s");
	refusal.left = 0;
	hp_dev_request(dev, HP_MIB(16));
	hp_expect_out(dev, HP_MIB(16));
}

/* DRV-16: of every fourth unit the device says no, once */
static void deflate_refused_in_part(struct kunit *test)
{
	struct hp_dev *dev = deflate_start(test, HP_MIB(256), &(struct refusal) {
		.status = *(const u16 *)test->param_value, .left = 1, .every = 4,
	});

	hp_dev_request(dev, 0);
	/* less than the first delay of the driver, HPB_BACKOFF_MIN */
	msleep(20);
	if (refusal.status != VIRTIO_BALLOON_HP_AGAIN)
		KUNIT_EXPECT_EQ(test, hp_dev_actual(dev), HP_MIB(64));
	hp_expect_books(dev);
	hp_dev_request(dev, HP_MIB(4));
	hp_expect_out(dev, HP_MIB(4));
}

/* A unit is smaller than a block: the block stays hidden as long as one is out */
static void deflate_mixed_block(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.unit = SZ_4K,
		.requested = HP_MIB(16),
		.decide = deflate_refuse,
		.decide_all = true,
	});
	struct hp_fixture *fix = test->priv;

	fix->not_out = true;
	refusal = (struct refusal) {
		.status = VIRTIO_BALLOON_HP_NOMEM, .left = UINT_MAX,
		.every = 1000, .after = true,
	};
	hp_expect_out(dev, HP_MIB(16));
	hp_dev_request(dev, 0);
	/* it asks again, and hears no for each of them */
	HP_WAIT(dev, refusal.nr >= 3);
	/* units 0, 1000, 2000, ... are out still, and their blocks hidden */
	KUNIT_EXPECT_EQ(test, hp_dev_actual(dev), 5 * SZ_4K);
	KUNIT_EXPECT_EQ(test, hp_count_offline(), fix->offline + 5 * 512);
	refusal.left = 0;
	hp_expect_out(dev, 0);
}

static struct kunit_case deflate_cases[] = {
	KUNIT_CASE(deflate_to_zero),
	KUNIT_CASE(deflate_answers_zeroed),
	KUNIT_CASE_SLOW(deflate_waits_for_the_yes),
	KUNIT_CASE(deflate_overtaken_by_target),
	KUNIT_CASE_SLOW(deflate_backs_off),
	KUNIT_CASE_SLOW(deflate_asks_again_on_target),
	KUNIT_CASE_PARAM_ATTR(deflate_refused, deflate_status_gen_params,
			      { .speed = KUNIT_SPEED_SLOW }),
	KUNIT_CASE_PARAM(deflate_refused_in_part, deflate_status_gen_params),
	KUNIT_CASE(deflate_mixed_block),
	{}
};

HP_SUITE(virtio_balloon_hp_deflate, deflate_cases);
