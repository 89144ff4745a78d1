/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of helper/lib/discard.c from several threads at once: one
 * HpbMemory, no lock, others faulting in the same mapping meanwhile.
 */
#include <errno.h>
#include "support.h"

#define LENGTH (512 * MIB)
#define UNIT (2 * MIB)
#define WORKERS 4
#define ROUNDS 20

/*
 * Units are dealt to threads in turn: unit u belongs to worker u % (WORKERS +
 * 1), the last of which is the one that keeps its memory.
 */
typedef struct Shared {
    TestMap *map;
    HpbMemory *mem;
    int stop;               /* atomic: workers are done */
    guint faulted;          /* rounds that the keeper made */
} Shared;

typedef struct Worker {
    Shared *shared;
    unsigned number;
    uint64_t bytes;
    uint64_t ranges;
} Worker;

static size_t deal(unsigned number, HpbRange *ranges)
{
    size_t n = 0;

    for (uint64_t u = number; u < LENGTH / UNIT; u += WORKERS + 1) {
        ranges[n++] = (HpbRange) { u * UNIT, UNIT };
    }
    return n;
}

/* Fill, discard, look, and again. */
static void *worker_run(void *data)
{
    Worker *worker = data;
    TestMap *map = worker->shared->map;
    g_autofree HpbRange *ranges = g_new(HpbRange, LENGTH / UNIT);
    size_t n = deal(worker->number, ranges);

    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < n; i++) {
            test_map_fill(map, ranges[i].offset, 64 * KIB);
        }
        g_assert_true(hpb_memory_discard(worker->shared->mem, ranges, n, NULL,
                                         NULL));
        for (size_t i = 0; i < n; i++) {
            test_map_assert_zero(map, ranges[i].offset, 64 * KIB);
        }
        worker->bytes += n * UNIT;
        worker->ranges += n;
    }
    return NULL;
}

/* Memory that is kept never changes; taking new faults all the time. */
static void *keeper_run(void *data)
{
    Shared *shared = data;
    g_autofree HpbRange *ranges = g_new(HpbRange, LENGTH / UNIT);
    size_t n = deal(WORKERS, ranges);

    for (size_t i = 0; i < n; i++) {
        test_map_fill(shared->map, ranges[i].offset, UNIT);
    }
    do {
        for (size_t i = 0; i < n; i++) {
            test_map_assert_filled(shared->map, ranges[i].offset, UNIT);
        }
        shared->faulted++;
    } while (!g_atomic_int_get(&shared->stop));
    return NULL;
}

static void test_together(const void *data)
{
    g_autoptr(TestMap) map = test_map_new(*(const TestKind *)data, LENGTH, 0);
    g_autoptr(HpbMemory) mem = test_memory_new(map, NULL);
    Shared shared = { .map = map, .mem = mem };
    Worker workers[WORKERS];
    GThread *threads[WORKERS], *keeper;
    HpbCounters count;
    uint64_t bytes = 0, ranges = 0;

    keeper = g_thread_new("keeper", keeper_run, &shared);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i] = (Worker) { .shared = &shared, .number = i };
        threads[i] = g_thread_new("worker", worker_run, &workers[i]);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        g_thread_join(threads[i]);
        bytes += workers[i].bytes;
        ranges += workers[i].ranges;
    }
    g_atomic_int_set(&shared.stop, 1);
    g_thread_join(keeper);
    g_assert_cmpuint(shared.faulted, >, 0);

    test_assert_counters(mem);
    hpb_memory_discard_counters(mem, &count);
    g_assert_cmpuint(count.requests, ==, (guint64)WORKERS * ROUNDS);
    g_assert_cmpuint(count.ranges_done, ==, ranges);
    g_assert_cmpuint(count.bytes_done, ==, bytes);
    if (!hpb_memory_vectored(mem)) {
        g_assert_cmpuint(count.syscalls, ==, ranges);
    }
}

/* A cancel from another thread arrives; the answers say what was done. */
typedef struct Canceler {
    HpbMemory *mem;
    int cancel;
} Canceler;

static void *canceler_run(void *data)
{
    Canceler *c = data;
    HpbCounters count;

    /* Requests before this one have been counted: the last is under way */
    do {
        hpb_memory_discard_counters(c->mem, &count);
    } while (count.requests < 100);
    g_atomic_int_set(&c->cancel, 1);
    return NULL;
}

static void test_cancel(void)
{
    g_autoptr(TestMap) map = test_map_new(TEST_ANON_4K, LENGTH, 0);
    g_autoptr(HpbMemory) mem = test_memory_new(map, NULL);
    Canceler canceler = { .mem = mem };
    GThread *thread = g_thread_new("canceler", canceler_run, &canceler);
    HpbRange all = { 0, LENGTH };
    HpbCounters count;
    HpbResult result;

    while (hpb_memory_discard(mem, &all, 1, &result, &canceler.cancel)) {
        g_assert_cmpuint(result.done, ==, LENGTH);
    }
    g_thread_join(thread);
    g_assert_cmpint(result.error, ==, -ECANCELED);
    g_assert_cmpuint(result.done, <, LENGTH);
    hpb_memory_discard_counters(mem, &count);
    g_assert_cmpuint(count.requests, >=, 101);
    g_assert_cmpuint(count.ranges_canceled, ==, 1);
    g_assert_cmpuint(count.bytes_canceled, ==, LENGTH - result.done);
    test_assert_counters(mem);
}

int main(int argc, char **argv)
{
    static const TestKind kinds[] = { TEST_ANON_THP, TEST_ANON_4K,
                                      TEST_ANON_SHARED, TEST_MEMFD };

    g_test_init(&argc, &argv, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autofree char *path = g_strdup_printf("/discard/threads/together/%s",
                                                test_kind_names[kinds[i]]);

        g_test_add_data_func(path, &kinds[i], test_together);
    }
    g_test_add_func("/discard/threads/cancel", test_cancel);
    return g_test_run();
}
