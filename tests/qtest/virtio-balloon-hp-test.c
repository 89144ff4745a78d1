/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QTest test cases for virtio-balloon-hp
 *
 * Theory of operation: each device MUST of the specification (DEV-n) has a test
 * that is named after it, in a group of its own file (hpb-cases-*.c). The
 * driver that they all use is hpb-qtest.h. Nothing runs in the guest: QEMU
 * executes no instruction, so that the only actors are the test and the
 * device, and every order of events is the test's.
 *
 * HPB_STRESS_ITERATIONS sets how many random requests the stress tests make,
 * HPB_STRESS_SEED from which number they start (hpb-cases-stress.c).
 */

#include "qemu/osdep.h"
#include "hpb-qtest.h"

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);

    hpb_add_config_tests();
    hpb_add_request_tests();
    hpb_add_malformed_tests();
    hpb_add_queue_tests();
    hpb_add_stats_tests();
    hpb_add_guest_tests();
    hpb_add_target_tests();
    hpb_add_memory_tests();
    hpb_add_grow_tests();
    hpb_add_machine_tests();
    hpb_add_migrate_tests();
    hpb_add_live_tests();
    hpb_add_session_tests();
    hpb_add_load_tests();
    hpb_add_nodes_tests();
    hpb_add_stress_tests();

    return g_test_run();
}
