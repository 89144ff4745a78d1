// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit suite virtio_balloon_hp_device: can the device of the other suites find
 * what it is there to find?
 *
 * No driver is bound here. The test makes requests by hand, first a correct
 * one, then one for each driver requirement that breaks just that, and
 * expects the device to note an offence against just that number. Without this,
 * "no offence" in the other suites would prove nothing.
 */
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>

#include "hp_test.h"

#define HP_BLOCKS 4

/**
 * struct raw - a driver by hand
 * @hdr:   header of the next request
 * @resp:  room for its response
 * @block: 2 MiB blocks to put in requests
 * @sg:    entries: header, response, ranges
 */
struct raw {
	struct hp_dev *dev;
	struct virtqueue *vq[VIRTIO_BALLOON_HP_VQ_MAX];
	struct virtio_balloon_hp_req hdr[2];
	u8 resp[256];
	struct page *block[HP_BLOCKS];
	struct scatterlist sg[16];
};

static void raw_callback(struct virtqueue *vq)
{
	wake_up_all(&container_of(vq->vdev, struct hp_dev, vdev)->wq);
}

static void raw_free_blocks(void *data)
{
	struct raw *raw = data;
	int i;

	for (i = 0; i < HP_BLOCKS; i++)
		if (raw->block[i])
			__free_pages(raw->block[i], 9);
}

static struct raw *raw_start(struct kunit *test)
{
	struct virtqueue_info info[] = {
		{ "inflate", raw_callback }, { "deflate", raw_callback },
		{ "stats", raw_callback }, { "reporting", raw_callback },
	};
	struct raw *raw = kunit_kzalloc(test, sizeof(*raw), GFP_KERNEL);
	struct virtio_device *vdev;
	int i;

	KUNIT_ASSERT_NOT_NULL(test, raw);
	raw->dev = hp_plug(test, &(struct hp_params) {
		.raw = true,
		.max_ranges = 3,
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_STATS) |
			    BIT_ULL(VIRTIO_BALLOON_HP_F_REPORTING),
	});
	vdev = &raw->dev->vdev;
	vdev->features = raw->dev->features;
	virtio_add_status(vdev, VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK);
	KUNIT_ASSERT_EQ(test, 0, virtio_find_vqs(vdev, ARRAY_SIZE(info), raw->vq,
						 info, NULL));
	virtio_device_ready(vdev);
	for (i = 0; i < HP_BLOCKS; i++) {
		raw->block[i] = alloc_pages(GFP_KERNEL, 9);
		KUNIT_ASSERT_NOT_NULL(test, raw->block[i]);
	}
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, raw_free_blocks, raw));
	return raw;
}

/* The test's hand is off the device before the fixture takes it out. */
static void raw_stop(struct raw *raw)
{
	struct virtio_device *vdev = &raw->dev->vdev;

	virtio_reset_device(vdev);
	vdev->config->del_vqs(vdev);
	kunit_release_action(raw->dev->test, raw_free_blocks, raw);
}

/* Makes the chain in @raw->sg available: @out readable entries, @in writable. */
static void raw_send(struct raw *raw, unsigned int q, unsigned int out,
		     unsigned int in)
{
	struct scatterlist *sgs[16];
	unsigned int i;

	sg_init_marker(raw->sg, out + in);
	for (i = 0; i < out + in; i++) {
		sgs[i] = &raw->sg[i];
		sg_mark_end(sgs[i]);
	}
	KUNIT_ASSERT_EQ(raw->dev->test, 0,
			virtqueue_add_sgs(raw->vq[q], sgs, out, in, raw, GFP_KERNEL));
	virtqueue_kick(raw->vq[q]);
}

/* A correct request for blocks @first to @last, to be spoilt by the caller. */
static unsigned int raw_prepare(struct raw *raw, u16 type, int first, int last)
{
	unsigned int n = 0;
	int i;

	raw->hdr[0] = (struct virtio_balloon_hp_req) {
		.type = cpu_to_le16(type),
		.resp_size = cpu_to_le32(sizeof(raw->resp)),
		.size = cpu_to_le64((last - first + 1) * SZ_2M),
	};
	sg_init_table(raw->sg, ARRAY_SIZE(raw->sg));
	sg_set_buf(&raw->sg[n++], &raw->hdr[0], sizeof(raw->hdr[0]));
	sg_set_buf(&raw->sg[n++], raw->resp, sizeof(raw->resp));
	for (i = first; i <= last; i++)
		sg_set_page(&raw->sg[n++], raw->block[i], SZ_2M, 0);
	return n - 1;
}

/* Waits for the answer to a request. Return: its status. */
static u16 raw_answer(struct raw *raw, unsigned int q)
{
	struct virtio_balloon_hp_resp *resp = (void *)raw->resp;
	struct hp_dev *dev = raw->dev;
	unsigned int len;
	void *got = NULL;

	HP_WAIT(dev, (got = virtqueue_get_buf(raw->vq[q], &len)));
	KUNIT_EXPECT_PTR_EQ(dev->test, got, (void *)raw);
	KUNIT_EXPECT_EQ(dev->test, len,
			16 + 16 * le32_to_cpu(resp->nr_exceptions));
	return le16_to_cpu(resp->status);
}

static u16 raw_inflate(struct raw *raw, int first, int last)
{
	raw_send(raw, 0, 1, raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_INFLATE,
					first, last));
	return raw_answer(raw, 0);
}

static u16 raw_deflate(struct raw *raw, int first, int last)
{
	raw_send(raw, 1, 1, raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_DEFLATE,
					first, last));
	return raw_answer(raw, 1);
}

/* Exactly one offence was noted since the last call, against DRV-@drv. */
static void raw_expect_offence(struct raw *raw, unsigned int drv)
{
	struct hp_dev *dev = raw->dev;

	KUNIT_EXPECT_EQ_MSG(dev->test, dev->nr_offences, 1, "offences, DRV-%u wanted", drv);
	KUNIT_EXPECT_EQ_MSG(dev->test, dev->offences[drv], 1, "DRV-%u, but noted: %s",
			    drv, dev->nr_offences ? dev->offence[0] : "nothing");
	dev->nr_offences = 0;
	memset(dev->offences, 0, sizeof(dev->offences));
}

static void device_accepts_correct_requests(struct kunit *test)
{
	struct raw *raw = raw_start(test);

	KUNIT_EXPECT_EQ(test, raw_inflate(raw, 0, 2), VIRTIO_BALLOON_HP_OK);
	KUNIT_EXPECT_EQ(test, hp_dev_actual(raw->dev), 3 * SZ_2M);
	KUNIT_EXPECT_EQ(test, raw_deflate(raw, 1, 2), VIRTIO_BALLOON_HP_OK);
	KUNIT_EXPECT_EQ(test, hp_dev_actual(raw->dev), SZ_2M);
	raw_send(raw, 3, 1, raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_REPORT, 1, 2));
	KUNIT_EXPECT_EQ(test, raw_answer(raw, 3), VIRTIO_BALLOON_HP_OK);
	KUNIT_EXPECT_EQ(test, hp_dev_actual(raw->dev), SZ_2M);
	KUNIT_EXPECT_EQ(test, raw->dev->nr_offences, 0);
	raw_stop(raw);
}

static void raw_refuse_second(struct hp_dev *dev, struct hp_request *req)
{
	hp_refuse(req, 1, 1, VIRTIO_BALLOON_HP_DENIED);
}

static void device_answers_partially(struct kunit *test)
{
	struct raw *raw = raw_start(test);
	struct virtio_balloon_hp_resp *resp = (void *)raw->resp;
	struct virtio_balloon_hp_exception *exc = (void *)(resp + 1);

	raw->dev->decide = raw_refuse_second;
	KUNIT_EXPECT_EQ(test, raw_inflate(raw, 0, 2), VIRTIO_BALLOON_HP_PARTIAL);
	KUNIT_EXPECT_EQ(test, le32_to_cpu(resp->nr_exceptions), 1);
	KUNIT_EXPECT_EQ(test, le64_to_cpu(resp->done), 2 * SZ_2M);
	KUNIT_EXPECT_EQ(test, le32_to_cpu(exc->first), 1);
	KUNIT_EXPECT_EQ(test, le32_to_cpu(exc->count), 1);
	KUNIT_EXPECT_EQ(test, le16_to_cpu(exc->status), VIRTIO_BALLOON_HP_DENIED);
	KUNIT_EXPECT_EQ(test, hp_dev_actual(raw->dev), 2 * SZ_2M);
	KUNIT_EXPECT_EQ(test, raw->dev->nr_offences, 0);
	raw_stop(raw);
}

/* DEV-12 e: allowed, answered by unit, and seen */
static void device_answers_not_out(struct kunit *test)
{
	struct raw *raw = raw_start(test);
	struct virtio_balloon_hp_exception *exc =
		(void *)(raw->resp + sizeof(struct virtio_balloon_hp_resp));
	struct hp_fixture *fix = test->priv;

	KUNIT_EXPECT_EQ(test, raw_deflate(raw, 0, 0), VIRTIO_BALLOON_HP_NOT_OUT);
	KUNIT_EXPECT_EQ(test, raw_inflate(raw, 0, 0), VIRTIO_BALLOON_HP_OK);
	KUNIT_EXPECT_EQ(test, raw_deflate(raw, 0, 2), VIRTIO_BALLOON_HP_PARTIAL);
	KUNIT_EXPECT_EQ(test, le32_to_cpu(exc->first), 1);
	KUNIT_EXPECT_EQ(test, le32_to_cpu(exc->count), 2);
	KUNIT_EXPECT_EQ(test, le16_to_cpu(exc->status), VIRTIO_BALLOON_HP_NOT_OUT);
	KUNIT_EXPECT_EQ(test, raw->dev->seen.not_out, 3);
	KUNIT_EXPECT_EQ(test, raw->dev->nr_offences, 0);
	KUNIT_EXPECT_EQ(test, hp_dev_actual(raw->dev), 0);
	fix->not_out = true;
	raw_stop(raw);
}

static void device_forgets_on_reset(struct kunit *test)
{
	struct raw *raw = raw_start(test);
	struct hp_dev *dev = raw->dev;

	KUNIT_ASSERT_EQ(test, raw_inflate(raw, 0, 0), VIRTIO_BALLOON_HP_OK);
	dev->decide = hp_hold_all;
	raw_send(raw, 0, 1, raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_INFLATE, 1, 1));
	HP_WAIT(dev, dev->nr_busy == 1);
	raw_stop(raw);
	KUNIT_EXPECT_EQ(test, hp_dev_actual(dev), 0);
	KUNIT_EXPECT_EQ(test, dev->seen.lost, 1);
	KUNIT_EXPECT_EQ(test, hp_dev_release(dev, 1, false), 0);
	KUNIT_EXPECT_EQ(test, dev->nr_offences, 0);
}

/* One broken requirement each: make the request, and wait for its answer. */

static void raw_spoilt(struct raw *raw, unsigned int out, unsigned int in)
{
	raw_send(raw, 0, out, in);
	KUNIT_EXPECT_EQ(raw->dev->test, raw_answer(raw, 0), VIRTIO_BALLOON_HP_INVAL);
	KUNIT_EXPECT_EQ(raw->dev->test, hp_dev_actual(raw->dev), 0);
}

static void raw_header_twice(struct raw *raw)
{
	raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_INFLATE, 0, 0);
	sg_set_buf(&raw->sg[0], raw->hdr, sizeof(raw->hdr));
	raw_spoilt(raw, 1, 2);
}

static void raw_header_flags(struct raw *raw)
{
	raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_INFLATE, 0, 0);
	raw->hdr[0].flags = cpu_to_le16(1);
	raw_send(raw, 0, 1, 2);
	raw_answer(raw, 0);
}

static void raw_wrong_queue(struct raw *raw)
{
	raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_DEFLATE, 0, 0);
	raw_spoilt(raw, 1, 2);
}

static void raw_size_too_large(struct raw *raw)
{
	raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_INFLATE, 0, 0);
	raw->hdr[0].size = cpu_to_le64(2 * SZ_2M);
	raw_spoilt(raw, 1, 2);
}

static void raw_resp_too_small(struct raw *raw)
{
	raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_INFLATE, 0, 0);
	raw->hdr[0].resp_size = cpu_to_le32(32);
	sg_set_buf(&raw->sg[1], raw->resp, 32);
	raw_spoilt(raw, 1, 2);
}

static void raw_unaligned(struct raw *raw)
{
	raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_INFLATE, 0, 0);
	raw->hdr[0].size = cpu_to_le64(SZ_1M);
	sg_set_page(&raw->sg[2], raw->block[0], SZ_1M, 0);
	raw_spoilt(raw, 1, 2);
}

static void raw_too_many_ranges(struct raw *raw)
{
	raw_spoilt(raw, 1, raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_INFLATE, 0, 3));
}

static void raw_twice_in_one(struct raw *raw)
{
	raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_INFLATE, 0, 1);
	sg_set_page(&raw->sg[3], raw->block[0], SZ_2M, 0);
	raw_spoilt(raw, 1, 3);
}

static void raw_twice_in_flight(struct raw *raw)
{
	struct hp_dev *dev = raw->dev;

	dev->decide = hp_hold_all;
	raw_send(raw, 0, 1, raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_INFLATE, 0, 0));
	HP_WAIT(dev, dev->nr_busy == 1);
	raw_spoilt(raw, 1, raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_INFLATE, 0, 0));
	hp_dev_release(dev, 1, false);
	KUNIT_EXPECT_EQ(dev->test, raw_answer(raw, 0), VIRTIO_BALLOON_HP_OK);
}

static void raw_not_ram(struct raw *raw)
{
	/* the kernel's own text: a reserved page */
	raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_INFLATE, 0, 0);
	sg_set_page(&raw->sg[2], pfn_to_page(0), SZ_2M, 0);
	raw_spoilt(raw, 1, 2);
}

static void raw_behind_memory(struct raw *raw)
{
	raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_INFLATE, 0, 0);
	sg_set_page(&raw->sg[2], pfn_to_page(raw->dev->mem.end >> PAGE_SHIFT),
		    SZ_2M, 0);
	raw_spoilt(raw, 1, 2);
}

static void raw_inflate_twice(struct raw *raw)
{
	raw_inflate(raw, 0, 0);
	KUNIT_EXPECT_EQ(raw->dev->test, raw_inflate(raw, 0, 0),
			VIRTIO_BALLOON_HP_INVAL);
}

static void raw_write_while_out(struct raw *raw)
{
	raw_inflate(raw, 0, 0);
	((u8 *)page_address(raw->block[0]))[SZ_2M - 1] ^= 1;
	raw_deflate(raw, 0, 0);
}

static void raw_write_in_flight(struct raw *raw)
{
	struct hp_dev *dev = raw->dev;

	dev->decide = hp_hold_all;
	raw_send(raw, 0, 1, raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_INFLATE, 0, 0));
	HP_WAIT(dev, dev->nr_busy == 1);
	((u8 *)page_address(raw->block[0]))[4096] ^= 1;
	hp_dev_release(dev, 1, false);
	raw_answer(raw, 0);
}

static void raw_write_before_yes(struct raw *raw)
{
	struct hp_dev *dev = raw->dev;

	raw_inflate(raw, 0, 0);
	dev->decide = hp_hold_all;
	raw_send(raw, 1, 1, raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_DEFLATE, 0, 0));
	HP_WAIT(dev, dev->nr_busy == 1);
	((u8 *)page_address(raw->block[0]))[0] ^= 1;
	hp_dev_release(dev, 1, false);
	raw_answer(raw, 1);
}

static void raw_use_after_malformed(struct raw *raw)
{
	hp_dev_expect_silence(raw->dev);
	raw_inflate(raw, 0, 0);
}

static void raw_write_reported(struct raw *raw)
{
	struct hp_dev *dev = raw->dev;

	dev->decide = hp_hold_all;
	raw_send(raw, 3, 1, raw_prepare(raw, VIRTIO_BALLOON_HP_REQ_REPORT, 0, 0));
	HP_WAIT(dev, dev->nr_busy == 1);
	((u8 *)page_address(raw->block[0]))[0] ^= 1;
	hp_dev_release(dev, 1, false);
	raw_answer(raw, 3);
}

static void raw_stats_send(struct raw *raw, unsigned int out, unsigned int in)
{
	struct hp_dev *dev = raw->dev;
	unsigned int before = dev->seen.stats;

	sg_init_table(raw->sg, 2);
	sg_set_buf(&raw->sg[0], raw->resp, 16);
	sg_set_buf(&raw->sg[1], raw->resp + 16, 16);
	raw_send(raw, 2, out, in);
	HP_WAIT(dev, dev->seen.stats == before + 1);
}

static void raw_stats_twice(struct raw *raw)
{
	raw_stats_send(raw, 1, 0);
	raw_stats_send(raw, 1, 0);
}

static void raw_stats_writable(struct raw *raw)
{
	raw_stats_send(raw, 1, 1);
}

static void raw_stats_changed(struct raw *raw)
{
	raw_stats_send(raw, 1, 0);
	raw->resp[3] ^= 1;
	/* nobody sends a new buffer */
	KUNIT_EXPECT_EQ(raw->dev->test, hp_dev_poll_stats(raw->dev), -ETIMEDOUT);
}

static void raw_write_before_reset(struct raw *raw)
{
	raw_inflate(raw, 0, 0);
	((u8 *)page_address(raw->block[0]))[0] ^= 1;
	virtio_reset_device(&raw->dev->vdev);
}

static void raw_queues_before_reset(struct raw *raw)
{
	raw->dev->vdev.config->del_vqs(&raw->dev->vdev);
}

static void raw_config_write(struct raw *raw)
{
	u64 zero = 0;

	raw->dev->vdev.config->set(&raw->dev->vdev, 0, &zero, sizeof(zero));
}

static void raw_config_behind(struct raw *raw)
{
	u64 val;

	raw->dev->vdev.config->get(&raw->dev->vdev,
				   sizeof(struct virtio_balloon_hp_config) - 4,
				   &val, sizeof(val));
}

/* back to where features are negotiated */
static struct virtio_device *raw_restart(struct raw *raw)
{
	struct virtio_device *vdev = &raw->dev->vdev;

	virtio_reset_device(vdev);
	virtio_add_status(vdev, VIRTIO_CONFIG_S_DRIVER);
	return vdev;
}

static void raw_accept_platform(struct raw *raw)
{
	struct virtio_device *vdev = raw_restart(raw);

	__virtio_set_bit(vdev, VIRTIO_F_ACCESS_PLATFORM);
	virtio_add_status(vdev, VIRTIO_CONFIG_S_FEATURES_OK);
	KUNIT_EXPECT_FALSE(raw->dev->test, vdev->config->get_status(vdev) &
			   VIRTIO_CONFIG_S_FEATURES_OK);
	__virtio_clear_bit(vdev, VIRTIO_F_ACCESS_PLATFORM);
}

static void raw_without_version_1(struct raw *raw)
{
	struct virtio_device *vdev = raw_restart(raw);

	__virtio_clear_bit(vdev, VIRTIO_F_VERSION_1);
	virtio_add_status(vdev, VIRTIO_CONFIG_S_FEATURES_OK);
}

static void raw_stats_without_feature(struct raw *raw)
{
	__virtio_clear_bit(&raw->dev->vdev, VIRTIO_BALLOON_HP_F_STATS);
	raw_stats_send(raw, 1, 0);
}

static const struct raw_case {
	const char *name;
	unsigned int drv;
	void (*fn)(struct raw *raw);
} raw_cases[] = {
	{ "no VERSION_1", 1, raw_without_version_1 },
	{ "ACCESS_PLATFORM", 2, raw_accept_platform },
	{ "queue without feature", 4, raw_stats_without_feature },
	{ "config written", 5, raw_config_write },
	{ "config read behind its end", 5, raw_config_behind },
	{ "two headers", 8, raw_header_twice },
	{ "header flags", 8, raw_header_flags },
	{ "wrong queue", 8, raw_wrong_queue },
	{ "size too large", 8, raw_size_too_large },
	{ "resp_size too small", 9, raw_resp_too_small },
	{ "unaligned range", 10, raw_unaligned },
	{ "too many ranges", 10, raw_too_many_ranges },
	{ "twice in one request", 11, raw_twice_in_one },
	{ "in another request", 11, raw_twice_in_flight },
	{ "reserved memory", 12, raw_not_ram },
	{ "behind memory", 12, raw_behind_memory },
	{ "inflated twice", 13, raw_inflate_twice },
	{ "written while out", 13, raw_write_while_out },
	{ "written in an inflate", 13, raw_write_in_flight },
	{ "written before the yes", 13, raw_write_before_yes },
	{ "used after a malformed answer", 15, raw_use_after_malformed },
	{ "written in a report", 19, raw_write_reported },
	{ "two stats buffers", 20, raw_stats_twice },
	{ "writable stats", 20, raw_stats_writable },
	{ "stats changed", 20, raw_stats_changed },
	{ "written before reset", 23, raw_write_before_reset },
	{ "queues deleted before reset", 23, raw_queues_before_reset },
};

static void raw_case_desc(const struct raw_case *c, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "DRV-%u %s", c->drv, c->name);
}

KUNIT_ARRAY_PARAM(raw, raw_cases, raw_case_desc);

static void device_notes_offence(struct kunit *test)
{
	const struct raw_case *c = test->param_value;
	struct raw *raw = raw_start(test);

	c->fn(raw);
	raw_expect_offence(raw, c->drv);
	raw_stop(raw);
	/* what was spoilt shows up once more when memory is compared */
	raw->dev->nr_offences = 0;
	memset(raw->dev->offences, 0, sizeof(raw->dev->offences));
}

static struct kunit_case device_cases[] = {
	KUNIT_CASE(device_accepts_correct_requests),
	KUNIT_CASE(device_answers_partially),
	KUNIT_CASE(device_answers_not_out),
	KUNIT_CASE(device_forgets_on_reset),
	KUNIT_CASE_PARAM(device_notes_offence, raw_gen_params),
	{}
};

HP_SUITE(virtio_balloon_hp_device, device_cases);

MODULE_DESCRIPTION("KUnit tests of the virtio-balloon-hp test device");
MODULE_LICENSE("GPL");
