/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpb-memory-bench: what the library costs over the bare system call
 *
 * Frees the same populated memory in several ways and prints the times side by
 * side: one system call for all of it (the host's limit), one system call per
 * 2 MiB, and one request to the library with a range per 2 MiB. Then the same
 * with another thread that faults memory in and out meanwhile, which makes
 * every TLB flush an interrupt to another processor. "apart" is a request for
 * every second 2 MiB, which no one can merge. The next line of a backing is how
 * long a cancel waits at most: the time of the slowest slice. Then the way back,
 * by one MADV_POPULATE_WRITE for all of it and by a request with a range per
 * 2 MiB; and a scan of everything, populated and not, by both ways to scan.
 *
 * Times are the least of some rounds, taken in turns, so that all meet the same
 * noise of the machine: what counts are the ratios. Nothing here decides whether
 * something is good enough.
 *
 * Usage: hpb-memory-bench [MiB]      default 3072
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <hpballoon/hpballoon.h>

#define ROUNDS 6    /* even: see least_of() */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23      /* Linux 5.14 */
#endif
#define MIB (1024 * 1024ULL)
#define RANGE (2 * MIB)
#define SLICE (256 * MIB)     /* the largest */
#define FUNCS_MAX 3

typedef struct Bench {
    const char *name;
    int advice;             /* for anonymous memory */
    gboolean memfd;
    uint8_t *host;
    uint64_t length;
    int fd;
    HpbMemory *mem;
    HpbMemory *by_pagemap;  /* the same, without the newer way to scan */
    HpbRange *ranges;       /* all of it in ranges */
    HpbRange *apart;        /* every second one */
    size_t n;
} Bench;

typedef void (*FreeFunc)(Bench *bench);

static void fatal(const char *what)
{
    fprintf(stderr, "hpb-memory-bench: %s failed: %s (less memory: give a "
            "smaller number of MiB)\n", what, g_strerror(errno));
    exit(1);
}

static void raw_free(Bench *b, uint64_t offset, uint64_t length)
{
    int ret;

    if (b->memfd) {
        ret = fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        (off_t)offset, (off_t)length);
    } else {
        ret = madvise(b->host + offset, length, MADV_DONTNEED);
    }
    if (ret) {
        fatal(b->memfd ? "fallocate" : "madvise");
    }
}

static void raw_once(Bench *b)
{
    raw_free(b, 0, b->length);
}

static void raw_ranges(Bench *b)
{
    for (size_t i = 0; i < b->n; i++) {
        raw_free(b, b->ranges[i].offset, b->ranges[i].length);
    }
}

static void raw_apart(Bench *b)
{
    for (size_t i = 0; i < b->n / 2; i++) {
        raw_free(b, b->apart[i].offset, b->apart[i].length);
    }
}

static void library(Bench *b, const HpbRange *ranges, size_t n)
{
    static const int never;

    if (!hpb_memory_discard(b->mem, ranges, n, NULL, &never)) {
        fatal("hpb_memory_discard");
    }
}

static void library_ranges(Bench *b)
{
    library(b, b->ranges, b->n);
}

static void library_apart(Bench *b)
{
    library(b, b->apart, b->n / 2);
}

/* Write to each page of 4 KiB. */
static void touch(uint8_t *host, uint64_t length)
{
    for (uint64_t at = 0; at < length; at += 4096) {
        host[at] = 1;
    }
}

/* Microseconds */
static double now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void touch_all(Bench *b)
{
    touch(b->host, b->length);
}

/*
 * The least times of @n functions that take turns, each of them first as often
 * as the others: where this machine is itself a guest, every second round may
 * have to fetch its memory anew.
 */
static void least_of(Bench *b, FreeFunc prepare, const FreeFunc *funcs,
                     double *took, size_t n)
{
    g_assert(n <= FUNCS_MAX);
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t turn = 0; turn < n; turn++) {
            size_t i = (turn + (size_t)round) % n;
            double time;

            prepare(b);
            time = now_us();
            funcs[i](b);
            time = now_us() - time;
            took[i] = round ? MIN(took[i], time) : time;
        }
    }
}

static double slowest_slice(Bench *b)
{
    double slowest = 0;

    touch(b->host, b->length);
    for (uint64_t at = 0; at < b->length; at += SLICE) {
        HpbRange range = { at, MIN(SLICE, b->length - at) };
        gint64 from = g_get_monotonic_time();

        library(b, &range, 1);
        slowest = MAX(slowest, (double)(g_get_monotonic_time() - from));
    }
    return slowest;
}

/* Faults 64 MiB in and out until told to stop; says when it is at it. */
typedef struct Faulter {
    int stop;
    int rounds;
} Faulter;

static void *faulter_run(void *data)
{
    Faulter *f = data;
    const size_t length = 64 * MIB;
    uint8_t *host = mmap(NULL, length, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (host == MAP_FAILED) {
        fatal("mmap");
    }
    while (!g_atomic_int_get(&f->stop)) {
        touch(host, length);
        if (madvise(host, length, MADV_DONTNEED)) {
            fatal("madvise");
        }
        g_atomic_int_inc(&f->rounds);
    }
    munmap(host, length);
    return NULL;
}

static void row(Bench *b, const char *what)
{
    static const FreeFunc funcs[] = { raw_once, raw_ranges, library_ranges };
    double took[FUNCS_MAX];

    least_of(b, touch_all, funcs, took, G_N_ELEMENTS(funcs));
    printf("  %-22s %10.0f %12.0f %12.0f %9.2f %9.2f %6.0f GiB/s\n", what,
           took[0], took[1], took[2],
           took[2] / took[0], took[2] / took[1],
           (double)b->length / (1024 * MIB) / (took[2] / 1e6));
}

static void row_apart(Bench *b)
{
    static const FreeFunc funcs[] = { raw_apart, library_apart };
    double took[FUNCS_MAX];

    least_of(b, touch_all, funcs, took, G_N_ELEMENTS(funcs));
    printf("  %-22s %10s %12.0f %12.0f %9s %9.2f\n", "apart (half of it)", "-",
           took[0], took[1], "-", took[1] / took[0]);
}

/* The way back */

static void free_all(Bench *b)
{
    raw_free(b, 0, b->length);
}

static void raw_populate(Bench *b)
{
    if (madvise(b->host, b->length, MADV_POPULATE_WRITE)) {
        fatal("madvise(MADV_POPULATE_WRITE)");
    }
}

static void library_populate(Bench *b)
{
    static const int never;

    if (!hpb_memory_populate(b->mem, b->ranges, b->n, RANGE, NULL, &never)) {
        fatal("hpb_memory_populate");
    }
}

static void row_populate(Bench *b)
{
    static const FreeFunc funcs[] = { raw_populate, library_populate };
    double took[FUNCS_MAX];

    least_of(b, free_all, funcs, took, G_N_ELEMENTS(funcs));
    printf("  %-22s %10.0f %12s %12.0f %9.2f %9s %6.0f GiB/s\n",
           "populate", took[0], "-", took[1],
           took[1] / took[0], "-",
           (double)b->length / (1024 * MIB) / (took[1] / 1e6));
}

/* A look */

static void nothing(Bench *b)
{
    (void)b;
}

static void scan_by(Bench *b, HpbMemory *mem)
{
    HpbRange all = { 0, b->length };
    HpbSummary sum;

    if (hpb_memory_summary(mem, &all, &sum, NULL)) {
        fatal("hpb_memory_summary");
    }
}

static void scan_best(Bench *b)
{
    scan_by(b, b->mem);
}

static void scan_pagemap(Bench *b)
{
    scan_by(b, b->by_pagemap);
}

static void row_scan(Bench *b, FreeFunc fill, const char *what)
{
    static const FreeFunc funcs[] = { scan_best, scan_pagemap };
    double took[FUNCS_MAX];

    fill(b);
    least_of(b, nothing, funcs, took, G_N_ELEMENTS(funcs));
    printf("  %-22s %s %.0f us, pagemap %.0f us (for 4 GiB it would be %.0f)\n",
           what, hpb_scan_method_name(hpb_memory_scan_method(b->mem)), took[0],
           took[1], took[0] * 4 * 1024 * MIB / (double)b->length);
}

static void measure(Bench *b)
{
    Faulter faulter = { 0 };
    GThread *thread;

    printf("%s (%s, freed by %s)\n", b->name,
           hpb_backing_name(hpb_memory_backing(b->mem)),
           hpb_method_name(hpb_memory_method(b->mem)));
    row(b, "alone");

    thread = g_thread_new("faulter", faulter_run, &faulter);
    while (!g_atomic_int_get(&faulter.rounds)) {
        g_thread_yield();
    }
    row(b, "with a faulting thread");
    g_atomic_int_set(&faulter.stop, 1);
    g_thread_join(thread);

    row_apart(b);
    printf("  %-22s %10s %12s %12.0f\n", "slowest 256 MiB", "-", "-",
           slowest_slice(b));
    row_populate(b);
    row_scan(b, touch_all, "scan, populated");
    row_scan(b, free_all, "scan, nothing there");
}

static void open_memory(Bench *b)
{
    HpbMemoryDesc desc = HPB_MEMORY_DESC_INIT;
    g_autoptr(GError) err = NULL;
    uint8_t *reserved;
    uintptr_t start;

    b->fd = -1;
    if (b->memfd) {
        b->fd = memfd_create("hpb-memory-bench", MFD_CLOEXEC);
        if (b->fd == -1 || ftruncate(b->fd, (off_t)b->length)) {
            fatal("memfd_create");
        }
    }
    reserved = mmap(NULL, b->length + SLICE, PROT_NONE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED) {
        fatal("mmap");
    }
    start = ((uintptr_t)reserved + SLICE - 1) & ~(uintptr_t)(SLICE - 1);
    b->host = mmap((void *)start, b->length, PROT_READ | PROT_WRITE, MAP_FIXED |
                   (b->memfd ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS),
                   b->fd, 0);
    if (b->host == MAP_FAILED ||
        (!b->memfd && madvise(b->host, b->length, b->advice))) {
        fatal("mmap");
    }
    desc.name = b->name;
    desc.host = b->host;
    desc.length = b->length;
    desc.fd = b->fd;
    desc.flags = b->memfd ? HPB_MEMORY_SHARED : 0;
    b->mem = hpb_memory_new(&desc, &err);
    desc.disabled = HPB_NO_PAGEMAP_SCAN;
    b->by_pagemap = b->mem ? hpb_memory_new(&desc, &err) : NULL;
    if (!b->by_pagemap) {
        fprintf(stderr, "hpb-memory-bench: %s\n", err->message);
        exit(1);
    }
}

static void close_memory(Bench *b)
{
    hpb_memory_free(b->mem);
    hpb_memory_free(b->by_pagemap);
    munmap(b->host, b->length);
    if (b->fd != -1) {
        close(b->fd);
    }
}

static void run(Bench *b)
{
    b->n = b->length / RANGE;
    b->ranges = g_new(HpbRange, b->n);
    b->apart = g_new(HpbRange, b->n / 2 + 1);
    for (size_t i = 0; i < b->n; i++) {
        b->ranges[i] = (HpbRange) { i * RANGE, RANGE };
        b->apart[i / 2] = b->ranges[i];
    }
    open_memory(b);
    measure(b);
    close_memory(b);
    g_free(b->ranges);
    g_free(b->apart);
}

int main(int argc, char **argv)
{
    static Bench benches[] = {
        { .name = "anonymous, THP", .advice = MADV_HUGEPAGE },
        { .name = "anonymous, 4 KiB pages", .advice = MADV_NOHUGEPAGE },
        { .name = "memfd", .memfd = TRUE },
    };
    guint64 mib = 3072;

    setlinebuf(stdout);
    if (argc > 2 || (argc == 2 && !g_ascii_string_to_unsigned(
                         argv[1], 10, 4, 1048576, &mib, NULL))) {
        fprintf(stderr, "usage: hpb-memory-bench [MiB], 4 to 1048576, default "
                "3072\n");
        return 2;
    }
    mib &= ~1ULL;
    printf("%" G_GUINT64_FORMAT " MiB, microseconds, least of %d\n",
           mib, ROUNDS);
    printf("  %-22s %10s %12s %12s %9s %9s\n", "", "one call", "per 2 MiB",
           "library", "/one", "/per 2M");
    for (size_t i = 0; i < G_N_ELEMENTS(benches); i++) {
        benches[i].length = mib * MIB;
        run(&benches[i]);
    }
    return 0;
}
