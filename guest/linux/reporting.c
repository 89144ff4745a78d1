// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp: free page reporting.
 *
 * Theory of operation
 *
 * The kernel's page reporting takes free pages aside, up to 32 at a time, and
 * calls here; the device may drop their contents; after its answer they are
 * free pages again, without any deflate (DRV-19). Nothing becomes ballooned.
 *
 * What the guest expects to find in a free page decides whether that is
 * harmless: nothing (the usual case), zeroes (init_on_free), or a pattern
 * (page poisoning). With a pattern the feature is not negotiated. With zeroes,
 * pages that the device does not say read as zero are cleared here.
 *
 * Invariants
 *  - The pages do not go back before the device has answered, or has been
 *    reset: it could drop what somebody has written meanwhile.
 *
 * Rejected: a timeout that hands the pages back unanswered, for that reason.
 */
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/slab.h>

#include "balloon_hp.h"
#include "trace.h"

bool hpb_reporting_safe(void)
{
	return !page_poisoning_enabled_static();
}

static void hpb_clear_pages(struct scatterlist *sgl, unsigned int nents)
{
	struct scatterlist *sg;
	unsigned int i, off;

	for_each_sg(sgl, sg, nents, i) {
		for (off = 0; off < sg->length; off += PAGE_SIZE)
			clear_highpage(sg_page(sg) + (off >> PAGE_SHIFT));
		cond_resched();
	}
}

/* @resets: set to the number of resets at which the request was sent */
static int hpb_report_send(struct hpb *bh, struct scatterlist *sgl, u64 size,
			   unsigned int *resets)
{
	struct scatterlist req, resp, *sgs[3] = { &req, &resp, sgl };
	struct virtqueue *vq;
	unsigned long flags;
	bool notify = false;
	int err = -ENODEV;

	*bh->report_req = (struct virtio_balloon_hp_req){
		.type = cpu_to_le16(VIRTIO_BALLOON_HP_REQ_REPORT),
		.resp_size = cpu_to_le32(HPB_RESP_SIZE),
		.size = cpu_to_le64(size),
	};
	sg_init_one(&req, bh->report_req, sizeof(*bh->report_req));
	sg_init_one(&resp, bh->report_resp, HPB_RESP_SIZE);

	spin_lock_irqsave(&bh->vq_lock, flags);
	vq = bh->vqs[VIRTIO_BALLOON_HP_VQ_REPORTING];
	bh->report_answered = false;
	*resets = bh->resets;
	if (hpb_running(bh))
		err = virtqueue_add_sgs(vq, sgs, 1, 2, bh,
					GFP_NOWAIT | __GFP_NOWARN);
	if (!err)
		notify = virtqueue_kick_prepare(vq);
	spin_unlock_irqrestore(&bh->vq_lock, flags);

	if (notify)
		virtqueue_notify(vq);
	return err;
}

void hpb_reporting_answered(struct virtqueue *vq)
{
	struct hpb *bh = vq->vdev->priv;
	unsigned long flags;
	u32 used;

	spin_lock_irqsave(&bh->vq_lock, flags);
	if (virtqueue_get_buf(vq, &used)) {
		bh->report_used = used;
		WRITE_ONCE(bh->report_answered, true);
	}
	spin_unlock_irqrestore(&bh->vq_lock, flags);
	wake_up_all(&bh->answered);
}

/* What page reporting should make of an answer. */
static int hpb_report_result(const struct hpb_answer *a)
{
	u32 i;

	if (a->status != VIRTIO_BALLOON_HP_OK && !a->nr)
		return hpb_status_errno(a->status) == -EAGAIN ? -EAGAIN : -EBUSY;
	/* A refusal for good counts as reported, or it would come again. */
	for (i = 0; i < a->nr; i++) {
		switch (hpb_status_errno(le16_to_cpu(a->exc[i].status))) {
		case -EBUSY:
		case -EAGAIN:
		case -ENOMEM:
		case -EIO:
			return -EBUSY;
		}
	}
	return 0;
}

static int hpb_report(struct page_reporting_dev_info *info,
		      struct scatterlist *sgl, unsigned int nents)
{
	struct hpb *bh = container_of(info, struct hpb, reporting);
	struct hpb_answer answer = {};
	struct scatterlist *sg;
	unsigned int i, resets;
	const char *why;
	u64 size = 0;
	int err;

	hpb_wake(bh);
	if (!hpb_running(bh))
		return -ENODEV;
	for_each_sg(sgl, sg, nents, i) {
		if (sg->length & (bh->unit - 1))
			return -EINVAL;
		size += sg->length;
	}
	err = hpb_report_send(bh, sgl, size, &resets);
	if (err)
		return err;
	trace_hpb_request(bh->vdev->index, VIRTIO_BALLOON_HP_REQ_REPORT, nents,
			  size);
	hpb_count(bh, HPB_C_REPORTS, 1);

	wait_event(bh->answered, READ_ONCE(bh->report_answered) ||
		   READ_ONCE(bh->resets) != resets);
	err = -ENODEV;
	if (READ_ONCE(bh->report_answered)) {
		why = hpb_answer_parse(&answer, bh->report_resp, HPB_RESP_SIZE,
				       bh->report_used,
				       div64_u64(size, bh->unit), bh->unit);
		if (!why) {
			err = hpb_report_result(&answer);
		} else {
			/* It may still drop the pages: not before a reset. */
			hpb_broken(bh, why);
			wait_event(bh->answered, READ_ONCE(bh->resets) != resets);
		}
	}

	if (want_init_on_free() && !(answer.zeroed && !answer.nr))
		hpb_clear_pages(sgl, nents);
	if (!err)
		hpb_count(bh, HPB_C_REPORT_BYTES, size);
	return err;
}

int hpb_reporting_init(struct hpb *bh)
{
	int err;

	if (!virtio_has_feature(bh->vdev, VIRTIO_BALLOON_HP_F_REPORTING))
		return 0;
	if (!bh->vqs[VIRTIO_BALLOON_HP_VQ_REPORTING])
		return -ENXIO;
	if (bh->unit > (u64)pageblock_nr_pages << PAGE_SHIFT) {
		dev_warn(&bh->vdev->dev,
			 "free pages are not reported: the device's unit of %llu bytes is larger than what the kernel reports (%lu bytes)\n",
			 bh->unit, pageblock_nr_pages << PAGE_SHIFT);
		return 0;
	}

	bh->report_req = kzalloc(sizeof(*bh->report_req), GFP_KERNEL);
	bh->report_resp = kzalloc(HPB_RESP_SIZE, GFP_KERNEL);
	if (!bh->report_req || !bh->report_resp) {
		err = -ENOMEM;
		goto free;
	}
	bh->reporting.report = hpb_report;
	bh->reporting.order = pageblock_order;
	err = page_reporting_register(&bh->reporting);
	if (err)
		goto free;
	bh->reporting_on = true;
	return 0;

free:
	kfree(bh->report_req);
	kfree(bh->report_resp);
	bh->report_req = NULL;
	bh->report_resp = NULL;
	return err;
}

void hpb_reporting_exit(struct hpb *bh)
{
	if (bh->reporting_on)
		page_reporting_unregister(&bh->reporting);
	kfree(bh->report_req);
	kfree(bh->report_resp);
}
