// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp: what the guest needs for itself.
 *
 * Theory of operation
 *
 * Available memory (MemAvailable of /proc/meminfo) never goes below a floor
 * because of the balloon: a share of the guest's memory, for what grows with
 * its size (page tables, slabs, the watermarks), and an absolute minimum, below
 * which user space does not live.
 *
 * When programs use up half of that floor the guest is short of memory. The
 * kernel says so by calling shrinkers. Ours frees nothing, it is a place to
 * listen: it looks at what is available, and leaves the rest to work items.
 * With DEFLATE_ON_OOM the worker gives the guest back what it lacks, long before
 * the OOM notifier (oom.c) has to; otherwise, and where nothing is out, the
 * host is told what the guest would like to have (tell.c), and decides.
 *
 * Half a floor between giving back and taking again is what keeps both from
 * fighting; and after giving back the balloon stays as it is for HPB_OOM_HOLD.
 *
 * Clean page cache may be taken as far as the device's configuration says. The
 * same field says whether memory is only lent, for the time of a migration:
 * then nothing is moved for it, it goes back on any shortage, and of the floor
 * only the absolute minimum counts, with what the kernel keeps between its
 * lowest and its highest watermark as a part of it.
 *
 * Rejected: a shrinker that deflates when it is called. The kernel calls
 * shrinkers whenever it reclaims anything, so the balloon would be empty before
 * the page cache is (the reason why the traditional driver went back from a
 * shrinker to the OOM notifier, commit da10329cb057).
 * Rejected: waiting for the host in a shrinker. Whoever allocates may hold any
 * lock, and the host may take its time.
 */
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/vmstat.h>

#include "balloon_hp.h"

static unsigned int floor_mib = 32;
module_param(floor_mib, uint, 0644);
MODULE_PARM_DESC(floor_mib,
		 "least memory, in MiB, that the balloon leaves available to the guest (MemAvailable in /proc/meminfo); below some 32 MiB (default) user space stops working");

static unsigned int floor_percent = 3;
module_param(floor_percent, uint, 0644);
MODULE_PARM_DESC(floor_percent,
		 "share of the guest's memory, in percent, that the balloon leaves available; what the kernel needs grows with memory (default 3); the larger of this and floor_mib counts");

/* While the host is told of a shortage, it is looked at again so often, in ms. */
#define HPB_SHORT_AGAIN	1000

u64 hpb_need_floor(u64 total, unsigned int mib, unsigned int percent)
{
	u64 share = div_u64(total, 100) * min(percent, 100U);

	return max_t(u64, share, (u64)mib * SZ_1M);
}

u64 hpb_need_spare(u64 available, u64 floor)
{
	return available > floor ? available - floor : 0;
}

u64 hpb_need_relief(u64 available, u64 floor)
{
	return available < floor / 2 ? floor - available : 0;
}

u64 hpb_need_available(u64 available, const struct hpb_reserve *reserve,
		       bool loan)
{
	u64 above = reserve->free > reserve->min ? reserve->free - reserve->min : 0;

	return loan ? available + min(above, reserve->high - reserve->min) : available;
}

u64 hpb_need_spendable(u64 available, u64 droppable,
		       const struct hpb_reserve *reserve, bool loan, u64 floor)
{
	u64 cheap = droppable + (reserve->free > reserve->high ?
				 reserve->free - reserve->high : 0);
	u64 kept = loan ? reserve->high - reserve->min : 0;

	return min(hpb_need_spare(min(available, cheap + kept), floor), cheap);
}

u64 hpb_need_droppable(u64 cache, u32 reclaim, u64 cache_floor)
{
	if (reclaim != VIRTIO_BALLOON_HP_RECLAIM_CLEAN &&
	    reclaim != VIRTIO_BALLOON_HP_RECLAIM_LEND_CLEAN)
		return 0;
	return cache > cache_floor ? cache - cache_floor : 0;
}

bool hpb_need_is_loan(u32 reclaim)
{
	return reclaim == VIRTIO_BALLOON_HP_RECLAIM_LEND_FREE ||
	       reclaim == VIRTIO_BALLOON_HP_RECLAIM_LEND_CLEAN;
}

/* What is free, and what makes the kernel reclaim by itself. */
static struct hpb_reserve hpb_reserve(void)
{
	struct hpb_reserve reserve = {};
	int nid, zid;

	for_each_node_state(nid, N_MEMORY)
		for (zid = 0; zid < MAX_NR_ZONES; zid++) {
			struct zone *zone = &NODE_DATA(nid)->node_zones[zid];

			if (!populated_zone(zone))
				continue;
			reserve.free += (u64)zone_page_state(zone, NR_FREE_PAGES) << PAGE_SHIFT;
			reserve.min += (u64)min_wmark_pages(zone) << PAGE_SHIFT;
			reserve.high += (u64)high_wmark_pages(zone) << PAGE_SHIFT;
		}
	return reserve;
}

static u64 hpb_available(struct hpb *bh, const struct hpb_reserve *reserve)
{
	return hpb_need_available((u64)max(si_mem_available(), 0L) << PAGE_SHIFT,
				  reserve, hpb_need_is_loan(READ_ONCE(bh->reclaim)));
}

u64 hpb_floor(struct hpb *bh)
{
	u64 total = (u64)totalram_pages() << PAGE_SHIFT;
	unsigned int percent = READ_ONCE(floor_percent);

	/* The floor must not sink as the balloon grows. */
	if (!virtio_has_feature(bh->vdev, VIRTIO_BALLOON_HP_F_DEFLATE_ON_OOM))
		total += (u64)hpb_out(bh) << bh->shift;
	/* A loan is short, and ends where the guest becomes short of memory. */
	if (hpb_need_is_loan(READ_ONCE(bh->reclaim)))
		percent = 0;
	return hpb_need_floor(total, READ_ONCE(floor_mib), percent);
}

static u64 hpb_page_cache(void)
{
	return (u64)(global_node_page_state(NR_ACTIVE_FILE) +
		     global_node_page_state(NR_INACTIVE_FILE)) << PAGE_SHIFT;
}

unsigned long hpb_droppable_pages(struct hpb *bh)
{
	return hpb_need_droppable(hpb_page_cache(), bh->reclaim,
				  bh->cache_floor) >> PAGE_SHIFT;
}

unsigned long hpb_spare_blocks(struct hpb *bh, enum hpb_stop *why)
{
	u64 cache = hpb_page_cache();
	u64 droppable = hpb_need_droppable(cache, bh->reclaim, bh->cache_floor);
	const struct hpb_reserve reserve = hpb_reserve();
	u64 floor = hpb_floor(bh), available = hpb_available(bh, &reserve);
	u64 spendable = hpb_need_spendable(available, droppable, &reserve,
					   hpb_need_is_loan(bh->reclaim), floor);

	/* Page cache that is to stay is not there for us to spend. */
	*why = (cache - droppable) >> bh->shift &&
	       spendable < hpb_need_spare(available, floor) &&
	       hpb_need_spare(available, floor) >> bh->shift ?
	       HPB_STOP_RECLAIM : HPB_STOP_FLOOR;
	return spendable >> bh->shift;
}

u64 hpb_shortage(struct hpb *bh)
{
	const struct hpb_reserve reserve = hpb_reserve();

	return hpb_need_relief(hpb_available(bh, &reserve), hpb_floor(bh));
}

bool hpb_need_read(struct hpb *bh)
{
	u32 reclaim = VIRTIO_BALLOON_HP_RECLAIM_CLEAN;
	u64 cache_floor = 0;
	bool changed;

	lockdep_assert_held(&bh->op);
	if (virtio_has_feature(bh->vdev, VIRTIO_BALLOON_HP_F_RECLAIM)) {
		virtio_cread_le(bh->vdev, struct virtio_balloon_hp_config,
				reclaim, &reclaim);
		virtio_cread_le(bh->vdev, struct virtio_balloon_hp_config,
				cache_floor, &cache_floor);
	}
	changed = reclaim != bh->reclaim || cache_floor != bh->cache_floor;
	WRITE_ONCE(bh->reclaim, reclaim);
	bh->cache_floor = cache_floor;
	return changed;
}

/* Being short of memory */

bool hpb_gives_back(struct hpb *bh)
{
	return virtio_has_feature(bh->vdev, VIRTIO_BALLOON_HP_F_DEFLATE_ON_OOM) ||
	       hpb_need_is_loan(READ_ONCE(bh->reclaim));
}

static void hpb_need_work(struct work_struct *work)
{
	struct hpb *bh = container_of(work, struct hpb, need_work.work);
	bool is_short = hpb_shortage(bh) && hpb_out(bh);

	hpb_tell(bh);
	if (is_short && hpb_gives_back(bh))
		hpb_kick(bh);
	else if (is_short && !READ_ONCE(bh->stopping))
		mod_delayed_work(bh->wq, &bh->need_work,
				 msecs_to_jiffies(HPB_SHORT_AGAIN));
	else
		hpb_need_looked(bh);
}

void hpb_need_looked(struct hpb *bh)
{
	atomic_set(&bh->pressed, 0);
}

static unsigned long hpb_need_count(struct shrinker *shrinker,
				    struct shrink_control *sc)
{
	struct hpb *bh = hpb_shrinker_data(shrinker);

	if (hpb_running(bh) && hpb_out(bh) && !atomic_read(&bh->pressed) &&
	    hpb_shortage(bh) && !atomic_xchg(&bh->pressed, 1)) {
		hpb_count(bh, HPB_C_SHORTAGES, 1);
		if (!READ_ONCE(bh->stopping))
			mod_delayed_work(bh->wq, &bh->need_work, 0);
	}
	/* Nothing here that could be freed at once. */
	return 0;
}

static unsigned long hpb_need_scan(struct shrinker *shrinker,
				   struct shrink_control *sc)
{
	return SHRINK_STOP;
}

int hpb_need_init(struct hpb *bh)
{
	INIT_DELAYED_WORK(&bh->need_work, hpb_need_work);
	return hpb_shrinker_register(&bh->shrinker, hpb_need_count,
				     hpb_need_scan, bh, "virtio-balloon-hp");
}

void hpb_need_stop(struct hpb *bh)
{
	cancel_delayed_work_sync(&bh->need_work);
	hpb_need_looked(bh);
}

void hpb_need_exit(struct hpb *bh)
{
	hpb_shrinker_unregister(&bh->shrinker);
	cancel_delayed_work_sync(&bh->need_work);
}
