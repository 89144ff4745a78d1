// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit suites of the driver: fixture.
 *
 * What no single test has to remember stands here: that the device noted no
 * offence, that the memory of the guest is as it was, and that the books
 * (PageOffline, managed pages, the device's bitmap) agree.
 */
#include <linux/kallsyms.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmstat.h>
#include <linux/workqueue.h>
#include <trace/events/workqueue.h>

#include "hp_test.h"

/*
 * Free pages that a test may keep: stacks and page tables of the kernel under
 * it. Less than one block, so that no lost block hides in it.
 */
#define HP_SLACK 300

static atomic_t hp_runs = ATOMIC_INIT(0);

/* The driver's work items are the ones whose functions are called hpb_*. */
static void hp_count_work(void *data, struct work_struct *work)
{
	char name[KSYM_NAME_LEN];

	snprintf(name, sizeof(name), "%ps", work->func);
	if (!strncmp(name, "hpb_", 4))
		atomic_inc(&hp_runs);
}

unsigned int hp_worker_runs(void)
{
	return atomic_read(&hp_runs);
}

int hp_suite_init(struct kunit_suite *suite)
{
	return register_trace_workqueue_execute_start(hp_count_work, NULL);
}

void hp_suite_exit(struct kunit_suite *suite)
{
	unregister_trace_workqueue_execute_start(hp_count_work, NULL);
	tracepoint_synchronize_unregister();
}

/* Slabs count as free: KASAN keeps objects that were freed for a while. */
static unsigned long hp_free_pages(void)
{
	drain_all_pages(NULL);
	return global_zone_page_state(NR_FREE_PAGES) +
	       global_node_page_state_pages(NR_SLAB_RECLAIMABLE_B) +
	       global_node_page_state_pages(NR_SLAB_UNRECLAIMABLE_B);
}

int hp_test_init(struct kunit *test)
{
	struct hp_fixture *fix = kunit_kzalloc(test, sizeof(*fix), GFP_KERNEL);

	if (!fix)
		return -ENOMEM;
	test->priv = fix;
	fix->managed = totalram_pages();
	fix->offline = hp_count_offline();
	fix->free = hp_free_pages();
	return 0;
}

static void hp_check_offences(struct kunit *test, struct hp_fixture *fix)
{
	struct hp_dev *dev = fix->dev;
	unsigned int drv, i;

	for (drv = 0; drv < HP_DRV_MAX; drv++)
		if (!(fix->forgive & BIT(drv)))
			KUNIT_EXPECT_EQ_MSG(test, dev->offences[drv], 0,
					    "the driver offended against DRV-%u", drv);
	if (!fix->not_out)
		KUNIT_EXPECT_EQ_MSG(test, dev->seen.not_out, 0,
				    "units asked back that were not out");
	if (!fix->forgive)
		for (i = 0; i < min(dev->nr_offences, HP_OFFENCES); i++)
			kunit_err(test, "offence: %s", dev->offence[i]);
}

void hp_test_exit(struct kunit *test)
{
	struct hp_fixture *fix = test->priv;
	unsigned long free;

	if (!fix)
		return;
	if (fix->dev) {
		hp_dev_unplug(fix->dev);
		hp_check_offences(test, fix);
		hp_dev_free(fix->dev);
	}
	KUNIT_EXPECT_EQ_MSG(test, totalram_pages(), fix->managed,
			    "managed pages before and after");
	KUNIT_EXPECT_EQ_MSG(test, hp_count_offline(), fix->offline,
			    "PageOffline before and after");
	free = hp_free_pages();
	KUNIT_EXPECT_GE_MSG(test, free + HP_SLACK, fix->free,
			    "%ld free pages are gone",
			    (long)(fix->free - free));
}

struct hp_dev *hp_plug(struct kunit *test, const struct hp_params *params)
{
	struct hp_fixture *fix = test->priv;

	fix->dev = hp_dev_plug(test, params);
	return fix->dev;
}

struct hp_dev *hp_start(struct kunit *test, const struct hp_params *params)
{
	struct hp_dev *dev = hp_plug(test, params);

	KUNIT_ASSERT_TRUE_MSG(test, hp_dev_is_driven(dev),
			      "the driver does not take the device");
	return dev;
}

void hp_expect_books(struct hp_dev *dev)
{
	struct kunit *test = dev->test;
	struct hp_fixture *fix = test->priv;
	struct hp_memory *m = &dev->mem;
	unsigned long pages, online = 0;
	u64 addr;

	mutex_lock(&dev->lock);
	for (addr = hp_memory_next(m, 0, false); addr < m->end;
	     addr = hp_memory_next(m, addr + m->unit, false))
		online += hp_count_online(addr, m->unit);
	hp_queue_verify_all(dev, 13);
	pages = HP_PAGES(m->nr_out * m->unit);
	mutex_unlock(&dev->lock);

	KUNIT_EXPECT_EQ_MSG(test, online, 0,
			    "pages that are out and not PageOffline");
	KUNIT_EXPECT_EQ_MSG(test, hp_count_offline(), fix->offline + pages,
			    "PageOffline pages, with %lu out", pages);
	/* with DEFLATE_ON_OOM ballooned memory stays in the totals */
	if (__virtio_test_bit(&dev->vdev, VIRTIO_BALLOON_HP_F_DEFLATE_ON_OOM))
		pages = 0;
	KUNIT_EXPECT_EQ_MSG(test, totalram_pages(), fix->managed - pages,
			    "managed pages");
}

/* What the driver thinks, for the log of a test that is about to fail. */
static void hp_tell(struct hp_dev *dev)
{
	struct hpb *bh = hp_driver(dev);

	if (!dev->plugged || !dev->vdev.dev.driver)
		return;
	kunit_info(dev->test, "driver: %s, stop: %s, backoff %u ms\n",
		   hpb_state_name(bh->state), hpb_stop_name(bh->stop), bh->backoff);
	kunit_info(dev->test,
		   "driver: requested %llu MiB; blocks held %lu undo %lu idle %lu refused %lu inflating %lu deflating %lu\n",
		   bh->requested >> 20, bh->held.blocks, bh->undo.blocks,
		   bh->idle.blocks, bh->refused.blocks, bh->inflating,
		   bh->deflating);
	kunit_info(dev->test, "device: %u in flight, inflates %u, deflates %u\n",
		   dev->nr_busy, dev->seen.requests[VIRTIO_BALLOON_HP_REQ_INFLATE],
		   dev->seen.requests[VIRTIO_BALLOON_HP_REQ_DEFLATE]);
}

void hp_expect_out(struct hp_dev *dev, u64 bytes)
{
	if (!wait_event_timeout(dev->wq, hp_dev_actual(dev) == bytes, HP_PATIENCE))
		hp_tell(dev);
	KUNIT_ASSERT_EQ_MSG(dev->test, hp_dev_actual(dev), bytes,
			    "%llu MiB are out, not %llu",
			    hp_dev_actual(dev) >> 20, bytes >> 20);
	/* the driver acts on the last answer, and does not go on */
	msleep(50);
	KUNIT_EXPECT_EQ(dev->test, hp_dev_actual(dev), bytes);
	hp_expect_books(dev);
}

void hp_hold_all(struct hp_dev *dev, struct hp_request *req)
{
	req->hold = true;
}

void hp_hold_inflate(struct hp_dev *dev, struct hp_request *req)
{
	req->hold = req->type == VIRTIO_BALLOON_HP_REQ_INFLATE;
}

void hp_hold_deflate(struct hp_dev *dev, struct hp_request *req)
{
	req->hold = req->type == VIRTIO_BALLOON_HP_REQ_DEFLATE;
}

void hp_set_decide(struct hp_dev *dev, hp_decide_fn *decide)
{
	mutex_lock(&dev->lock);
	dev->decide = decide;
	mutex_unlock(&dev->lock);
}
