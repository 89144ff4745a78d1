// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit device, step [4] of the path: parse, check, decide, answer.
 *
 * A request goes through take (off the ring), parse (DRV-8 to DRV-10, the
 * frame), claim (DRV-11 and DRV-12, unit by unit; memory gets its pattern),
 * decide (the test's script) and answer (DRV-13: the pattern must still be
 * there). An offence is noted, not answered cleverly: the request is
 * refused as a whole, the books stay right, and the test fails at its end.
 *
 * All of it runs under hp_dev.lock, on the device's thread or, for answers that
 * a test has delayed, on the test's.
 */
#include <linux/minmax.h>
#include <linux/string.h>

#include "hp_device.h"

static bool hp_running(struct hp_dev *dev)
{
	return (dev->status & VIRTIO_CONFIG_S_DRIVER_OK) &&
	       !(dev->status & VIRTIO_CONFIG_S_NEEDS_RESET);
}

static const char *hp_type_name(u16 type)
{
	switch (type) {
	case VIRTIO_BALLOON_HP_REQ_INFLATE:
		return "inflate";
	case VIRTIO_BALLOON_HP_REQ_DEFLATE:
		return "deflate";
	case VIRTIO_BALLOON_HP_REQ_REPORT:
		return "report";
	case VIRTIO_BALLOON_HP_REQ_STATE:
		return "state";
	default:
		return "unknown";
	}
}

static u16 hp_queue_type(struct hp_queue *q)
{
	switch (q->index) {
	case VIRTIO_BALLOON_HP_VQ_INFLATE:
		return VIRTIO_BALLOON_HP_REQ_INFLATE;
	case VIRTIO_BALLOON_HP_VQ_DEFLATE:
		return VIRTIO_BALLOON_HP_REQ_DEFLATE;
	default:
		return VIRTIO_BALLOON_HP_REQ_REPORT;
	}
}

/*
 * Walks the units of a request in order; begins with *@r == NULL.
 * Return: false behind the last one.
 */
static bool hp_next_unit(struct hp_dev *dev, struct hp_request *req,
			 struct hp_range **r, u64 *addr)
{
	if (*r) {
		*addr += dev->mem.unit;
		if (*addr - (*r)->addr < (*r)->len)
			return true;
		(*r)++;
	} else {
		*r = req->range;
	}
	if (*r == req->range + req->nr_ranges)
		return false;
	*addr = (*r)->addr;
	return true;
}

static void hp_put_used(struct hp_queue *q, u16 head, u32 len)
{
	vringh_complete_iotlb(&q->vrh, head, len);
	if (vringh_need_notify_iotlb(&q->vrh) > 0)
		hp_irq(q->dev, q->index);
}

void hp_refuse(struct hp_request *req, u32 first, u32 count, u16 status)
{
	struct hp_exception *last = &req->exc[req->nr_exc - 1];

	if (req->nr_exc && last->first + last->count == first &&
	    last->status == status) {
		last->count += count;
		return;
	}
	/* the list is longer than a response: hp_fit() cuts before its end */
	if (req->nr_exc == HP_EXCEPTIONS)
		return;
	req->exc[req->nr_exc++] = (struct hp_exception) {
		.first = first, .count = count, .status = status,
	};
}

/* Notes the first of the units that was touched while the device had it. */
static void hp_verify(struct hp_dev *dev, u64 addr, unsigned int drv,
		      const char *when)
{
	u64 off = hp_poison_find(addr, dev->mem.unit);

	if (off != dev->mem.unit)
		hp_offence(dev, drv, "%llx was written %s", addr + off, when);
}

void hp_queue_verify_all(struct hp_dev *dev, unsigned int drv)
{
	struct hp_memory *m = &dev->mem;
	u64 addr;

	for (addr = hp_memory_next(m, 0, false); addr < m->end;
	     addr = hp_memory_next(m, addr + m->unit, false))
		hp_verify(dev, addr, drv, "while out");
	for (addr = hp_memory_next(m, 0, true); addr < m->end;
	     addr = hp_memory_next(m, addr + m->unit, true))
		if (!hp_memory_is_out(m, addr))
			hp_verify(dev, addr, drv, "while in a request");
}

/* The frame: header, sizes, cut of the ranges. */
static bool hp_parse_ranges(struct hp_dev *dev, struct hp_request *req, u64 wlen)
{
	struct vringh_kiov *w = &req->wiov;
	u64 skip = req->resp_size, at = 0;
	unsigned int i;

	for (i = 0; i < w->used; i++) {
		u64 addr = (u64)(uintptr_t)w->iov[i].iov_base;
		u64 len = w->iov[i].iov_len;
		u64 part = min(skip, len);

		skip -= part;
		addr += part;
		len -= part;
		if (!len)
			continue;
		if ((addr | len) & (dev->mem.unit - 1)) {
			hp_offence(dev, 10, "%s range %llx+%llx is not aligned to a unit",
				   hp_type_name(req->type), addr, len);
			return false;
		}
		if ((addr | len) & (dev->params.preferred - 1))
			dev->seen.small++;
		if (req->nr_ranges) {
			struct hp_range *last = &req->range[req->nr_ranges - 1];

			dev->seen.unsorted += addr < last->addr;
			dev->seen.unmerged += addr == last->addr + last->len;
		}
		req->range[req->nr_ranges++] = (struct hp_range) { addr, len };
		at += len;
	}
	if (req->nr_ranges > dev->params.max_ranges) {
		hp_offence(dev, 10, "%u ranges in one request, max_ranges is %u",
			   req->nr_ranges, dev->params.max_ranges);
		return false;
	}
	return at == req->size && wlen == at + req->resp_size;
}

/* DRV-26: one at a time, with the structure behind the header, without ranges. */
static bool hp_parse_state(struct hp_queue *q, struct hp_request *req,
			   struct vringh_kiov *riov, u64 wlen)
{
	struct hp_dev *dev = q->dev;

	if (!__virtio_test_bit(&dev->vdev, VIRTIO_BALLOON_HP_F_STATE))
		hp_offence(dev, 4, "state without its feature");
	if (dev->state_busy)
		hp_offence(dev, 26, "a state while another is not answered");
	if (req->size || wlen != req->resp_size ||
	    vringh_iov_pull_iotlb(&q->vrh, riov, &dev->state,
				  sizeof(dev->state)) != sizeof(dev->state)) {
		hp_offence(dev, 8, "state of size %llu with %llu writable bytes",
			   req->size, wlen);
		return false;
	}
	dev->state_busy = true;
	return true;
}

static bool hp_parse(struct hp_queue *q, struct hp_request *req,
		     struct vringh_kiov *riov)
{
	struct hp_dev *dev = q->dev;
	struct virtio_balloon_hp_req hdr;
	size_t rlen = vringh_kiov_length(riov);
	u64 wlen = vringh_kiov_length(&req->wiov);

	req->type = hp_queue_type(q);
	if (rlen < sizeof(hdr) ||
	    vringh_iov_pull_iotlb(&q->vrh, riov, &hdr, sizeof(hdr)) != sizeof(hdr)) {
		hp_offence(dev, 8, "device-readable part of %zu bytes on queue %u",
			   rlen, q->index);
		return false;
	}
	req->type = le16_to_cpu(hdr.type);
	req->resp_size = le32_to_cpu(hdr.resp_size);
	req->size = le64_to_cpu(hdr.size);
	req->units = req->size / dev->mem.unit;
	if (req->type == VIRTIO_BALLOON_HP_REQ_STATE &&
	    q->index == VIRTIO_BALLOON_HP_VQ_INFLATE &&
	    req->resp_size >= VIRTIO_BALLOON_HP_RESP_SIZE_MIN)
		return hp_parse_state(q, req, riov, wlen);
	if (rlen != sizeof(hdr)) {
		hp_offence(dev, 8, "device-readable part of %zu bytes on queue %u",
			   rlen, q->index);
		return false;
	}
	if (req->type != hp_queue_type(q)) {
		hp_offence(dev, 8, "request type %u on queue %u", req->type, q->index);
		req->type = hp_queue_type(q);
		return false;
	}
	if (hdr.flags)
		hp_offence(dev, 8, "%s with flags %x", hp_type_name(req->type),
			   le16_to_cpu(hdr.flags));
	if (req->resp_size < VIRTIO_BALLOON_HP_RESP_SIZE_MIN ||
	    req->resp_size > wlen) {
		hp_offence(dev, 9, "resp_size %u of %llu writable bytes",
			   req->resp_size, wlen);
		return false;
	}
	if (!req->size || req->size != wlen - req->resp_size) {
		hp_offence(dev, 8, "size %llu, but %llu bytes of ranges", req->size,
			   wlen - req->resp_size);
		return false;
	}
	return hp_parse_ranges(dev, req, wlen);
}

/* Unit @n: is it RAM, and does the request make sense for it? */
static bool hp_claim_unit(struct hp_dev *dev, struct hp_request *req, u32 n,
			  u64 addr)
{
	bool deflate = req->type == VIRTIO_BALLOON_HP_REQ_DEFLATE;
	struct hp_memory *m = &dev->mem;
	const char *type = hp_type_name(req->type);

	if (!hp_memory_is_ram(m, addr)) {
		hp_offence(dev, 12, "%s of %llx, which is not RAM", type, addr);
		return false;
	}
	if (hp_memory_is_claimed(m, addr)) {
		hp_offence(dev, 11, "%s of %llx, which is in a request already",
			   type, addr);
		return false;
	}
	if (!deflate && hp_memory_is_out(m, addr)) {
		hp_offence(dev, 13, "%s of %llx, which is out", type, addr);
		return false;
	}
	/* asking is allowed (DEV-12 e): it stays the driver's, unclaimed */
	if (deflate && !hp_memory_is_out(m, addr)) {
		dev->seen.not_out++;
		hp_refuse(req, n, 1, VIRTIO_BALLOON_HP_NOT_OUT);
		return true;
	}
	hp_memory_set_claimed(m, addr, true);
	return true;
}

static bool hp_claim(struct hp_dev *dev, struct hp_request *req)
{
	struct hp_range *r = NULL, *undo_r = NULL;
	u64 addr, undo;
	u32 n = 0;

	while (hp_next_unit(dev, req, &r, &addr))
		if (!hp_claim_unit(dev, req, n++, addr))
			goto unclaim;
	if (req->type != VIRTIO_BALLOON_HP_REQ_DEFLATE)
		for (r = req->range; r < req->range + req->nr_ranges; r++)
			hp_poison(r->addr, r->len);
	return true;

unclaim:
	while (hp_next_unit(dev, req, &undo_r, &undo)) {
		if (undo_r == r && undo == addr)
			return false;
		hp_memory_set_claimed(&dev->mem, undo, false);
	}
	return false;
}

/* The exception, if any, that names unit @n. @i only grows. */
static u16 hp_unit_status(struct hp_request *req, u64 n, unsigned int *i)
{
	if (req->status)
		return req->status;
	while (*i < req->nr_exc && n - req->exc[*i].first >= req->exc[*i].count &&
	       n >= req->exc[*i].first)
		(*i)++;
	if (*i < req->nr_exc && n >= req->exc[*i].first)
		return req->exc[*i].status;
	return VIRTIO_BALLOON_HP_OK;
}

/* Units done change sides; all are the driver's or out from here on. */
static u64 hp_settle_units(struct hp_dev *dev, struct hp_request *req)
{
	bool inflate = req->type == VIRTIO_BALLOON_HP_REQ_INFLATE;
	bool report = req->type == VIRTIO_BALLOON_HP_REQ_REPORT;
	struct hp_memory *m = &dev->mem;
	unsigned int i = 0;
	struct hp_range *r = NULL;
	u64 addr, n = 0, done = 0;

	while (hp_next_unit(dev, req, &r, &addr)) {
		bool ok = !req->raw && !hp_unit_status(req, n++, &i);

		if (hp_memory_is_claimed(m, addr))
			hp_verify(dev, addr, report ? 19 : 13, "before the answer");
		hp_memory_set_claimed(m, addr, false);
		if (ok)
			done += m->unit;
		/* after a malformed answer the driver must hold all for out */
		if (!report && (ok || (req->raw && inflate)))
			hp_memory_set_out(m, addr, inflate);
		/* a report may see its old contents, or zeroes, and no pattern */
		if (report || (ok && !inflate && req->zeroed))
			hp_zero(addr, m->unit);
	}
	spin_lock_irq(&dev->config_lock);
	dev->config.actual = cpu_to_le64(m->nr_out * m->unit);
	if (inflate && m->nr_out * m->unit > le64_to_cpu(dev->config.requested))
		dev->seen.above++;
	spin_unlock_irq(&dev->config_lock);
	return done;
}

/* Fits the verdict into the room the request gave: the rest is AGAIN (DEV-17). */
static void hp_fit(struct hp_request *req)
{
	unsigned int room = (req->resp_size - sizeof(struct virtio_balloon_hp_resp)) /
			    sizeof(struct virtio_balloon_hp_exception);

	if (req->status)
		req->nr_exc = 0;
	if (req->nr_exc <= room)
		return;
	req->nr_exc = room;
	req->exc[room - 1].count = req->units - req->exc[room - 1].first;
	req->exc[room - 1].status = VIRTIO_BALLOON_HP_AGAIN;
}

static void hp_push_exceptions(struct hp_queue *q, struct hp_request *req)
{
	unsigned int i;

	for (i = 0; i < req->nr_exc; i++) {
		struct virtio_balloon_hp_exception e = {
			.first = cpu_to_le32(req->exc[i].first),
			.count = cpu_to_le32(req->exc[i].count),
			.status = cpu_to_le16(req->exc[i].status),
		};

		vringh_iov_push_iotlb(&q->vrh, &req->wiov, &e, sizeof(e));
	}
}

/* Called with the lock; @req is on no list and goes back to the idle ones. */
static void hp_answer(struct hp_dev *dev, struct hp_request *req)
{
	struct hp_queue *q = req->queue;
	struct virtio_balloon_hp_resp resp = {};
	u32 used = sizeof(resp);
	u64 done = 0;

	if (!req->sane) {
		req->status = VIRTIO_BALLOON_HP_INVAL;
		req->raw = false;
	}
	if (!req->raw)
		hp_fit(req);
	if (req->sane)
		done = hp_settle_units(dev, req);
	if (req->raw) {
		resp = req->raw_resp;
		used = req->raw_used;
	} else {
		if (req->status)
			resp.status = cpu_to_le16(req->status);
		else if (done == req->size)
			resp.status = cpu_to_le16(VIRTIO_BALLOON_HP_OK);
		else if (done)
			resp.status = cpu_to_le16(VIRTIO_BALLOON_HP_PARTIAL);
		else
			resp.status = cpu_to_le16(req->exc[0].status);
		if (req->zeroed)
			resp.flags = cpu_to_le16(VIRTIO_BALLOON_HP_RESP_F_ZEROED);
		resp.nr_exceptions = cpu_to_le32(req->nr_exc);
		resp.done = cpu_to_le64(done);
		used += req->nr_exc * sizeof(struct virtio_balloon_hp_exception);
	}
	vringh_iov_push_iotlb(&q->vrh, &req->wiov, &resp, sizeof(resp));
	hp_push_exceptions(q, req);
	dev->seen.answered[req->type]++;
	if (req->type == VIRTIO_BALLOON_HP_REQ_STATE)
		dev->state_busy = false;
	dev->nr_busy--;
	list_add(&req->link, &dev->idle);
	hp_put_used(q, req->head, used);
	wake_up_all(&dev->wq);
}

static void hp_reset_request(struct hp_request *req, struct hp_queue *q)
{
	struct list_head link = req->link;

	memset(req, 0, offsetof(struct hp_request, range));
	memset(&req->hold, 0, offsetof(struct hp_request, wvec) -
	       offsetof(struct hp_request, hold));
	req->link = link;
	req->queue = q;
	vringh_kiov_init(&req->wiov, req->wvec, HP_CHAIN);
}

/* Handles one request of @q. Return: false if there is none, or no room for it. */
static bool hp_take(struct hp_queue *q)
{
	struct hp_dev *dev = q->dev;
	struct hp_request *req;
	struct vringh_kiov riov;
	struct kvec rvec[4];
	int got;

	req = list_first_entry_or_null(&dev->idle, struct hp_request, link);
	if (!req)
		return false;
	hp_reset_request(req, q);
	vringh_kiov_init(&riov, rvec, ARRAY_SIZE(rvec));
	got = vringh_getdesc_iotlb(&q->vrh, &riov, &req->wiov, &req->head,
				   GFP_KERNEL);
	if (got < 0)
		hp_offence(dev, 8, "queue %u: bad chain: %d", q->index, got);
	if (got <= 0)
		return false;
	if (dev->silent)
		hp_offence(dev, 15, "queue %u used after a malformed answer", q->index);

	list_del(&req->link);
	dev->nr_busy++;
	dev->seen.in_flight_max = max(dev->seen.in_flight_max, dev->nr_busy);
	req->sane = hp_parse(q, req, &riov);
	req->nr = dev->seen.requests[req->type]++;
	req->sane = req->sane && hp_claim(dev, req);
	vringh_kiov_cleanup(&riov);
	dev->seen.ranges[req->type] += req->nr_ranges;
	/* a request that the device itself refuses in part has its verdict */
	if (req->sane && dev->decide &&
	    (!req->nr_exc || dev->params.decide_all))
		dev->decide(dev, req);
	if (req->hold) {
		list_add_tail(&req->link, &dev->held);
		wake_up_all(&dev->wq);
	} else {
		hp_answer(dev, req);
	}
	return true;
}

/* DRV-20: one buffer, all readable. */
static bool hp_take_stats(struct hp_queue *q)
{
	struct hp_dev *dev = q->dev;
	struct vringh_kiov riov, wiov;
	struct kvec rvec[4], wvec[4];
	u16 head;
	int got;

	vringh_kiov_init(&riov, rvec, ARRAY_SIZE(rvec));
	vringh_kiov_init(&wiov, wvec, ARRAY_SIZE(wvec));
	got = vringh_getdesc_iotlb(&q->vrh, &riov, &wiov, &head, GFP_KERNEL);
	if (got < 0)
		hp_offence(dev, 20, "stats: bad chain: %d", got);
	if (got <= 0)
		return false;
	dev->seen.stats++;
	if (!__virtio_test_bit(&dev->vdev, VIRTIO_BALLOON_HP_F_STATS))
		hp_offence(dev, 4, "stats queue used without its feature");
	if (dev->silent)
		hp_offence(dev, 15, "stats queue used after a malformed answer");
	if (wiov.used)
		hp_offence(dev, 20, "stats buffer with device-writable parts");
	if (dev->stats_here) {
		hp_offence(dev, 20, "more than one stats buffer");
		hp_put_used(q, dev->stats_head, 0);
	}
	dev->stats_len = vringh_kiov_length(&riov);
	if (dev->stats_len > HP_STATS_BYTES || riov.used > ARRAY_SIZE(rvec)) {
		hp_offence(dev, 20, "stats buffer of %u bytes", dev->stats_len);
		dev->stats_len = 0;
	}
	dev->stats_iov = riov;
	memcpy(dev->stats_vec, rvec, sizeof(rvec));
	dev->stats_iov.iov = dev->stats_vec;
	vringh_iov_pull_iotlb(&q->vrh, &riov, dev->stats_data, dev->stats_len);
	dev->stats_head = head;
	dev->stats_here = true;
	wake_up_all(&dev->wq);
	return true;
}

void hp_queue_work(struct kthread_work *work)
{
	struct hp_dev *dev = container_of(work, struct hp_dev, work);
	unsigned int i;

	mutex_lock(&dev->lock);
	for (i = 0; i < VIRTIO_BALLOON_HP_VQ_MAX; i++) {
		struct hp_queue *q = &dev->queue[i];

		if (!q->vq || !hp_running(dev))
			continue;
		do {
			if (i == VIRTIO_BALLOON_HP_VQ_STATS)
				while (hp_take_stats(q))
					;
			else
				while (hp_running(dev) && hp_take(q))
					;
		} while (!list_empty(&dev->idle) && hp_running(dev) &&
			 !vringh_notify_enable_iotlb(&q->vrh));
	}
	mutex_unlock(&dev->lock);
}

unsigned int hp_dev_release(struct hp_dev *dev, unsigned int n, bool newest)
{
	struct hp_request *req;
	unsigned int i;

	mutex_lock(&dev->lock);
	for (i = 0; i < n && !list_empty(&dev->held); i++) {
		if (newest)
			req = list_last_entry(&dev->held, struct hp_request, link);
		else
			req = list_first_entry(&dev->held, struct hp_request, link);
		list_del(&req->link);
		hp_answer(dev, req);
	}
	mutex_unlock(&dev->lock);
	/* requests may have waited for a place */
	kthread_queue_work(dev->worker, &dev->work);
	return i;
}

void hp_queue_abandon(struct hp_dev *dev)
{
	struct hp_request *req;

	lockdep_assert_held(&dev->lock);
	list_for_each_entry(req, &dev->held, link)
		dev->seen.lost++;
	list_splice_tail_init(&dev->held, &dev->idle);
	dev->nr_busy = 0;
	dev->state_busy = false;
	dev->stats_here = false;
}

int hp_dev_poll_stats(struct hp_dev *dev)
{
	struct hp_queue *q = &dev->queue[VIRTIO_BALLOON_HP_VQ_STATS];
	u8 *now = kunit_kzalloc(dev->test, HP_STATS_BYTES, GFP_KERNEL);
	unsigned int before;

	if (!now)
		return -ENOMEM;
	if (!wait_event_timeout(dev->wq, READ_ONCE(dev->stats_here), HZ))
		return -ENOENT;
	mutex_lock(&dev->lock);
	vringh_iov_pull_iotlb(&q->vrh, &dev->stats_iov, now, dev->stats_len);
	if (memcmp(now, dev->stats_data, dev->stats_len))
		hp_offence(dev, 20, "stats buffer changed while the device had it");
	before = dev->seen.stats;
	dev->stats_here = false;
	hp_put_used(q, dev->stats_head, 0);
	mutex_unlock(&dev->lock);
	if (!wait_event_timeout(dev->wq, dev->seen.stats != before, 10 * HZ))
		return -ETIMEDOUT;
	return 0;
}

bool hp_dev_stat(struct hp_dev *dev, u16 tag, u64 *val)
{
	const struct virtio_balloon_hp_stat *s = (void *)dev->stats_data;
	unsigned int i;

	for (i = 0; i < dev->stats_len / sizeof(*s); i++)
		if (le16_to_cpu(s[i].tag) == tag) {
			*val = le64_to_cpu(s[i].val);
			return true;
		}
	return false;
}
