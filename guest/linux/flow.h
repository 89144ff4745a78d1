/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-balloon-hp: what answers mean for the pass they belong to; see flow.c.
 */
#ifndef HPB_FLOW_H
#define HPB_FLOW_H

#include <linux/types.h>

struct hpb;
struct hpb_slot;

/*
 * What to do about an errno from hpb_status_errno(). In ascending order of how
 * much they say about a pass: if some blocks may work later, there is a later.
 */
enum hpb_verdict {
	HPB_FINE,	/* nothing to do */
	HPB_NOW,	/* try again at once */
	HPB_NEVER,	/* trying again does not help, only another target does */
	HPB_LATER,	/* try again after a delay */
};

enum hpb_verdict hpb_judge(int err);

/**
 * struct hpb_tally - what became of the blocks of some requests
 * @done:   blocks
 * @failed: blocks
 * @err:    errno of the worst failure
 */
struct hpb_tally {
	unsigned long done;
	unsigned long failed;
	int err;
};

void hpb_tally_add(struct hpb_tally *t, unsigned long done, unsigned long failed,
		   int err);

/**
 * hpb_settle() - act on an answer
 * @bh:    balloon
 * @slot:  slot in state SETTLING; is FREE (or LOST) afterwards
 * @tally: added to
 */
void hpb_settle(struct hpb *bh, struct hpb_slot *slot, struct hpb_tally *tally);

/**
 * hpb_mark_all() - mark all pages that are out, or may be
 * @bh: balloon; @bh->op is held
 */
void hpb_mark_all(struct hpb *bh);

/* Whether enough is unmarked, or has been for long enough, for hpb_mark_all(). */
bool hpb_mark_due(struct hpb *bh);

/* Act on all answers there are. @bh->op is held. */
void hpb_reap(struct hpb *bh, struct hpb_tally *tally);

/**
 * hpb_drain() - act on answers until no request is outstanding
 * @bh:    balloon; @bh->op is held
 * @tally: added to
 *
 * Return: 0, or as hpb_wait().
 */
int hpb_drain(struct hpb *bh, struct hpb_tally *tally);

/**
 * hpb_next_slot() - a slot to fill, waiting for one if need be
 * @bh:    balloon; @bh->op is held
 * @type:  VIRTIO_BALLOON_HP_REQ_*
 * @tally: added to
 *
 * Return: slot in state FILLING, or NULL with the reason in @tally.
 */
struct hpb_slot *hpb_next_slot(struct hpb *bh, u16 type,
			       struct hpb_tally *tally);

/**
 * hpb_send_wait() - hpb_send() that waits for room in the ring
 * @bh:    balloon; @bh->op is held
 * @slot:  filled slot
 * @tally: added to
 *
 * Return: as hpb_send() and hpb_wait().
 */
int hpb_send_wait(struct hpb *bh, struct hpb_slot *slot, struct hpb_tally *tally);

#endif /* HPB_FLOW_H */
