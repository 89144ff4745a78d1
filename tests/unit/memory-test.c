/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Unit tests of helper/lib/memory.c: descriptions, refusals, questions. */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>
#include "support.h"

static void test_invalid(void)
{
    g_autoptr(TestMap) anon = test_map_new(TEST_ANON_4K, 4 * MIB, 0);
    g_autoptr(TestMap) file = test_map_new(TEST_MEMFD, 4 * MIB, 0);
    HpbMemoryDesc d;

#define REFUSED(base, change, word) do { \
        d = (base)->desc; \
        change; \
        test_assert_refused(&d, NULL, HPB_ERROR_INVALID, word); \
    } while (0)

    REFUSED(anon, d.host = NULL, "no address");
    REFUSED(anon, d.length = 0, "no length");
    REFUSED(anon, d.length = UINT64_MAX - 4095, "address space");
    REFUSED(anon, d.length = -(uint64_t)(uintptr_t)d.host, "address space");
    REFUSED(anon, d.fd = -2, "negative fd");
    REFUSED(anon, d.fd_offset = 4096, "no file");
    REFUSED(anon, d.page_size = 5000, "power of two");
    REFUSED(anon, d.page_size = 1024, "below this machine's");
    REFUSED(anon, d.flags = 1u << 31, "flags");
    REFUSED(anon, d.disabled = 1u << 31, "disables");
    REFUSED(anon, d.reserved[3] = 1, "reserved");
    REFUSED(anon, d.length -= 1, "multiple");
    REFUSED(anon, d.host = anon->host + 8, "multiple");
    REFUSED(file, d.fd_offset = 100, "longer than the file");
    REFUSED(file, (d.fd_offset = 100, d.length = 4096), "multiple");
    REFUSED(file, d.fd_offset = 4096, "longer than the file");
    REFUSED(file, d.fd_offset = INT64_MAX, "largest file offset");
    REFUSED(file, d.fd_offset = UINT64_MAX, "largest file offset");
    REFUSED(file, d.page_size = 2 * MIB, "but the file's are 4096");
#undef REFUSED
}

static void test_read_only(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_MEMFD, 4 * MIB, 0);

    map->desc.flags |= HPB_MEMORY_READ_ONLY;
    test_assert_refused(&map->desc, NULL, HPB_ERROR_READ_ONLY, "read-only");
}

static void test_hole_in_mapping(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, 4 * MIB, 0);

    g_assert_no_errno(munmap(map->host + 2 * MIB, 4096));
    test_assert_refused(&map->desc, NULL, HPB_ERROR_INVALID, "mapped");
}

/* GErrors are optional, and a name is. */
static void test_no_error_no_name(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, 4 * MIB, 0);
    HpbMemory *mem;

    map->desc.name = NULL;
    mem = hpb_memory_new(&map->desc, NULL);
    g_assert_nonnull(mem);
    hpb_memory_free(mem);
    hpb_memory_free(NULL);
    map->desc.length = 0;
    g_assert_null(hpb_memory_new(&map->desc, NULL));
    test_assert_refused(&map->desc, NULL, HPB_ERROR_INVALID, "memory: ");
    map->desc.name = "pc.ram";
    test_assert_refused(&map->desc, NULL, HPB_ERROR_INVALID,
                        "memory 'pc.ram': ");
}

static void test_questions(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_THP, 4 * MIB, 0);
    g_autoptr(HpbMemory) mem = NULL;

    test_faults_reset(map);
    mem = test_memory_new(map, &test_fault_ops);
    g_assert_cmpuint(hpb_memory_length(mem), ==, 4 * MIB);
    g_assert_cmpuint(hpb_memory_smallest_range(mem), ==, 4096);
    g_assert_cmpuint(hpb_memory_preferred_range(mem), ==, THP_SIZE);
    g_assert_true(hpb_memory_discard_zeroes(mem));
    g_assert_cmpuint(test_faults.frees, ==, 0);
}

/* The preferred size where the kernel has no THP, and of other sizes. */
static void test_preferred_thp(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, 4 * MIB, 0);
    static const struct {
        uint64_t thp, preferred;
    } table[] = {
        { 0, 2 * MIB }, { 12345, 2 * MIB }, { 512, 2 * MIB },
        { 64 * KIB, 64 * KIB }, { 32 * MIB, 32 * MIB },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        g_autoptr(HpbMemory) mem = NULL;

        test_faults_reset(map);
        test_faults.thp_size = table[i].thp;
        mem = test_memory_new(map, &test_fault_ops);
        g_assert_cmpuint(hpb_memory_preferred_range(mem), ==,
                         table[i].preferred);
    }
}

/* The owner says what it advised: without huge pages none are preferred. */
static void test_preferred_advice(void)
{
    static const struct {
        HpbThp thp;
        uint64_t preferred;
    } table[] = {
        { HPB_THP_UNKNOWN, THP_SIZE }, { HPB_THP_MADVISE, THP_SIZE },
        { HPB_THP_NEVER, 4096 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(table); i++) {
        g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, 4 * MIB, 0);
        g_autoptr(HpbMemory) mem = NULL;

        test_faults_reset(map);
        map->desc.thp = table[i].thp;
        mem = test_memory_new(map, &test_fault_ops);
        g_assert_cmpuint(hpb_memory_preferred_range(mem), ==,
                         table[i].preferred);
    }
}

/* Ranges aligned in the mapping but not in memory cannot be huge pages. */
static void test_preferred_misaligned(void)
{
    g_autoptr(TestMap) anon = test_map_new(TEST_ANON_THP, 8 * MIB, 0);
    g_autoptr(TestMap) file = test_map_new(TEST_MEMFD, 8 * MIB, 0);
    g_autoptr(HpbMemory) by_address = NULL;
    g_autoptr(HpbMemory) by_offset = NULL;

    test_faults_reset(NULL);
    anon->desc.host = anon->host + 4096;
    anon->desc.length = 4 * MIB;
    by_address = test_memory_new(anon, &test_fault_ops);
    g_assert_cmpuint(hpb_memory_preferred_range(by_address), ==, 4096);

    g_assert_no_errno(ftruncate(file->desc.fd, 16 * MIB));
    file->desc.fd_offset = 4096;
    by_offset = test_memory_new(file, &test_fault_ops);
    g_assert_cmpuint(hpb_memory_preferred_range(by_offset), ==, 4096);
}

/* A failing look at the mapping is told with its errno. */
static void test_mapped_fault(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, 4 * MIB, 0);

    test_faults_reset(map);
    test_faults.call = TEST_CALL_MSYNC;
    test_faults.first = test_faults.times = 1;
    test_faults.error = EIO;
    test_assert_refused(&map->desc, &test_fault_ops, HPB_ERROR_SYSTEM,
                        g_strerror(EIO));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/memory/invalid", test_invalid);
    g_test_add_func("/memory/read-only", test_read_only);
    g_test_add_func("/memory/hole-in-mapping", test_hole_in_mapping);
    g_test_add_func("/memory/no-error-no-name", test_no_error_no_name);
    g_test_add_func("/memory/questions", test_questions);
    g_test_add_func("/memory/preferred/thp", test_preferred_thp);
    g_test_add_func("/memory/preferred/advice", test_preferred_advice);
    g_test_add_func("/memory/preferred/misaligned", test_preferred_misaligned);
    g_test_add_func("/memory/mapped-fault", test_mapped_fault);
    return g_test_run();
}
