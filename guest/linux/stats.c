// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp: the statistics queue.
 *
 * Theory of operation
 *
 * The direction is reversed: the driver lends the device one buffer (DRV-20),
 * the device hands it back when it wants new numbers, and the driver fills it
 * again. Collecting numbers walks per-CPU counters, so a work item does it.
 * Only statistics that this kernel has are put in (DRV-21).
 *
 * Rejected: filling the buffer from a timer. An idle device would then wake
 * the guest, whether or not anyone on the host looks.
 */
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/swap.h>
#include <linux/vmstat.h>

#include "balloon_hp.h"

/* Room for every tag there is. */
#define HPB_STATS_MAX	(VIRTIO_BALLOON_HP_STAT_DIRECT_RECLAIM + 3)

static void hpb_stat(struct hpb *bh, unsigned int *nr, u16 tag, u64 val)
{
	if (WARN_ON_ONCE(*nr == HPB_STATS_MAX))
		return;
	bh->stats[(*nr)++] = (struct virtio_balloon_hp_stat){
		.tag = cpu_to_le16(tag),
		.val = cpu_to_le64(val),
	};
}

static u64 hpb_bytes(unsigned long pages)
{
	return (u64)pages << PAGE_SHIFT;
}

#ifdef CONFIG_VM_EVENT_COUNTERS
static void hpb_stat_events(struct hpb *bh, unsigned int *nr)
{
	unsigned long ev[NR_VM_EVENT_ITEMS], stall = 0;
	unsigned int zid;

	all_vm_events(ev);
	for (zid = 0; zid < MAX_NR_ZONES; zid++)
		stall += ev[ALLOCSTALL_NORMAL - ZONE_NORMAL + zid];

	hpb_stat(bh, nr, VIRTIO_BALLOON_HP_STAT_SWAP_IN, hpb_bytes(ev[PSWPIN]));
	hpb_stat(bh, nr, VIRTIO_BALLOON_HP_STAT_SWAP_OUT, hpb_bytes(ev[PSWPOUT]));
	hpb_stat(bh, nr, VIRTIO_BALLOON_HP_STAT_MAJFLT, ev[PGMAJFAULT]);
	hpb_stat(bh, nr, VIRTIO_BALLOON_HP_STAT_MINFLT, ev[PGFAULT]);
	hpb_stat(bh, nr, VIRTIO_BALLOON_HP_STAT_OOM_KILL, ev[OOM_KILL]);
	hpb_stat(bh, nr, VIRTIO_BALLOON_HP_STAT_ALLOC_STALL, stall);
	hpb_stat(bh, nr, VIRTIO_BALLOON_HP_STAT_ASYNC_SCAN,
		 hpb_bytes(ev[PGSCAN_KSWAPD]));
	hpb_stat(bh, nr, VIRTIO_BALLOON_HP_STAT_DIRECT_SCAN,
		 hpb_bytes(ev[PGSCAN_DIRECT]));
	hpb_stat(bh, nr, VIRTIO_BALLOON_HP_STAT_ASYNC_RECLAIM,
		 hpb_bytes(ev[PGSTEAL_KSWAPD]));
	hpb_stat(bh, nr, VIRTIO_BALLOON_HP_STAT_DIRECT_RECLAIM,
		 hpb_bytes(ev[PGSTEAL_DIRECT]));
#ifdef CONFIG_HUGETLB_PAGE
	hpb_stat(bh, nr, VIRTIO_BALLOON_HP_STAT_HTLB_PGALLOC,
		 ev[HTLB_BUDDY_PGALLOC]);
	hpb_stat(bh, nr, VIRTIO_BALLOON_HP_STAT_HTLB_PGFAIL,
		 ev[HTLB_BUDDY_PGALLOC_FAIL]);
#endif
}
#else
static void hpb_stat_events(struct hpb *bh, unsigned int *nr)
{
}
#endif

static unsigned int hpb_stats_fill(struct hpb *bh)
{
	unsigned int order, nr = 0;
	unsigned long blocks = 0;
	struct sysinfo info;
	int nid;

	hpb_stat_events(bh, &nr);
	si_meminfo(&info);
	hpb_stat(bh, &nr, VIRTIO_BALLOON_HP_STAT_MEMFREE, hpb_bytes(info.freeram));
	hpb_stat(bh, &nr, VIRTIO_BALLOON_HP_STAT_MEMTOT, hpb_bytes(info.totalram));
	hpb_stat(bh, &nr, VIRTIO_BALLOON_HP_STAT_AVAIL,
		 hpb_bytes(max(si_mem_available(), 0L)));
	hpb_stat(bh, &nr, VIRTIO_BALLOON_HP_STAT_CACHES,
		 hpb_bytes(global_node_page_state(NR_FILE_PAGES)));
	hpb_stat(bh, &nr, VIRTIO_BALLOON_HP_STAT_REFAULTS,
		 hpb_bytes(global_node_page_state(WORKINGSET_REFAULT_ANON) +
			   global_node_page_state(WORKINGSET_REFAULT_FILE)));

	/*
	 * What the allocator cannot count, because no order is that large, or
	 * because it keeps no count below a page, is left out.
	 */
	if (bh->preferred < PAGE_SIZE ||
	    bh->preferred > (u64)PAGE_SIZE << HPB_MAX_ORDER)
		return nr;
	order = ilog2(bh->preferred) - PAGE_SHIFT;
	for_each_node_state(nid, N_MEMORY)
		blocks += hpb_node_free_blocks(nid, order);
	hpb_stat(bh, &nr, VIRTIO_BALLOON_HP_STAT_FREE_RANGES, blocks);
	return nr;
}

static bool hpb_stats_may(struct hpb *bh)
{
	enum hpb_state state = READ_ONCE(bh->state);

	return state == HPB_RUNNING || state == HPB_UNUSABLE;
}

static void hpb_stats_lend(struct hpb *bh)
{
	struct virtqueue *vq = bh->vqs[VIRTIO_BALLOON_HP_VQ_STATS];
	struct scatterlist sg;
	int err;

	sg_init_one(&sg, bh->stats, hpb_stats_fill(bh) * sizeof(*bh->stats));
	err = virtqueue_add_outbuf(vq, &sg, 1, bh, GFP_KERNEL);
	if (err) {
		dev_warn_once(&bh->vdev->dev,
			      "cannot hand the statistics to the device (error %d): the host sees old ones until the driver is bound again\n",
			      err);
		return;
	}
	hpb_count(bh, HPB_C_STATS, 1);
}

static void hpb_stats_work(struct work_struct *work)
{
	struct hpb *bh = container_of(work, struct hpb, stats_work);
	struct virtqueue *vq = bh->vqs[VIRTIO_BALLOON_HP_VQ_STATS];
	unsigned int len;

	if (!hpb_stats_may(bh) || !virtqueue_get_buf(vq, &len))
		return;
	hpb_stats_lend(bh);
	virtqueue_kick(vq);
}

void hpb_stats_wanted(struct virtqueue *vq)
{
	struct hpb *bh = vq->vdev->priv;

	if (!READ_ONCE(bh->stopping))
		queue_work(bh->wq, &bh->stats_work);
}

int hpb_stats_init(struct hpb *bh)
{
	INIT_WORK(&bh->stats_work, hpb_stats_work);
	if (!virtio_has_feature(bh->vdev, VIRTIO_BALLOON_HP_F_STATS))
		return 0;
	bh->stats = kcalloc(HPB_STATS_MAX, sizeof(*bh->stats), GFP_KERNEL);
	return bh->stats ? 0 : -ENOMEM;
}

void hpb_stats_exit(struct hpb *bh)
{
	kfree(bh->stats);
}

void hpb_stats_start(struct hpb *bh)
{
	if (!bh->stats)
		return;
	hpb_stats_lend(bh);
	virtqueue_kick(bh->vqs[VIRTIO_BALLOON_HP_VQ_STATS]);
}

void hpb_stats_stop(struct hpb *bh)
{
	cancel_work_sync(&bh->stats_work);
}
