// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp: debugfs.
 *
 * /sys/kernel/debug/virtio_balloon_hp/<device>/status holds everything there
 * is to know about one balloon, one "name value" a line: names do not change
 * meaning, new ones may come. Sizes are bytes unless the name says blocks.
 *
 * Rejected: one file for each counter. The numbers belong together.
 */
#include <linux/debugfs.h>
#include <linux/seq_file.h>

#include "balloon_hp.h"

static struct dentry *hpb_debugfs_root;

static const char * const hpb_count_names[HPB_C_MAX] = {
	[HPB_C_INFLATE_REQS]	= "inflate_requests",
	[HPB_C_INFLATE_RANGES]	= "inflate_ranges",
	[HPB_C_INFLATE_BLOCKS]	= "inflate_blocks_done",
	[HPB_C_INFLATE_REFUSED]	= "inflate_blocks_refused",
	[HPB_C_DEFLATE_REQS]	= "deflate_requests",
	[HPB_C_DEFLATE_RANGES]	= "deflate_ranges",
	[HPB_C_DEFLATE_BLOCKS]	= "deflate_blocks_done",
	[HPB_C_DEFLATE_REFUSED]	= "deflate_blocks_refused",
	[HPB_C_MIXED]		= "blocks_mixed",
	[HPB_C_TARGETS]		= "target_changes",
	[HPB_C_INTERRUPTED]	= "passes_interrupted",
	[HPB_C_STOPS]		= "passes_stopped",
	[HPB_C_OOM]		= "oom_notifications",
	[HPB_C_OOM_BLOCKS]	= "oom_blocks_returned",
	[HPB_C_SHORTAGES]	= "shortages",
	[HPB_C_RELIEF_BLOCKS]	= "relief_blocks_returned",
	[HPB_C_SCANS]		= "scans",
	[HPB_C_FLUSHES]		= "flushes",
	[HPB_C_EMPTIED_BLOCKS]	= "emptied_blocks",
	[HPB_C_MOVED_BYTES]	= "moved_bytes",
	[HPB_C_CHEAPEST_BYTES]	= "moved_bytes_cheapest",
	[HPB_C_OFFLINE_BLOCKS]	= "offline_blocks_returned",
	[HPB_C_REPORTS]		= "reports",
	[HPB_C_REPORT_BYTES]	= "report_bytes_done",
	[HPB_C_STATS]		= "statistics_sent",
	[HPB_C_STATES]		= "states_sent",
	[HPB_C_WAKES]		= "wakes",
	[HPB_C_WORK_NS]		= "work_ns",
};

static const char * const hpb_status_names[HPB_STATUS_MAX] = {
	[VIRTIO_BALLOON_HP_INVAL]	= "inval",
	[VIRTIO_BALLOON_HP_NOT_RAM]	= "not_ram",
	[VIRTIO_BALLOON_HP_ALREADY_OUT]	= "already_out",
	[VIRTIO_BALLOON_HP_NOT_OUT]	= "not_out",
	[VIRTIO_BALLOON_HP_OVERLAP]	= "overlap",
	[VIRTIO_BALLOON_HP_NOMEM]	= "nomem",
	[VIRTIO_BALLOON_HP_DENIED]	= "denied",
	[VIRTIO_BALLOON_HP_BUSY]	= "busy",
	[VIRTIO_BALLOON_HP_IO]		= "io",
	[VIRTIO_BALLOON_HP_AGAIN]	= "again",
	[VIRTIO_BALLOON_HP_UNSUPP]	= "unsupp",
	[HPB_STATUS_MAX - 1]		= "unknown",
};

static void hpb_show_blocks(struct seq_file *m, struct hpb *bh,
			    const char *name, unsigned long blocks)
{
	seq_printf(m, "%s %llu\n", name, (u64)blocks << bh->shift);
}

static void hpb_show_nodes(struct seq_file *m, struct hpb *bh)
{
	char name[32];
	int nid;

	if (!bh->node_target || !READ_ONCE(bh->by_node))
		return;
	for_each_node_state(nid, N_MEMORY) {
		snprintf(name, sizeof(name), "node%d_requested", nid);
		hpb_show_blocks(m, bh, name, READ_ONCE(bh->node_target[nid]));
		snprintf(name, sizeof(name), "node%d_held", nid);
		hpb_show_blocks(m, bh, name, hpb_node_out(bh, nid));
	}
}

static int status_show(struct seq_file *m, void *unused)
{
	struct hpb *bh = m->private;
	unsigned int i;

	spin_lock(&bh->lock);
	seq_printf(m, "state %s\n", hpb_state_name(bh->state));
	seq_printf(m, "stop %s\n", hpb_stop_name(bh->stop));
	seq_printf(m, "block %llu\n", 1ULL << bh->shift);
	seq_printf(m, "unit %llu\n", bh->unit);
	seq_printf(m, "preferred %llu\n", bh->preferred);
	seq_printf(m, "max_ranges %u\n", bh->max_ranges);
	seq_printf(m, "requested %llu\n", READ_ONCE(bh->requested));
	hpb_show_blocks(m, bh, "held", hpb_out(bh));
	hpb_show_blocks(m, bh, "undo", bh->undo.blocks);
	hpb_show_blocks(m, bh, "idle", bh->idle.blocks);
	hpb_show_blocks(m, bh, "refused", bh->refused.blocks);
	hpb_show_blocks(m, bh, "inflating", bh->inflating);
	hpb_show_blocks(m, bh, "deflating", bh->deflating);
	seq_printf(m, "backoff_ms %u\n", READ_ONCE(bh->backoff));
	seq_printf(m, "reclaim %u\n", READ_ONCE(bh->reclaim));
	seq_printf(m, "cache_floor %llu\n", READ_ONCE(bh->cache_floor));
	spin_unlock(&bh->lock);
	seq_printf(m, "floor %llu\n", hpb_floor(bh));
	hpb_show_nodes(m, bh);

	for (i = 0; i < HPB_C_MAX; i++)
		seq_printf(m, "%s %lld\n", hpb_count_names[i],
			   (s64)atomic64_read(&bh->counts[i]));
	for (i = 0; i < HPB_STATUS_MAX; i++)
		if (hpb_status_names[i])
			seq_printf(m, "blocks_answered_%s %lld\n",
				   hpb_status_names[i],
				   (s64)atomic64_read(&bh->statuses[i]));
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(status);

void hpb_debugfs_init(void)
{
	hpb_debugfs_root = debugfs_create_dir("virtio_balloon_hp", NULL);
}

void hpb_debugfs_exit(void)
{
	debugfs_remove_recursive(hpb_debugfs_root);
}

void hpb_debugfs_add(struct hpb *bh)
{
	bh->debugfs = debugfs_create_dir(dev_name(&bh->vdev->dev),
					 hpb_debugfs_root);
	debugfs_create_file("status", 0400, bh->debugfs, bh, &status_fops);
}

void hpb_debugfs_del(struct hpb *bh)
{
	debugfs_remove_recursive(bh->debugfs);
}
