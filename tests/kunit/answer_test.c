// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit suite virtio_balloon_hp_answer: answers that make no sense.
 *
 * Proves DRV-15: what the device did is unknown, so every unit of the request
 * counts as out, nothing more is asked of the device, and a reset puts all
 * right.
 */
#include "hp_test.h"

/**
 * struct bad - a malformed answer to a request of U units of u bytes
 * @status: of the response
 * @nr:     exceptions the response claims
 * @used:   used length; USED_RIGHT: what @nr exceptions take
 * @missing: done is size less this many units
 * @exc:    exceptions that are written; a first of UNITS - n means U - n
 * @nr_exc: how many
 */
struct bad {
	const char *name;
	u16 status;
	u32 nr;
	u32 used;
	u32 missing;
	unsigned int nr_exc;
	struct hp_exception exc[2];
};

#define USED_RIGHT 0xfffffff0
#define UNITS 0x40000000
#define ALL_MISSING 0x40000000
#define DENIED VIRTIO_BALLOON_HP_DENIED
#define OK VIRTIO_BALLOON_HP_OK
#define PARTIAL VIRTIO_BALLOON_HP_PARTIAL

static const struct bad bads[] = {
	{ "used length 0", OK, 0, 0 },
	{ "used length 15", OK, 0, 15 },
	{ "used length without exceptions", PARTIAL, 1, 16, 1, 1, { { 0, 1, DENIED } } },
	{ "used length cuts an exception", PARTIAL, 2, 47, 2, 2,
	  { { 0, 1, DENIED }, { 2, 1, DENIED } } },
	{ "more exceptions than room", PARTIAL, 4096, USED_RIGHT, 1, 1, { { 0, 1, DENIED } } },
	{ "exceptions overflow 32 bits", PARTIAL, 0x10000001, 32, 1, 1, { { 0, 1, DENIED } } },
	{ "2^32-1 exceptions", PARTIAL, U32_MAX, U32_MAX, 1, 1, { { 0, 1, DENIED } } },
	{ "descending", PARTIAL, 2, USED_RIGHT, 2, 2, { { 4, 1, DENIED }, { 2, 1, DENIED } } },
	{ "twice the same", PARTIAL, 2, USED_RIGHT, 2, 2, { { 4, 1, DENIED }, { 4, 1, DENIED } } },
	{ "overlap", PARTIAL, 2, USED_RIGHT, 4, 2, { { 2, 3, DENIED }, { 4, 1, DENIED } } },
	{ "beyond the request", PARTIAL, 1, USED_RIGHT, 1, 1, { { UNITS, 1, DENIED } } },
	{ "reaches beyond the request", PARTIAL, 1, USED_RIGHT, 2, 1, { { UNITS - 1, 2, DENIED } } },
	{ "first wraps", PARTIAL, 1, USED_RIGHT, 2, 1, { { U32_MAX, 2, DENIED } } },
	{ "count wraps", PARTIAL, 1, USED_RIGHT, 0, 1, { { 1, U32_MAX, DENIED } } },
	{ "done too much", PARTIAL, 1, USED_RIGHT, 1, 1, { { 0, 2, DENIED } } },
	{ "done too little", PARTIAL, 1, USED_RIGHT, 3, 1, { { 0, 2, DENIED } } },
	{ "OK and not all done", OK, 0, USED_RIGHT, 1 },
	{ "OK and nothing done", OK, 0, USED_RIGHT, ALL_MISSING },
	{ "DENIED and all done", DENIED, 0, USED_RIGHT, 0 },
	{ "PARTIAL without exceptions", PARTIAL, 0, USED_RIGHT, 3 },
};

static void bad_desc(const struct bad *bad, char *desc)
{
	strscpy(desc, bad->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(bad, bads, bad_desc);

static void answer_spoil(struct hp_dev *dev, struct hp_request *req,
			 const struct bad *bad)
{
	u64 missing = min_t(u64, bad->missing, req->units);
	unsigned int i;

	req->raw = true;
	req->raw_resp = (struct virtio_balloon_hp_resp) {
		.status = cpu_to_le16(bad->status),
		.nr_exceptions = cpu_to_le32(bad->nr),
		.done = cpu_to_le64(req->size - missing * dev->mem.unit),
	};
	req->raw_used = bad->used == USED_RIGHT ? 16 + 16 * bad->nr : bad->used;
	for (i = 0; i < bad->nr_exc; i++) {
		req->exc[i] = bad->exc[i];
		if (bad->exc[i].first != U32_MAX && bad->exc[i].first >= UNITS - 16)
			req->exc[i].first = req->units - (UNITS - bad->exc[i].first);
	}
	req->nr_exc = bad->nr_exc;
}

static void answer_bad_inflate(struct hp_dev *dev, struct hp_request *req)
{
	if (req->type == VIRTIO_BALLOON_HP_REQ_INFLATE)
		answer_spoil(dev, req, dev->script);
}

static void answer_bad_deflate(struct hp_dev *dev, struct hp_request *req)
{
	if (req->type == VIRTIO_BALLOON_HP_REQ_DEFLATE)
		answer_spoil(dev, req, dev->script);
}

/* The device is not used any more, at no cost, and what is out stays out. */
static void answer_expect_broken(struct hp_dev *dev, u64 out)
{
	struct kunit *test = dev->test;
	unsigned int runs;

	KUNIT_EXPECT_TRUE(test, hp_driver(dev)->state == HPB_BROKEN);
	hp_dev_expect_silence(dev);
	hp_expect_out(dev, out);
	runs = hp_worker_runs();
	hp_dev_request(dev, HP_MIB(512));
	msleep(20 * 1000);
	hp_dev_request(dev, 0);
	msleep(20 * 1000);
	KUNIT_EXPECT_LE(test, hp_worker_runs() - runs, 4);
	KUNIT_EXPECT_EQ_MSG(test, hp_dev_poll_stats(dev), -ETIMEDOUT,
			    "statistics of a broken device");
	hp_expect_out(dev, out);
}

/* ... until it is reset. */
static void answer_expect_recovery(struct hp_dev *dev)
{
	struct kunit *test = dev->test;
	unsigned long began = jiffies;

	hp_set_decide(dev, NULL);
	device_release_driver(&dev->vdev.dev);
	KUNIT_EXPECT_LE_MSG(test, jiffies - began, 15 * HZ, "removal takes too long");
	KUNIT_EXPECT_EQ(test, hp_dev_actual(dev), 0);
	hp_expect_books(dev);
	hp_dev_request(dev, HP_MIB(48));
	KUNIT_ASSERT_EQ(test, device_attach(&dev->vdev.dev), 1);
	hp_expect_out(dev, HP_MIB(48));
}

static void answer_malformed_inflate(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_STATS),
		.requested = HP_MIB(32),
	});

	hp_expect_out(dev, HP_MIB(32));
	dev->script = (void *)test->param_value;
	hp_set_decide(dev, answer_bad_inflate);
	hp_dev_request(dev, HP_MIB(96));
	HP_WAIT(dev, hp_dev_actual(dev) == HP_MIB(96));
	msleep(50);
	answer_expect_broken(dev, HP_MIB(96));
	answer_expect_recovery(dev);
}

static void answer_malformed_deflate(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_STATS),
		.requested = HP_MIB(96),
	});

	hp_expect_out(dev, HP_MIB(96));
	dev->script = (void *)test->param_value;
	hp_set_decide(dev, answer_bad_deflate);
	hp_dev_request(dev, HP_MIB(32));
	HP_WAIT(dev, dev->seen.answered[VIRTIO_BALLOON_HP_REQ_DEFLATE]);
	msleep(50);
	answer_expect_broken(dev, HP_MIB(96));
	answer_expect_recovery(dev);
}

/* Other requests are with the device when one of them is answered badly. */
static void answer_malformed_among_others(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_STATS),
		.decide = hp_hold_all,
	});
	struct hp_request *req;
	unsigned int held;

	hp_dev_request(dev, HP_MIB(1500));
	msleep(100);
	mutex_lock(&dev->lock);
	held = dev->nr_busy;
	req = list_first_entry(&dev->held, struct hp_request, link);
	answer_spoil(dev, req, &bads[0]);
	mutex_unlock(&dev->lock);
	KUNIT_ASSERT_GE(test, held, 2);
	hp_dev_release(dev, 1, false);
	msleep(50);
	hp_dev_expect_silence(dev);
	KUNIT_EXPECT_TRUE(test, hp_driver(dev)->state == HPB_BROKEN);
	/* the other answers come after all, and are good */
	hp_dev_release(dev, HP_REQUESTS, false);
	msleep(1000);
	answer_expect_broken(dev, hp_dev_actual(dev));
	answer_expect_recovery(dev);
}

static struct kunit_case answer_cases[] = {
	KUNIT_CASE_PARAM_ATTR(answer_malformed_inflate, bad_gen_params,
			      { .speed = KUNIT_SPEED_SLOW }),
	KUNIT_CASE_PARAM_ATTR(answer_malformed_deflate, bad_gen_params,
			      { .speed = KUNIT_SPEED_SLOW }),
	KUNIT_CASE_SLOW(answer_malformed_among_others),
	{}
};

HP_SUITE(virtio_balloon_hp_answer, answer_cases);
