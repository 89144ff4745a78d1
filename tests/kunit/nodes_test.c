// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit suite virtio_balloon_hp_nodes: targets of NUMA nodes (DRV-24).
 *
 * UML has one node. So the device has one that the driver knows, and others
 * that it does not; which memory is whose is tested in real guests.
 */
#include "hp_test.h"

static struct hp_dev *nodes_start(struct kunit *test, u32 nr_nodes)
{
	return hp_start(test, &(struct hp_params) {
		.features = BIT_ULL(VIRTIO_BALLOON_HP_F_NODES),
		.nr_nodes = nr_nodes,
		.requested = HP_MIB(32),
	});
}

/* Without targets of nodes the overall one counts, before and after. */
static void nodes_follows(struct kunit *test)
{
	struct hp_dev *dev = nodes_start(test, 1);

	hp_expect_out(dev, HP_MIB(32));
	hp_dev_request_nodes(dev, (u64[HP_NODES]) { HP_MIB(96) });
	hp_expect_out(dev, HP_MIB(96));
	hp_dev_request_nodes(dev, (u64[HP_NODES]) { HP_MIB(16) });
	hp_expect_out(dev, HP_MIB(16));
	hp_dev_request(dev, HP_MIB(64));
	hp_expect_out(dev, HP_MIB(64));
	hp_dev_request_nodes(dev, (u64[HP_NODES]) { 0 });
	hp_expect_out(dev, 0);
}

/* What an unknown node shall give is not taken from another. */
static void nodes_unknown(struct kunit *test)
{
	struct hp_dev *dev = nodes_start(test, 3);

	hp_expect_out(dev, HP_MIB(32));
	hp_dev_request_nodes(dev, (u64[HP_NODES]) { HP_MIB(64), HP_MIB(128), HP_MIB(2) });
	hp_expect_out(dev, HP_MIB(64));
	hp_dev_request_nodes(dev, (u64[HP_NODES]) { 0, HP_MIB(128), HP_MIB(2) });
	hp_expect_out(dev, 0);
	hp_dev_request(dev, HP_MIB(8));
	hp_expect_out(dev, HP_MIB(8));
}

/* Same sum, other nodes: that is a change. */
static void nodes_same_sum(struct kunit *test)
{
	struct hp_dev *dev = nodes_start(test, 2);

	hp_dev_request_nodes(dev, (u64[HP_NODES]) { HP_MIB(64), 0 });
	hp_expect_out(dev, HP_MIB(64));
	hp_dev_request_nodes(dev, (u64[HP_NODES]) { HP_MIB(16), HP_MIB(48) });
	hp_expect_out(dev, HP_MIB(16));
	KUNIT_EXPECT_GT(test, hp_driver(dev)->requested, hp_dev_actual(dev));
}

/* No node has a target although the device could: DEV-29's other half */
static void nodes_any(struct kunit *test)
{
	struct hp_dev *dev = nodes_start(test, 3);

	hp_expect_out(dev, HP_MIB(32));
	KUNIT_EXPECT_FALSE(test, hp_driver(dev)->by_node);
	hp_dev_request(dev, HP_MIB(100));
	hp_expect_out(dev, HP_MIB(100));
}

/* The bit was not offered: nothing behind the last field is read */
static void nodes_not_offered(struct kunit *test)
{
	struct hp_dev *dev = hp_start(test, &(struct hp_params) {
		.requested = HP_MIB(32),
	});

	hp_expect_out(dev, HP_MIB(32));
	KUNIT_EXPECT_NULL(test, hp_driver(dev)->node_target);
}

/* A device that lies about the number: the driver goes by what is there */
static void nodes_none_offered(struct kunit *test)
{
	struct hp_dev *dev = nodes_start(test, 0);

	hp_expect_out(dev, HP_MIB(32));
	hp_dev_request(dev, 0);
	hp_expect_out(dev, 0);
}

/* Another target of the node while requests are in flight */
static void nodes_in_flight(struct kunit *test)
{
	struct hp_dev *dev = nodes_start(test, 1);

	hp_expect_out(dev, HP_MIB(32));
	hp_set_decide(dev, hp_hold_inflate);
	hp_dev_request_nodes(dev, (u64[HP_NODES]) { HP_MIB(256) });
	HP_WAIT(dev, dev->nr_busy);
	/* overtaken while requests are in flight */
	hp_dev_request_nodes(dev, (u64[HP_NODES]) { HP_MIB(48) });
	hp_set_decide(dev, NULL);
	hp_dev_release(dev, HP_REQUESTS, false);
	hp_expect_out(dev, HP_MIB(48));
}

static struct kunit_case nodes_cases[] = {
	KUNIT_CASE(nodes_follows),
	KUNIT_CASE(nodes_unknown),
	KUNIT_CASE(nodes_same_sum),
	KUNIT_CASE(nodes_any),
	KUNIT_CASE(nodes_not_offered),
	KUNIT_CASE(nodes_none_offered),
	KUNIT_CASE(nodes_in_flight),
	{}
};

HP_SUITE(virtio_balloon_hp_nodes, nodes_cases);
