/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit device: a huge-page balloon device inside the kernel under test.
 *
 * A struct virtio_device whose transport is a struct of function pointers and
 * whose queues are real virtqueues, with vringh at the device's end. The device
 * does by default what the specification asks of a device; a test scripts what
 * it shall do else by an hp_decide_fn. Whatever it does, it checks every
 * request against the driver requirements (DRV-n) and notes each offence.
 *
 * Locking: hp_dev.lock (a mutex) is held while requests are parsed and
 * answered and during a reset; it protects mem, the request lists and the
 * queues. hp_dev.config_lock (a spinlock, inner) protects config and status.
 * Tests may read counters without either.
 */
#ifndef HP_DEVICE_H
#define HP_DEVICE_H

#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/mutex.h>
#include <linux/sizes.h>
#include <linux/vhost_iotlb.h>
#include <linux/virtio.h>
#include <linux/virtio_config.h>
#include <linux/vringh.h>
#include <linux/wait.h>

#include "hp_memory.h"
#include "virtio_balloon_hp.h"

#define HP_QUEUE_SIZE	1024	/* as the QEMU device has it */
#define HP_REQUESTS	32	/* most requests the device holds at a time */
#define HP_EXCEPTIONS	512	/* more than any response has room for */
#define HP_CHAIN	(HP_QUEUE_SIZE + 2)
#define HP_STATS_BYTES	4096

struct hp_dev;

/* An exception in the byte order of the machine, see the wire header. */
struct hp_exception {
	u32 first;
	u32 count;
	u16 status;
};

struct hp_range {
	u64 addr;
	u64 len;
};

/**
 * struct hp_request - a request that the driver made available
 * @type:      VIRTIO_BALLOON_HP_REQ_*
 * @nr:        number of the request among those of its type, from 0
 * @resp_size: as in the header
 * @size:      as in the header
 * @units:     units in the request
 * @nr_ranges: descriptors with range bytes
 * @range:     these, in their order
 * @hold:      verdict: no answer before hp_dev_release()
 * @zeroed:    verdict: memory reads as zero, and the answer says so
 * @status:    verdict: not OK refuses the whole request without exceptions
 * @nr_exc:    verdict: units that are not done
 * @exc:       these, ascending
 * @raw:       verdict: the response is @raw_resp and @exc as they are, the used
 *             length @raw_used, and nothing is done: for malformed answers
 *
 * @sane is false for a request that was noted as an offence and touches units
 * that it must not: it is answered INVAL, whatever the test decides.
 */
struct hp_request {
	u16 type;
	unsigned int nr;
	u32 resp_size;
	u64 size;
	u64 units;
	unsigned int nr_ranges;
	struct hp_range range[HP_CHAIN];

	bool hold;
	bool zeroed;
	u16 status;
	unsigned int nr_exc;
	struct hp_exception exc[HP_EXCEPTIONS];
	bool raw;
	struct virtio_balloon_hp_resp raw_resp;
	u32 raw_used;

	/* private to the device */
	bool sane;
	struct list_head link;
	struct hp_queue *queue;
	u16 head;
	struct vringh_kiov wiov;
	struct kvec wvec[HP_CHAIN];
};

/* Most nodes that a device can have here */
#define HP_NODES 3

/* Decides a request; called with hp_dev.lock held, before the answer. */
typedef void hp_decide_fn(struct hp_dev *dev, struct hp_request *req);

/**
 * struct hp_params - what device to plug in
 * @features:   feature bits beside VIRTIO_F_VERSION_1
 * @legacy:     VIRTIO_F_VERSION_1 is not offered
 * @raw:        a device ID that no driver has: the test is the driver
 * @requested:  initial target in bytes
 * @unit:       0 for 2 MiB
 * @preferred:  0 for 2 MiB or @unit, whichever is larger
 * @queue_size: 0 for HP_QUEUE_SIZE
 * @max_ranges: 0 for two less than the queue size
 * @decide:     verdicts from the first request on
 * @decide_all: also on requests that the device itself refuses in part
 * @nr_nodes:   entries for nodes, with their feature in @features; UML has one
 *              node, so that all but the first are unknown to the driver
 * @lie:        configuration to show, whatever the device does
 */
struct hp_params {
	u64 features;
	bool legacy;
	bool raw;
	u64 requested;
	u64 unit;
	u64 preferred;
	u16 queue_size;
	u32 max_ranges;
	hp_decide_fn *decide;
	bool decide_all;
	u32 nr_nodes;
	const struct virtio_balloon_hp_config *lie;
};

/**
 * struct hp_seen - what the device has seen since it was plugged in
 * @requests:  requests by type
 * @answered:  answers by type
 * @ranges:    range descriptors by type
 * @in_flight_max: most requests that waited for an answer at a time
 * @unsorted:  range descriptors below their predecessor
 * @unmerged:  range descriptors that continue their predecessor
 * @small:     range descriptors that are not multiples of preferred
 * @not_out:   units asked back that were not out
 * @above:     inflates that went beyond requested
 * @kicks:     notifications of the driver, all queues
 * @resets:    resets after DRIVER_OK
 * @stats:     statistics buffers made available
 * @lost:      requests that a reset abandoned
 * @reset_out: bytes that were out at the last reset after DRIVER_OK
 */
struct hp_seen {
	unsigned int requests[5];
	unsigned int answered[5];
	unsigned int ranges[5];
	unsigned int in_flight_max;
	unsigned int unsorted;
	unsigned int unmerged;
	unsigned int small;
	unsigned int not_out;
	unsigned int above;
	unsigned int kicks;
	unsigned int resets;
	unsigned int stats;
	unsigned int lost;
	u64 reset_out;
};

struct hp_queue {
	struct hp_dev *dev;
	unsigned int index;
	struct virtqueue *vq;
	struct vringh vrh;
};

#define HP_OFFENCES	8
#define HP_DRV_MAX	27

struct hp_dev {
	struct kunit *test;
	struct virtio_device vdev;
	struct completion released;
	struct hp_params params;
	u64 features;
	bool plugged;

	struct mutex lock;
	spinlock_t config_lock;
	struct virtio_balloon_hp_config config;
	struct virtio_balloon_hp_node node[HP_NODES];	/* right behind it */
	u32 generation;
	u8 status;
	bool silent;
	bool fail_vqs;

	struct hp_queue queue[VIRTIO_BALLOON_HP_VQ_MAX];
	struct vhost_iotlb *iotlb;
	spinlock_t iotlb_lock;
	struct kthread_worker *worker;
	struct kthread_work work;
	struct hrtimer irq;
	unsigned long irq_pending;

	struct hp_memory mem;
	struct hp_request *pool;
	struct list_head idle;
	struct list_head held;
	unsigned int nr_busy;

	struct virtio_balloon_hp_state state;	/* the newest, DRV-26 */
	bool state_busy;

	bool stats_here;
	u16 stats_head;
	struct vringh_kiov stats_iov;
	struct kvec stats_vec[4];
	unsigned int stats_len;
	u8 stats_data[HP_STATS_BYTES];

	hp_decide_fn *decide;
	void *script;
	struct hp_seen seen;
	wait_queue_head_t wq;

	unsigned int offences[HP_DRV_MAX];
	unsigned int nr_offences;
	char offence[HP_OFFENCES][160];
};

/* hp_device.c: the transport */

/*
 * Plugs a device in; the driver has probed it, or refused to, on return.
 * Fails the test if it cannot be done. Unplug it with hp_dev_unplug().
 */
struct hp_dev *hp_dev_plug(struct kunit *test, const struct hp_params *params);

/* Removes the device from the bus. The structure lives on until hp_dev_free(). */
void hp_dev_unplug(struct hp_dev *dev);
void hp_dev_free(struct hp_dev *dev);

/* Whether a driver is bound and has set DRIVER_OK. */
bool hp_dev_is_driven(struct hp_dev *dev);

/*
 * Sets targets of nodes (VIRTIO_BALLOON_HP_NODE_ANY: none) and their sum, with
 * the interrupt. hp_dev_request() takes them back.
 */
void hp_dev_request_nodes(struct hp_dev *dev, const u64 bytes[HP_NODES]);

/* Changes config.requested, with the configuration change interrupt. */
void hp_dev_request(struct hp_dev *dev, u64 bytes);

/* Changes config.reclaim and config.cache_floor, with the interrupt. */
void hp_dev_reclaim(struct hp_dev *dev, u32 reclaim, u64 cache_floor);

/* Sets DEVICE_NEEDS_RESET: the device does nothing more until it is reset. */
void hp_dev_needs_reset(struct hp_dev *dev);

u64 hp_dev_actual(struct hp_dev *dev);

/* From now on any use of a queue is an offence against DRV-15. */
void hp_dev_expect_silence(struct hp_dev *dev);

/* Notes an offence against DRV-@drv; it fails the test at its end. */
__printf(3, 4) void hp_offence(struct hp_dev *dev, unsigned int drv,
			       const char *fmt, ...);

/* Raises the interrupt of queue @bit, or of the configuration (@bit = 31). */
#define HP_IRQ_CONFIG	31
void hp_irq(struct hp_dev *dev, unsigned int bit);

/* hp_queue.c: the device's end of the queues */

/* Handles whatever is available; runs on the device's own thread. */
void hp_queue_work(struct kthread_work *work);

/*
 * Answers up to @n of the requests that are held, oldest first (or newest
 * first), as their verdicts say now. Return: how many.
 */
unsigned int hp_dev_release(struct hp_dev *dev, unsigned int n, bool newest);

/* Forgets everything that is in flight, as a reset does. Called with the lock. */
void hp_queue_abandon(struct hp_dev *dev);

/* Notes what touched memory that is out or in flight. Called with the lock. */
void hp_queue_verify_all(struct hp_dev *dev, unsigned int drv);

/* Verdict: @count units from @first are not done, because of @status. */
void hp_refuse(struct hp_request *req, u32 first, u32 count, u16 status);

/*
 * Returns the statistics buffer to the driver and waits for a new one.
 * Return: 0, or -ENOENT if there is none for a second, -ETIMEDOUT if none came
 * back.
 */
int hp_dev_poll_stats(struct hp_dev *dev);

/* Value of @tag in the newest statistics buffer. Return: whether it is there. */
bool hp_dev_stat(struct hp_dev *dev, u16 tag, u64 *val);

#endif /* HP_DEVICE_H */
