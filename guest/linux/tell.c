// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp: tell the host how the guest stands.
 *
 * Theory of operation
 *
 * A host that has asked for memory and does not get it wants to know why, and
 * one that has memory wants to know which guest lacks it. With
 * VIRTIO_BALLOON_HP_F_STATE the driver says both, in a request without ranges:
 * when the reason for stopping changes, and when the guest becomes short of
 * memory or is so no more (DRV-26). A resize that simply works sends none.
 *
 * There is one message. While the device has it, news wait for the answer.
 * It travels on the inflate queue, beside the slots, and nobody waits for it.
 *
 * Rejected: putting it into the statistics. The host would have to ask.
 */
#include <linux/slab.h>

#include "balloon_hp.h"
#include "trace.h"

/* What the device reads, and the room for its answer. */
struct hpb_message {
	struct virtio_balloon_hp_req req;
	struct virtio_balloon_hp_state state;
	u8 resp[VIRTIO_BALLOON_HP_RESP_SIZE_MIN] ____cacheline_aligned;
};

static u16 hpb_stop_wire(enum hpb_stop stop)
{
	switch (stop) {
	case HPB_STOP_NONE:
	case HPB_STOP_DEVICE:	/* who is broken is not told anything */
		return VIRTIO_BALLOON_HP_STOP_NONE;
	case HPB_STOP_NO_BLOCKS:
		return VIRTIO_BALLOON_HP_STOP_FRAGMENTED;
	case HPB_STOP_FLOOR:
		return VIRTIO_BALLOON_HP_STOP_FLOOR;
	case HPB_STOP_RECLAIM:
		return VIRTIO_BALLOON_HP_STOP_RECLAIM;
	case HPB_STOP_OOM:
		return VIRTIO_BALLOON_HP_STOP_PRESSURE;
	case HPB_STOP_REFUSED:
		return VIRTIO_BALLOON_HP_STOP_REFUSED;
	case HPB_STOP_HOST:
		return VIRTIO_BALLOON_HP_STOP_HOST;
	case HPB_STOP_NOMEM:
		return VIRTIO_BALLOON_HP_STOP_NOMEM;
	}
	return VIRTIO_BALLOON_HP_STOP_NONE;
}

static struct hpb_told hpb_standing(struct hpb *bh)
{
	struct hpb_told now = {
		.wanted = min(hpb_shortage(bh), (u64)hpb_out(bh) << bh->shift),
	};

	spin_lock(&bh->lock);
	now.stop = hpb_stop_wire(bh->stop);
	spin_unlock(&bh->lock);
	now.requested = READ_ONCE(bh->requested);
	return now;
}

bool hpb_is_news(const struct hpb_told *old, const struct hpb_told *now)
{
	if (now->stop != old->stop || !now->wanted != !old->wanted)
		return true;
	/* Wants change all the time: only when they double. */
	if (now->wanted / 2 >= old->wanted && now->wanted)
		return true;
	return now->stop != VIRTIO_BALLOON_HP_STOP_NONE &&
	       now->requested != old->requested;
}
EXPORT_SYMBOL_IF_KUNIT(hpb_is_news);

static int hpb_tell_send(struct hpb *bh, const struct hpb_told *now)
{
	struct hpb_message *m = bh->message;
	struct scatterlist msg, resp, *sgs[2] = { &msg, &resp };

	lockdep_assert_held(&bh->vq_lock);
	m->req = (struct virtio_balloon_hp_req){
		.type = cpu_to_le16(VIRTIO_BALLOON_HP_REQ_STATE),
		.resp_size = cpu_to_le32(sizeof(m->resp)),
	};
	m->state = (struct virtio_balloon_hp_state){
		.stop = cpu_to_le16(now->stop),
		.requested = cpu_to_le64(now->requested),
		.available = cpu_to_le64((u64)max(si_mem_available(), 0L) << PAGE_SHIFT),
		.wanted = cpu_to_le64(now->wanted),
	};
	sg_init_one(&msg, m, offsetofend(struct hpb_message, state));
	sg_init_one(&resp, m->resp, sizeof(m->resp));
	return virtqueue_add_sgs(bh->vqs[VIRTIO_BALLOON_HP_VQ_INFLATE], sgs,
				 1, 1, m, GFP_NOWAIT | __GFP_NOWARN);
}

static void hpb_tell_work(struct work_struct *work)
{
	struct hpb *bh = container_of(work, struct hpb, tell_work);
	struct hpb_told now = hpb_standing(bh);
	unsigned long flags;
	bool notify = false;

	spin_lock_irqsave(&bh->vq_lock, flags);
	bh->tell_again = false;
	if (hpb_running(bh) && hpb_is_news(&bh->told_host, &now)) {
		/* Busy, or no room: the next answer brings us here again. */
		bh->tell_again = bh->tell_busy || hpb_tell_send(bh, &now);
		if (!bh->tell_again) {
			bh->tell_busy = true;
			bh->told_host = now;
			notify = virtqueue_kick_prepare(bh->vqs[VIRTIO_BALLOON_HP_VQ_INFLATE]);
			hpb_count(bh, HPB_C_STATES, 1);
		}
	}
	spin_unlock_irqrestore(&bh->vq_lock, flags);
	if (notify)
		virtqueue_notify(bh->vqs[VIRTIO_BALLOON_HP_VQ_INFLATE]);
}

void hpb_tell(struct hpb *bh)
{
	if (bh->message && !READ_ONCE(bh->stopping))
		queue_work(bh->wq, &bh->tell_work);
}

bool hpb_tell_answered(struct hpb *bh, void *token)
{
	lockdep_assert_held(&bh->vq_lock);
	if (token == bh->message)
		bh->tell_busy = false;
	if (bh->tell_again)
		hpb_tell(bh);
	return token == bh->message;
}

int hpb_tell_init(struct hpb *bh)
{
	INIT_WORK(&bh->tell_work, hpb_tell_work);
	if (!virtio_has_feature(bh->vdev, VIRTIO_BALLOON_HP_F_STATE))
		return 0;
	bh->message = kzalloc(sizeof(*bh->message), GFP_KERNEL);
	return bh->message ? 0 : -ENOMEM;
}

void hpb_tell_stop(struct hpb *bh)
{
	cancel_work_sync(&bh->tell_work);
}

void hpb_tell_reset(struct hpb *bh)
{
	cancel_work_sync(&bh->tell_work);
	bh->tell_busy = false;
	bh->tell_again = false;
	memset(&bh->told_host, 0, sizeof(bh->told_host));
}

void hpb_tell_exit(struct hpb *bh)
{
	kfree(bh->message);
}
