/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit tests of guest/linux/ranges.c: responses as a device would write them,
 * and what ranges are expected. Units are of 4 KiB here.
 */
#ifndef RANGES_TEST_H
#define RANGES_TEST_H

#include <kunit/test.h>
#include <linux/sizes.h>
#include <linux/string.h>

#include "ranges.h"

#define TEST_SEED	20240601
#define TEST_ROUNDS	500
#define TEST_UNIT	SZ_4K
#define TEST_EXC	8
#define TEST_RESP_SIZE	(sizeof(struct virtio_balloon_hp_resp) + \
			 TEST_EXC * sizeof(struct virtio_balloon_hp_exception))

static inline void expect_range(struct kunit *test, struct hpb_range r,
				u64 first, u32 count)
{
	KUNIT_EXPECT_EQ(test, r.first, first);
	KUNIT_EXPECT_EQ(test, r.count, count);
}

struct response {
	struct virtio_balloon_hp_resp head;
	struct virtio_balloon_hp_exception exc[TEST_EXC];
};

static inline void respond(struct response *r, u16 status, u64 done)
{
	memset(r, 0, sizeof(*r));
	r->head.status = cpu_to_le16(status);
	r->head.done = cpu_to_le64(done * TEST_UNIT);
}

static inline void except(struct response *r, u32 first, u32 count, u16 status)
{
	u32 nr = le32_to_cpu(r->head.nr_exceptions);

	r->exc[nr].first = cpu_to_le32(first);
	r->exc[nr].count = cpu_to_le32(count);
	r->exc[nr].status = cpu_to_le16(status);
	r->head.nr_exceptions = cpu_to_le32(nr + 1);
}

static inline u32 used(const struct response *r)
{
	return sizeof(r->head) +
	       le32_to_cpu(r->head.nr_exceptions) * sizeof(r->exc[0]);
}

static inline const char *parse(struct hpb_answer *a,
				const struct response *r, u64 units)
{
	return hpb_answer_parse(a, r, TEST_RESP_SIZE, used(r), units, TEST_UNIT);
}

#endif /* RANGES_TEST_H */
