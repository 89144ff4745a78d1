/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-balloon-hp: requests, and the slots they are in; see queue.c [3].
 */
#ifndef HPB_QUEUE_H
#define HPB_QUEUE_H

#include <linux/scatterlist.h>
#include <linux/types.h>

#include "virtio_balloon_hp.h"

struct hpb;
struct hpb_pool;
struct hpb_range;
struct virtqueue;

/* Room for a response with 254 exceptions. */
#define HPB_RESP_SIZE		(sizeof(struct virtio_balloon_hp_resp) + \
				 254 * sizeof(struct virtio_balloon_hp_exception))

/* State of a request slot. Set by hpb_slot_set() only. */
enum hpb_slot_state {
	HPB_SLOT_FREE,		/* nothing in it */
	HPB_SLOT_FILLING,	/* owned by who fills it */
	HPB_SLOT_SENT,		/* owned by the device */
	HPB_SLOT_ANSWERED,	/* answer has arrived and nobody has looked */
	HPB_SLOT_SETTLING,	/* owned by who acts on the answer */
	HPB_SLOT_LOST,		/* answer made no sense; blocks stay here */
};

/**
 * struct hpb_slot - one request
 * @state:  protected by hpb.vq_lock
 * @type:   VIRTIO_BALLOON_HP_REQ_*
 * @cap:    entries in @ranges
 * @nr:     ranges in the request
 * @blocks: blocks in the request
 * @used:   used length of the answer
 * @from:   pool that the blocks come from and belong to if nothing happens to
 *          them; NULL if they come from the page allocator
 * @marked: inflate: blocks whose pages are marked PageOffline, from the first
 * @ranges: the ranges, in the order in which they were sent
 * @sg:     scatterlist with @cap entries; only used while the request is added
 * @req:    device-readable part
 * @resp:   response, HPB_RESP_SIZE bytes, the device writes here
 * @copy:   the response once more, where the device cannot change it
 */
struct hpb_slot {
	enum hpb_slot_state state;
	u16 type;
	unsigned int cap;
	unsigned int nr;
	unsigned long blocks;
	u32 used;
	struct hpb_pool *from;
	unsigned long marked;
	struct hpb_range *ranges;
	struct scatterlist *sg;
	struct virtio_balloon_hp_req *req;
	void *resp;
	void *copy;
};

/**
 * hpb_status_errno() - the one place where statuses become errnos
 * @status: VIRTIO_BALLOON_HP_*
 *
 * Return: 0 or a negative errno; -EPROTO for a status this driver does not know.
 */
int hpb_status_errno(u16 status);

int hpb_slots_alloc(struct hpb *bh);
void hpb_slots_free(struct hpb *bh);

/**
 * hpb_slot_get() - a free slot
 * @bh:   balloon; @bh->op is held
 * @type: VIRTIO_BALLOON_HP_REQ_*
 *
 * Return: slot in state FILLING, NULL if all are in use.
 */
struct hpb_slot *hpb_slot_get(struct hpb *bh, u16 type);

/* Change a slot's state; the caller is its owner. */
void hpb_slot_put(struct hpb *bh, struct hpb_slot *slot,
		  enum hpb_slot_state state);

/**
 * hpb_slot_claim() - claim a slot in a given state
 * @from: state it must have
 * @to:   state it gets
 *
 * Return: true if the slot now belongs to the caller.
 */
bool hpb_slot_claim(struct hpb *bh, struct hpb_slot *slot,
		    enum hpb_slot_state from, enum hpb_slot_state to);

/**
 * hpb_send() - make a request available
 * @bh:   balloon
 * @slot: filled slot; on success the device's
 * @gfp:  for the indirect table; without one the ring itself is used
 *
 * Return: 0, -ENOSPC if the ring is full, -ENODEV if the device is not running.
 */
int hpb_send(struct hpb *bh, struct hpb_slot *slot, gfp_t gfp);

/**
 * hpb_wait() - wait until some request has been answered
 * @bh: balloon
 *
 * Return: 0, -EIO if the device broke, -ETIMEDOUT if waiting is bounded and
 * nothing was answered in HPB_ANSWER_LIMIT seconds, or if it is pointless.
 */
int hpb_wait(struct hpb *bh);

/**
 * hpb_wait_until() - wait for an answer, but not long
 * @bh:    balloon
 * @until: jiffies; may have passed
 *
 * Return: whether there is one.
 */
bool hpb_wait_until(struct hpb *bh, unsigned long until);

/**
 * hpb_failed() - notice that the device cannot answer any more
 * @bh: balloon; its queues are set up
 *
 * Return: whether requests are over, for this reason or another.
 */
bool hpb_failed(struct hpb *bh);

/* Whether there is an answer to act on, the OOM notifier's apart. */
bool hpb_answered(struct hpb *bh);

/* Whether requests other than the OOM notifier's are with the device. */
bool hpb_in_flight(struct hpb *bh);

/* Virtqueue callback of the inflate and the deflate queue. */
void hpb_vq_answered(struct virtqueue *vq);

/**
 * hpb_slots_recover() - after a device reset: blocks of all requests are ours
 * @bh: balloon; the device has been reset, its callbacks do not run any more
 */
void hpb_slots_recover(struct hpb *bh);

#endif /* HPB_QUEUE_H */
