// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp [3] queue: one request, many ranges, and its answer.
 *
 * Theory of operation
 *
 * A request lives in a slot, allocated at probe. Whoever fills a slot hands it
 * to the device (SENT); the interrupt takes it out of the virtqueue (ANSWERED)
 * and wakes whoever waits; somebody claims it (SETTLING), acts on the answer
 * and frees it. The interrupt does not interpret anything.
 *
 *   FREE -> FILLING -> SENT -> ANSWERED -> SETTLING -> FREE
 *              |                              |
 *              +-> FREE (not sent)            +-> LOST (answer made no sense)
 *
 * The ranges are the device-writable descriptors behind the response (DRV-8):
 * sg entries of the pages themselves, which the kernel never maps or touches.
 *
 * Invariants
 *  - Blocks in a slot that is SENT, ANSWERED or LOST belong to the device.
 *  - A request fits into an empty ring without an indirect table, so sending
 *    never depends on memory: at worst it waits for earlier answers.
 *  - No wait is endless without the log saying so; a queue that is broken, or
 *    a driver that goes away, ends it.
 *
 * Rejected: waiting in the interrupt's completion for one request after the
 * other, as the traditional driver does. Half of the time one side would idle.
 */
#include <linux/export.h>
#include <linux/slab.h>

#include "balloon_hp.h"
#include "trace.h"

int hpb_status_errno(u16 status)
{
	switch (status) {
	case VIRTIO_BALLOON_HP_OK:
	case VIRTIO_BALLOON_HP_PARTIAL:
		return 0;
	case VIRTIO_BALLOON_HP_INVAL:
		return -EINVAL;
	case VIRTIO_BALLOON_HP_NOT_RAM:
		return -ENXIO;
	case VIRTIO_BALLOON_HP_ALREADY_OUT:
		return -EEXIST;
	case VIRTIO_BALLOON_HP_NOT_OUT:
		return -ENOENT;
	case VIRTIO_BALLOON_HP_OVERLAP:
		return -EALREADY;
	case VIRTIO_BALLOON_HP_NOMEM:
		return -ENOMEM;
	case VIRTIO_BALLOON_HP_DENIED:
		return -EPERM;
	case VIRTIO_BALLOON_HP_BUSY:
		return -EBUSY;
	case VIRTIO_BALLOON_HP_IO:
		return -EIO;
	case VIRTIO_BALLOON_HP_AGAIN:
		return -EAGAIN;
	case VIRTIO_BALLOON_HP_UNSUPP:
		return -EOPNOTSUPP;
	default:
		return -EPROTO;
	}
}
EXPORT_SYMBOL_IF_KUNIT(hpb_status_errno);

static bool hpb_slot_may(enum hpb_slot_state from, enum hpb_slot_state to)
{
	switch (to) {
	case HPB_SLOT_FREE:	/* also by recovery after a reset, from any */
		return true;
	case HPB_SLOT_FILLING:
		return from == HPB_SLOT_FREE;
	case HPB_SLOT_SENT:
		return from == HPB_SLOT_FILLING;
	case HPB_SLOT_ANSWERED:
		return from == HPB_SLOT_SENT;
	case HPB_SLOT_SETTLING:
		return from == HPB_SLOT_ANSWERED;
	case HPB_SLOT_LOST:
		return from == HPB_SLOT_SETTLING;
	}
	return false;
}

/* The one place that changes a slot's state. */
static void hpb_slot_set(struct hpb *bh, struct hpb_slot *slot,
			 enum hpb_slot_state state)
{
	lockdep_assert_held(&bh->vq_lock);
	WARN_ON_ONCE(!hpb_slot_may(slot->state, state));
	WRITE_ONCE(slot->state, state);
}

void hpb_slot_put(struct hpb *bh, struct hpb_slot *slot,
		  enum hpb_slot_state state)
{
	unsigned long flags;

	spin_lock_irqsave(&bh->vq_lock, flags);
	hpb_slot_set(bh, slot, state);
	spin_unlock_irqrestore(&bh->vq_lock, flags);
	wake_up_all(&bh->answered);
}

bool hpb_slot_claim(struct hpb *bh, struct hpb_slot *slot,
		    enum hpb_slot_state from, enum hpb_slot_state to)
{
	unsigned long flags;
	bool mine;

	spin_lock_irqsave(&bh->vq_lock, flags);
	mine = slot->state == from;
	if (mine)
		hpb_slot_set(bh, slot, to);
	spin_unlock_irqrestore(&bh->vq_lock, flags);
	return mine;
}

static void hpb_slot_free(struct hpb_slot *slot, bool own_sg)
{
	kfree(slot->req);
	kfree(slot->resp);
	kfree(slot->copy);
	kvfree(slot->ranges);
	if (own_sg)
		kvfree(slot->sg);
	memset(slot, 0, sizeof(*slot));
}

/* @sg: scatterlist to share, or NULL for one of the slot's own. */
static int hpb_slot_alloc(struct hpb_slot *slot, unsigned int cap,
			  struct scatterlist *sg)
{
	slot->cap = cap;
	slot->req = kzalloc(sizeof(*slot->req), GFP_KERNEL);
	slot->resp = kzalloc(HPB_RESP_SIZE, GFP_KERNEL);
	slot->copy = kzalloc(HPB_RESP_SIZE, GFP_KERNEL);
	slot->ranges = kvcalloc(cap, sizeof(*slot->ranges), GFP_KERNEL);
	slot->sg = sg ?: kvcalloc(cap, sizeof(*slot->sg), GFP_KERNEL);
	if (!slot->req || !slot->resp || !slot->copy || !slot->ranges ||
	    !slot->sg)
		return -ENOMEM;
	return 0;
}

void hpb_slots_free(struct hpb *bh)
{
	unsigned int i;

	for (i = 0; i < HPB_SLOTS; i++)
		hpb_slot_free(&bh->slots[i], !i);
	hpb_slot_free(&bh->oom_slot, true);
}

int hpb_slots_alloc(struct hpb *bh)
{
	unsigned int i, cap = bh->max_ranges;
	int err = 0;

	/* hpb.op serializes who fills slots, so they share a scatterlist. */
	for (i = 0; i < HPB_SLOTS && !err; i++)
		err = hpb_slot_alloc(&bh->slots[i], cap, bh->slots[0].sg);
	if (!err)
		err = hpb_slot_alloc(&bh->oom_slot,
				     min_t(unsigned int, cap, HPB_OOM_BATCH), NULL);
	if (err)
		hpb_slots_free(bh);
	return err;
}

static struct virtqueue *hpb_slot_vq(struct hpb *bh, struct hpb_slot *slot)
{
	return bh->vqs[slot->type == VIRTIO_BALLOON_HP_REQ_INFLATE ?
		       VIRTIO_BALLOON_HP_VQ_INFLATE :
		       VIRTIO_BALLOON_HP_VQ_DEFLATE];
}

static void hpb_slot_count(struct hpb *bh, struct hpb_slot *slot)
{
	bool inflate = slot->type == VIRTIO_BALLOON_HP_REQ_INFLATE;

	hpb_count(bh, inflate ? HPB_C_INFLATE_REQS : HPB_C_DEFLATE_REQS, 1);
	hpb_count(bh, inflate ? HPB_C_INFLATE_RANGES : HPB_C_DEFLATE_RANGES,
		  slot->nr);
	trace_hpb_request(bh->vdev->index, slot->type, slot->nr,
			  (u64)slot->blocks << bh->shift);
}

int hpb_send(struct hpb *bh, struct hpb_slot *slot, gfp_t gfp)
{
	struct scatterlist req, resp, *sgs[3] = { &req, &resp, slot->sg };
	struct virtqueue *vq = hpb_slot_vq(bh, slot);
	unsigned long flags;
	unsigned int i;
	bool notify = false;
	int err = -ENODEV;

	*slot->req = (struct virtio_balloon_hp_req){
		.type = cpu_to_le16(slot->type),
		.resp_size = cpu_to_le32(HPB_RESP_SIZE),
		.size = cpu_to_le64((u64)slot->blocks << bh->shift),
	};
	sg_init_one(&req, slot->req, sizeof(*slot->req));
	sg_init_one(&resp, slot->resp, HPB_RESP_SIZE);
	sg_init_table(slot->sg, slot->nr);
	for (i = 0; i < slot->nr; i++)
		sg_set_page(&slot->sg[i],
			    hpb_block_page(bh, slot->ranges[i].first),
			    slot->ranges[i].count << bh->shift, 0);

	/*
	 * Counted first: once the device has the request its answer may be
	 * there, and settled, before this function goes on.
	 */
	spin_lock_irqsave(&bh->vq_lock, flags);
	if (hpb_running(bh))
		err = virtqueue_add_sgs(vq, sgs, 1, 2, slot, gfp);
	if (!err) {
		hpb_slot_set(bh, slot, HPB_SLOT_SENT);
		hpb_slot_count(bh, slot);
		notify = virtqueue_kick_prepare(vq);
	}
	spin_unlock_irqrestore(&bh->vq_lock, flags);

	if (notify)
		virtqueue_notify(vq);
	return err;
}

void hpb_vq_answered(struct virtqueue *vq)
{
	struct hpb *bh = vq->vdev->priv;
	struct hpb_slot *slot;
	unsigned long flags;
	void *token;
	u32 used;

	spin_lock_irqsave(&bh->vq_lock, flags);
	do {
		virtqueue_disable_cb(vq);
		while ((token = virtqueue_get_buf(vq, &used))) {
			if (hpb_tell_answered(bh, token))
				continue;
			slot = token;
			slot->used = used;
			hpb_slot_set(bh, slot, HPB_SLOT_ANSWERED);
			/* The notifier may have given up waiting. */
			if (slot == &bh->oom_slot)
				hpb_kick(bh);
		}
	} while (!virtqueue_is_broken(vq) && !virtqueue_enable_cb(vq));
	spin_unlock_irqrestore(&bh->vq_lock, flags);

	wake_up_all(&bh->answered);
}

static bool hpb_any_slot(struct hpb *bh, enum hpb_slot_state state)
{
	unsigned int i;

	for (i = 0; i < HPB_SLOTS; i++)
		if (READ_ONCE(bh->slots[i].state) == state)
			return true;
	return false;
}

bool hpb_answered(struct hpb *bh)
{
	return hpb_any_slot(bh, HPB_SLOT_ANSWERED);
}

bool hpb_in_flight(struct hpb *bh)
{
	return hpb_any_slot(bh, HPB_SLOT_SENT) ||
	       hpb_any_slot(bh, HPB_SLOT_ANSWERED);
}

bool hpb_failed(struct hpb *bh)
{
	/* A device that vanishes breaks its queues, and wakes nobody. */
	if (virtqueue_is_broken(bh->vqs[VIRTIO_BALLOON_HP_VQ_INFLATE]))
		hpb_broken(bh, "its queues are gone");
	else if (bh->vdev->config->get_status(bh->vdev) &
		 VIRTIO_CONFIG_S_NEEDS_RESET)
		hpb_broken(bh, "it asks to be reset");
	return !hpb_running(bh);
}

/* Whether there is something to act on, or nobody who would answer. */
static bool hpb_wait_is_over(struct hpb *bh)
{
	return hpb_answered(bh) || READ_ONCE(bh->abandon) || !hpb_running(bh);
}

bool hpb_wait_until(struct hpb *bh, unsigned long until)
{
	long left = until - jiffies;

	if (left > 0)
		wait_event_timeout(bh->answered, hpb_wait_is_over(bh), left);
	return hpb_answered(bh);
}

int hpb_wait(struct hpb *bh)
{
	unsigned int seconds = 0;

	while (!wait_event_timeout(bh->answered, hpb_wait_is_over(bh), HZ)) {
		if (hpb_failed(bh))
			break;
		seconds++;
		if ((READ_ONCE(bh->stopping) || atomic_read(&bh->holds)) &&
		    seconds >= HPB_ANSWER_LIMIT)
			return -ETIMEDOUT;
		if (seconds == HPB_ANSWER_WARN)
			dev_warn(&bh->vdev->dev,
				 "a request has not been answered for %u s, waiting: look at the host's load and at QEMU's log\n",
				 HPB_ANSWER_WARN);
	}
	if (hpb_answered(bh))
		return 0;
	return hpb_running(bh) ? -ETIMEDOUT : -EIO;
}

struct hpb_slot *hpb_slot_get(struct hpb *bh, u16 type)
{
	struct hpb_slot *slot;
	unsigned int i;

	lockdep_assert_held(&bh->op);
	for (i = 0; i < HPB_SLOTS; i++) {
		slot = &bh->slots[i];
		if (hpb_slot_claim(bh, slot, HPB_SLOT_FREE, HPB_SLOT_FILLING)) {
			slot->type = type;
			slot->from = NULL;
			slot->marked = 0;
			slot->nr = 0;
			slot->blocks = 0;
			return slot;
		}
	}
	return NULL;
}

void hpb_slots_recover(struct hpb *bh)
{
	unsigned int i, r;

	for (i = 0; i <= HPB_SLOTS; i++) {
		struct hpb_slot *slot = i < HPB_SLOTS ? &bh->slots[i] :
							&bh->oom_slot;
		enum hpb_slot_state state = READ_ONCE(slot->state);

		if (state != HPB_SLOT_SENT && state != HPB_SLOT_ANSWERED &&
		    state != HPB_SLOT_LOST)
			continue;
		spin_lock(&bh->lock);
		for (r = 0; r < slot->nr; r++)
			hpb_pool_put(bh, &bh->idle, slot->ranges[r]);
		spin_unlock(&bh->lock);
		hpb_slot_put(bh, slot, HPB_SLOT_FREE);
	}
}
