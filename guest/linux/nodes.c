// SPDX-License-Identifier: GPL-2.0-only
/*
 * virtio-balloon-hp: targets of NUMA nodes.
 *
 * Theory of operation
 *
 * A host that is short of memory is short of it on one of its nodes. Where the
 * guest's nodes are backed by the host's the device can say which of them shall
 * give memory up (VIRTIO_BALLOON_HP_F_NODES). Its configuration names them as the
 * firmware's tables do, by proximity domain; the kernel knows which of its nodes
 * that is. target.c brings each node to its target, one after the other.
 *
 * The entries are read one by one. The device may change them meanwhile: then a
 * notification follows, and they are read again.
 *
 * Rejected: telling nodes by ranges of addresses. The guest has the same table
 * from its firmware, and hot-plugged memory would change it.
 */
#ifdef CONFIG_ACPI_NUMA
#include <linux/acpi.h>
#include <acpi/acpi_numa.h>
#endif
#include <linux/slab.h>

#include "balloon_hp.h"

static u32 hpb_nr_domains(struct hpb *bh)
{
	u32 nr;

	virtio_cread_le(bh->vdev, struct virtio_balloon_hp_config, nr_nodes, &nr);
	return nr;
}

/* The node that is proximity domain @k, NUMA_NO_NODE if it has no memory. */
static int hpb_domain_node(u32 k)
{
#ifdef CONFIG_ACPI_NUMA
	int nid = k < MAX_PXM_DOMAINS ? pxm_to_node(k) : NUMA_NO_NODE;
#else
	/* Kernels without ACPI number nodes as their device tree does. */
	int nid = k < nr_node_ids ? (int)k : NUMA_NO_NODE;
#endif

	return nid >= 0 && node_state(nid, N_MEMORY) ? nid : NUMA_NO_NODE;
}

static u64 hpb_read_domain(struct hpb *bh, u32 k)
{
	unsigned int at = sizeof(struct virtio_balloon_hp_config) +
			  k * sizeof(struct virtio_balloon_hp_node) +
			  offsetof(struct virtio_balloon_hp_node, requested);
	__le64 requested;

	bh->vdev->config->get(bh->vdev, at, &requested, sizeof(requested));
	return le64_to_cpu(requested);
}

int hpb_nodes_alloc(struct hpb *bh)
{
	if (!virtio_has_feature(bh->vdev, VIRTIO_BALLOON_HP_F_NODES))
		return 0;
	bh->node_target = kcalloc(nr_node_ids, sizeof(*bh->node_target),
				  GFP_KERNEL);
	return bh->node_target ? 0 : -ENOMEM;
}

void hpb_nodes_free(struct hpb *bh)
{
	kfree(bh->node_target);
}

bool hpb_nodes_read(struct hpb *bh)
{
	bool by_node = false, changed;
	u32 k, nr;
	int nid;

	lockdep_assert_held(&bh->op);
	if (!bh->node_target)
		return false;

	/* Nodes that are not named give nothing. */
	nr = min_t(u32, hpb_nr_domains(bh), MAX_NUMNODES);
	changed = false;
	for_each_node_state(nid, N_MEMORY) {
		unsigned long target = 0;
		bool named = false;

		for (k = 0; k < nr; k++) {
			u64 requested;

			if (hpb_domain_node(k) != nid)
				continue;
			requested = hpb_read_domain(bh, k);
			if (requested == VIRTIO_BALLOON_HP_NODE_ANY)
				continue;
			target += min_t(u64, requested >> bh->shift, LONG_MAX);
			named = true;
		}
		by_node |= named;
		changed |= target != bh->node_target[nid];
		bh->node_target[nid] = target;
	}
	changed |= by_node != bh->by_node;
	/* Without a node that both sides know, the overall target is followed. */
	bh->by_node = by_node;
	return changed;
}

unsigned long hpb_node_out(struct hpb *bh, int nid)
{
	struct hpb_where where = { .end = U64_MAX, .nid = nid };
	unsigned long blocks;

	spin_lock(&bh->lock);
	blocks = hpb_pool_count(bh, &bh->held, &where) +
		 hpb_pool_count(bh, &bh->fresh, &where);
	spin_unlock(&bh->lock);
	return blocks;
}

bool hpb_nodes_reached(struct hpb *bh)
{
	int nid;

	if (!bh->by_node)
		return true;
	for_each_node_state(nid, N_MEMORY)
		if (hpb_node_out(bh, nid) != bh->node_target[nid])
			return false;
	return true;
}
