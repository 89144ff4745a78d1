/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of helper/lib/place.c: a policy is on the mapping as described,
 * and a full node is an answer instead of a killed process. Machines of one
 * node have all but the choice.
 */
#include <errno.h>
#include <numaif.h>
#include <string.h>
#include <sys/mman.h>
#include "support.h"

#define LENGTH (16 * MIB)

static const uint64_t node_zero[HPB_NODES_MAX / 64] = { 1 };

static gboolean has_numa(void)
{
    int mode;

    if (get_mempolicy(&mode, NULL, 0, NULL, 0)) {
        g_test_skip("this kernel or sandbox has no NUMA policies");
        return FALSE;
    }
    return TRUE;
}

static int policy_at(TestMap *map, uint64_t offset)
{
    int mode = -1;

    g_assert_no_errno((int)get_mempolicy(&mode, NULL, 0, map->host + offset,
                                         MPOL_F_ADDR));
    return mode;
}

static void test_set(const void *data)
{
    static const struct {
        HpbPlacement placement;
        int mode;
    } table[] = {
        { HPB_PLACEMENT_NONE, MPOL_DEFAULT },
        { HPB_PLACEMENT_BIND, MPOL_BIND },
        { HPB_PLACEMENT_PREFERRED, MPOL_PREFERRED },
        { HPB_PLACEMENT_INTERLEAVE, MPOL_INTERLEAVE },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(table) && has_numa(); i++) {
        g_autoptr(TestMap) map = test_map_new(*(const TestKind *)data, LENGTH,
                                              0);
        g_autoptr(HpbMemory) mem = NULL;
        HpbRange all = { 0, LENGTH };
        uint64_t bytes = 0, other = 0;

        if (!map) {
            return;
        }
        map->desc.placement = table[i].placement;
        map->desc.nodes = i ? node_zero : NULL;
        mem = test_memory_new(map, NULL);
        g_assert_cmpint(policy_at(map, 0), ==, table[i].mode);
        g_assert_cmpint(policy_at(map, LENGTH - 4096), ==, table[i].mode);
        g_assert_true(hpb_memory_populate(mem, &all, 1, 0, NULL, NULL));
        g_assert_cmpint(hpb_memory_nodes(mem, &all, &bytes, 1, &other, NULL),
                        ==, 0);
        if (i) {
            g_assert_cmpuint(bytes, ==, LENGTH);
            g_assert_cmpuint(other, ==, 0);
        } else {
            g_assert_cmpuint(bytes + other, ==, LENGTH);
        }
        /* It is on the mapping: freed and touched again is the same */
        g_assert_true(hpb_memory_discard(mem, &all, 1, NULL, NULL));
        g_assert_cmpint(policy_at(map, 4096), ==, table[i].mode);
    }
}

static void test_invalid(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
    uint64_t nodes[HPB_NODES_MAX / 64] = { 0 };

    map->desc.placement = HPB_PLACEMENT_BIND;
    test_assert_refused(&map->desc, NULL, HPB_ERROR_INVALID,
                        "without a placement");
    map->desc.placement = HPB_PLACEMENT_NONE;
    map->desc.nodes = nodes;
    test_assert_refused(&map->desc, NULL, HPB_ERROR_INVALID,
                        "without a placement");
    map->desc.placement = (HpbPlacement)77;
    test_assert_refused(&map->desc, NULL, HPB_ERROR_INVALID, "policy");
    map->desc.placement = HPB_PLACEMENT_BIND;
    map->desc.thp = (HpbThp)77;
    test_assert_refused(&map->desc, NULL, HPB_ERROR_INVALID, "policy");
    map->desc.thp = HPB_THP_UNKNOWN;
    if (!has_numa()) {
        return;
    }
    /* None at all, and one that no machine of ours has */
    test_assert_refused(&map->desc, NULL, HPB_ERROR_INVALID, "NUMA nodes");
    nodes[HPB_NODES_MAX / 64 - 1] = 1ULL << 63;
    test_assert_refused(&map->desc, NULL, HPB_ERROR_INVALID, "NUMA nodes");
}

static void test_mbind_faults(void)
{
    static const struct {
        int error;
        HpbError code;
        const char *word;
    } table[] = {
        { ENOSYS, HPB_ERROR_UNSUPPORTED, "without a placement" },
        { EPERM, HPB_ERROR_UNSUPPORTED, "without a placement" },
        { EINVAL, HPB_ERROR_INVALID, "name others" },
        { ENOMEM, HPB_ERROR_SYSTEM, "mbind" },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);

        map->desc.placement = HPB_PLACEMENT_BIND;
        map->desc.nodes = node_zero;
        test_faults_reset(map);
        test_faults.call = TEST_CALL_MBIND;
        test_faults.first = test_faults.times = 1;
        test_faults.error = table[i].error;
        test_assert_refused(&map->desc, &test_fault_ops, table[i].code,
                            table[i].word);
    }
}

/* Bound to a node without room: no memory, and nothing was tried. */
static void test_full_node(void)
{
    static const struct {
        uint64_t available;
        HpbPlacement placement;
        gboolean ok;
    } table[] = {
        { 1, HPB_PLACEMENT_BIND, FALSE },
        { 128 * MIB + LENGTH - 1, HPB_PLACEMENT_BIND, FALSE },
        { 128 * MIB + LENGTH, HPB_PLACEMENT_BIND, TRUE },
        { 1, HPB_PLACEMENT_PREFERRED, TRUE },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(table) && has_numa(); i++) {
        g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
        g_autoptr(HpbMemory) mem = NULL;
        HpbRange all = { 0, LENGTH };
        HpbResult result;

        map->desc.placement = table[i].placement;
        map->desc.nodes = node_zero;
        test_faults_reset(map);
        mem = test_memory_new(map, &test_fault_ops);
        test_faults.node_available = table[i].available;
        g_assert_true(hpb_memory_populate(mem, &all, 1, LENGTH, &result, NULL)
                      == table[i].ok);
        g_assert_cmpint(result.error, ==, table[i].ok ? 0 : -ENOMEM);
        g_assert_cmpuint(test_map_present(map, 0, LENGTH), ==,
                         table[i].ok ? LENGTH / 4096 : 0);
    }
}

int main(int argc, char **argv)
{
    static const TestKind kinds[] = { TEST_ANON_THP, TEST_ANON_4K, TEST_MEMFD,
                                      TEST_ANON_SHARED };

    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *path = g_strdup_printf("/place/set/%s",
                                                test_kind_names[kinds[i]]);

        g_test_add_data_func(path, &kinds[i], test_set);
    }
    g_test_add_func("/place/invalid", test_invalid);
    g_test_add_func("/place/faults", test_mbind_faults);
    g_test_add_func("/place/full-node", test_full_node);
    return g_test_run();
}
