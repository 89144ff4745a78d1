// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit suite virtio_balloon_hp_report: free page reporting.
 *
 * Proves DRV-19: memory in a report is not used before the answer (the device
 * fills it with a pattern and compares), afterwards without a deflate, and what
 * is out is never reported (DRV-13). The kernel looks for unreported pages two
 * seconds after something was freed.
 */
#include <linux/mm.h>

#include "hp_test.h"

#define HP_REPORTING (BIT_ULL(VIRTIO_BALLOON_HP_F_STATS) |		\
		      BIT_ULL(VIRTIO_BALLOON_HP_F_REPORTING))

static unsigned int reports(struct hp_dev *dev)
{
	return dev->seen.requests[VIRTIO_BALLOON_HP_REQ_REPORT];
}

static void report_hold(struct hp_dev *dev, struct hp_request *req)
{
	req->hold = req->type == VIRTIO_BALLOON_HP_REQ_REPORT;
}

static u16 report_refusal;

static void report_refuse(struct hp_dev *dev, struct hp_request *req)
{
	if (req->type == VIRTIO_BALLOON_HP_REQ_REPORT)
		req->status = report_refusal;
}

static void report_refuse_first_unit(struct hp_dev *dev, struct hp_request *req)
{
	if (req->type == VIRTIO_BALLOON_HP_REQ_REPORT)
		hp_refuse(req, 0, 1, report_refusal);
}

static void report_malformed(struct hp_dev *dev, struct hp_request *req)
{
	if (req->type == VIRTIO_BALLOON_HP_REQ_REPORT) {
		req->raw = true;
		req->raw_used = 15;
	}
}

static struct hp_dev *report_start(struct kunit *test, u64 bytes,
				   hp_decide_fn *decide)
{
	return hp_start(test, &(struct hp_params) {
		.features = HP_REPORTING,
		.requested = bytes,
		.decide = decide,
	});
}

/* Has the kernel look for free pages again. */
static void report_stir(struct kunit *test)
{
	struct page *page = alloc_pages(GFP_KERNEL, 10);

	KUNIT_ASSERT_NOT_NULL(test, page);
	__free_pages(page, 10);
}

static void report_free_pages(struct kunit *test)
{
	struct hp_dev *dev = report_start(test, HP_MIB(1024), NULL);
	unsigned int before;

	/* what was in use has not been reported, whatever ran before */
	hp_expect_out(dev, HP_MIB(1024));
	before = dev->seen.ranges[VIRTIO_BALLOON_HP_REQ_REPORT];
	hp_dev_request(dev, 0);
	hp_expect_out(dev, 0);
	msleep(200 * 1000);
	KUNIT_EXPECT_GE_MSG(test,
			    dev->seen.ranges[VIRTIO_BALLOON_HP_REQ_REPORT] - before,
			    200, "reported ranges of 4 MiB");
	KUNIT_EXPECT_EQ(test, hp_dev_actual(dev), 0);
	/* and then it is done: nothing is reported twice */
	msleep(10 * 1000);
	KUNIT_EXPECT_EQ(test, dev->seen.answered[VIRTIO_BALLOON_HP_REQ_REPORT],
			reports(dev));
}

/* Reports, inflates and deflates at the same time never share a page. */
static void report_and_balloon(struct kunit *test)
{
	struct hp_dev *dev = report_start(test, 0, NULL);
	int i;

	for (i = 0; i < 20; i++) {
		hp_dev_request(dev, i & 1 ? HP_MIB(16) : HP_MIB(900) + i * SZ_2M);
		msleep(700 * i);
	}
	hp_expect_out(dev, HP_MIB(16));
	KUNIT_EXPECT_GE(test, reports(dev), 2);
}

/* An answer that takes its time, and the balloon goes on meanwhile */
static void report_held(struct kunit *test)
{
	struct hp_dev *dev = report_start(test, 0, report_hold);

	report_stir(test);
	HP_WAIT(dev, reports(dev));
	hp_dev_request(dev, HP_MIB(512));
	hp_expect_out(dev, HP_MIB(512));
	hp_dev_request(dev, HP_MIB(64));
	hp_expect_out(dev, HP_MIB(64));
	KUNIT_EXPECT_EQ(test, reports(dev), 1);
	hp_set_decide(dev, NULL);
	hp_dev_release(dev, HP_REQUESTS, false);
	msleep(20 * 1000);
	KUNIT_EXPECT_GT(test, reports(dev), 1);
}

/* The report is with the device when the driver goes. */
static void report_held_at_removal(struct kunit *test)
{
	struct hp_dev *dev = report_start(test, HP_MIB(64), report_hold);
	unsigned long began;

	hp_expect_out(dev, HP_MIB(64));
	report_stir(test);
	HP_WAIT(dev, reports(dev));
	began = jiffies;
	hp_dev_unplug(dev);
	KUNIT_EXPECT_LE(test, jiffies - began, 30 * HZ);
	KUNIT_EXPECT_EQ(test, dev->seen.lost, 1);
}

/* ... or when the guest is suspended, for however short a time */
static void report_over_freeze(struct kunit *test)
{
	struct hp_dev *dev = report_start(test, HP_MIB(64), report_hold);
	unsigned long began;
	unsigned int i, nr;

	hp_expect_out(dev, HP_MIB(64));
	for (i = 0; i < 3; i++) {
		report_stir(test);
		HP_WAIT(dev, dev->nr_busy);
		KUNIT_ASSERT_EQ(test, virtio_device_freeze(&dev->vdev), 0);
		if (i)
			msleep(5000 * (i - 1));
		KUNIT_ASSERT_EQ(test, virtio_device_restore(&dev->vdev), 0);
		hp_expect_out(dev, HP_MIB(64));
	}
	hp_set_decide(dev, NULL);
	hp_dev_release(dev, HP_REQUESTS, false);
	nr = reports(dev);
	report_stir(test);
	msleep(10 * 1000);
	KUNIT_EXPECT_GT_MSG(test, reports(dev), nr, "reports after restore");
	began = jiffies;
	hp_dev_unplug(dev);
	KUNIT_EXPECT_LE(test, jiffies - began, 30 * HZ);
}

static const u16 report_statuses[] = {
	VIRTIO_BALLOON_HP_INVAL, VIRTIO_BALLOON_HP_NOT_RAM,
	VIRTIO_BALLOON_HP_ALREADY_OUT, VIRTIO_BALLOON_HP_DENIED,
	VIRTIO_BALLOON_HP_BUSY, VIRTIO_BALLOON_HP_IO, VIRTIO_BALLOON_HP_AGAIN,
	VIRTIO_BALLOON_HP_UNSUPP, 99,
};

static void report_status_desc(const u16 *status, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "status %u", *status);
}

KUNIT_ARRAY_PARAM(report_status, report_statuses, report_status_desc);

/* Refused: the pages are free pages, the balloon works, and nobody spins. */
static void report_refused(struct kunit *test)
{
	struct hp_dev *dev = report_start(test, 0, report_refuse);
	unsigned int nr;

	report_refusal = *(const u16 *)test->param_value;
	report_stir(test);
	HP_WAIT(dev, reports(dev));
	msleep(10 * 1000);
	nr = reports(dev);
	msleep(50 * 1000);
	/* the kernel itself tries again every two seconds at most, 32 ranges each */
	KUNIT_EXPECT_LE_MSG(test, reports(dev) - nr, 30, "reports in 50 s");
	hp_set_decide(dev, report_refuse_first_unit);
	report_stir(test);
	msleep(10 * 1000);
	hp_dev_request(dev, HP_MIB(256));
	hp_expect_out(dev, HP_MIB(256));
}

/* DRV-15 holds here too: the device may still drop those pages */
static void report_answered_badly(struct kunit *test)
{
	struct hp_dev *dev = report_start(test, HP_MIB(64), NULL);
	unsigned int nr;

	hp_expect_out(dev, HP_MIB(64));
	hp_set_decide(dev, report_malformed);
	nr = dev->seen.answered[VIRTIO_BALLOON_HP_REQ_REPORT];
	report_stir(test);
	HP_WAIT(dev, dev->seen.answered[VIRTIO_BALLOON_HP_REQ_REPORT] != nr);
	msleep(20);
	hp_dev_expect_silence(dev);
	KUNIT_EXPECT_TRUE(test, hp_driver(dev)->state == HPB_BROKEN);
	hp_dev_request(dev, 0);
	report_stir(test);
	msleep(20 * 1000);
	hp_expect_out(dev, HP_MIB(64));
	hp_set_decide(dev, NULL);
	device_release_driver(&dev->vdev.dev);
	hp_dev_request(dev, HP_MIB(32));
	KUNIT_ASSERT_EQ(test, device_attach(&dev->vdev.dev), 1);
	hp_expect_out(dev, HP_MIB(32));
}

/* Units larger than what the kernel reports, and smaller ones */
static void report_units(struct kunit *test)
{
	static const u64 units[] = { SZ_4K, SZ_64K, SZ_4M };
	struct hp_fixture *fix = test->priv;
	struct hp_dev *dev;
	int i;

	for (i = 0; i < ARRAY_SIZE(units); i++) {
		dev = hp_start(test, &(struct hp_params) {
			.features = HP_REPORTING, .unit = units[i],
		});
		report_stir(test);
		msleep(10 * 1000);
		KUNIT_EXPECT_GE(test, reports(dev), 1);
		hp_dev_unplug(dev);
		KUNIT_EXPECT_EQ_MSG(test, dev->nr_offences, 0, "%s", dev->offence[0]);
		hp_dev_free(dev);
		fix->dev = NULL;
	}
}

/* DRV-4 */
static void report_not_negotiated(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_STATS),
	});

	report_stir(test);
	msleep(20 * 1000);
	KUNIT_EXPECT_EQ(test, reports(dev), 0);
}

static struct kunit_case report_cases[] = {
	KUNIT_CASE_SLOW(report_free_pages),
	KUNIT_CASE_SLOW(report_and_balloon),
	KUNIT_CASE_SLOW(report_held),
	KUNIT_CASE_SLOW(report_held_at_removal),
	KUNIT_CASE_SLOW(report_over_freeze),
	KUNIT_CASE_PARAM_ATTR(report_refused, report_status_gen_params,
			      { .speed = KUNIT_SPEED_SLOW }),
	KUNIT_CASE_SLOW(report_answered_badly),
	KUNIT_CASE_SLOW(report_units),
	KUNIT_CASE_SLOW(report_not_negotiated),
	{}
};

HP_SUITE(virtio_balloon_hp_report, report_cases);
