/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of libhpballoon: mappings of every kind, looks at what the kernel
 * holds for them, and system calls that fail on demand
 *
 * Everything here acts on memory of the test process alone, except pool.c,
 * which raises the huge page pool and gives it back, and settings.c.
 */
#ifndef HPB_TEST_SUPPORT_H
#define HPB_TEST_SUPPORT_H

#include "memory-int.h"

#define KIB 1024ULL
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define THP_SIZE (2 * MIB)

typedef enum TestKind {
    TEST_ANON_THP,          /* MADV_HUGEPAGE */
    TEST_ANON_4K,           /* MADV_NOHUGEPAGE */
    TEST_ANON_PLAIN,        /* no advice */
    TEST_ANON_SHARED,
    TEST_MEMFD,
    TEST_MEMFD_PRIVATE,
    TEST_TMPFS_FILE,        /* in /dev/shm */
    TEST_DISK_FILE,         /* in the current directory */
    TEST_DISK_FILE_PRIVATE,
    TEST_HUGETLB_MEMFD,
    TEST_HUGETLB_MEMFD_PRIVATE,
    TEST_HUGETLB_ANON,
    TEST_HUGETLB_ANON_SHARED,
    TEST_NR_KINDS,
} TestKind;

extern const char *const test_kind_names[TEST_NR_KINDS];

/*
 * A mapping with unmapped pages on either side. host is a multiple of 64 MiB
 * or of the huge page size, whichever is larger.
 */
typedef struct TestMap {
    TestKind kind;
    uint8_t *host;
    size_t length;
    size_t page_size;
    HpbMemoryDesc desc;     /* describes it rightly */
    void *reserved;
    size_t reserved_length;
} TestMap;

/*
 * @page_size: for hugetlb kinds, else ignored. Returns NULL after having
 * called g_test_skip() when this machine cannot provide it.
 */
TestMap *test_map_new(TestKind kind, size_t length, size_t page_size);
void test_map_free(TestMap *map);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TestMap, test_map_free)

/* Write a tag into every 4 KiB of [offset, offset + length) that only fits there. */
void test_map_fill(TestMap *map, uint64_t offset, uint64_t length);
/* Assert that all tags are there. */
void test_map_assert_filled(TestMap *map, uint64_t offset, uint64_t length);
/* Assert that every byte is zero. */
void test_map_assert_zero(TestMap *map, uint64_t offset, uint64_t length);

/* 4 KiB pages in the page tables of this process, or swapped out. */
size_t test_map_present(TestMap *map, uint64_t offset, uint64_t length);
/* 4 KiB pages that the kernel holds for it, in page tables or page cache. */
size_t test_map_resident(TestMap *map, uint64_t offset, uint64_t length);
/* Bytes of AnonHugePages of the mapping. */
uint64_t test_map_anon_huge(TestMap *map);
/* Bytes that the file takes up. */
uint64_t test_map_file_bytes(TestMap *map);

/* HpbMemory of @map, which must be accepted. */
HpbMemory *test_memory_new(TestMap *map, const HpbSysOps *ops);
/* Assert that @desc is refused with @code and a message that has @word. */
void test_assert_refused(const HpbMemoryDesc *desc, const HpbSysOps *ops,
                         HpbError code, const char *word);
/* Assert what discard.h promises about the sums. */
void test_assert_counters(HpbMemory *mem);

/* --- system calls that fail on demand (faults.c) --- */

typedef enum TestCall {
    TEST_CALL_MADVISE,
    TEST_CALL_FALLOCATE,
    TEST_CALL_MSYNC,
    TEST_CALL_FSTAT,
    TEST_CALL_FSTATFS,
    TEST_CALL_FCNTL_GET,
    TEST_CALL_THP_SIZE,
    TEST_CALL_PIDFD,
    TEST_CALL_PROCESS_MADVISE,
    TEST_CALL_OPEN_PAGEMAP,
    TEST_CALL_IOCTL,
    TEST_CALL_PREAD,
    TEST_CALL_LSEEK,
    TEST_CALL_PAGE_NODES,
    TEST_CALL_MBIND,
    TEST_NR_CALLS,
} TestCall;

/* What the calls of test_fault_ops do. Not for several threads. */
typedef struct TestFaults {
    /* fail call number @first .. @first + @times - 1 (from 1) of @call */
    TestCall call;
    unsigned first;
    unsigned times;
    int error;
    /* fail every freeing call that touches this offset of the mapping */
    gboolean bad_range;
    uint64_t bad_offset;
    int bad_error;
    /* ... that is an madvise() with this advice; 0: every */
    int bad_only;
    /* fail with EINVAL every madvise() with this advice, 0: none */
    int bad_advice;
    /* set *cancel in freeing call number @cancel_at, 0: never */
    unsigned cancel_at;
    int cancel;
    /* the kernel frees many ranges in one call */
    gboolean vector;
    /* process_madvise() stops after so many bytes, 0: does not */
    size_t short_after;
    /* do not call the kernel to free or to check the mapping */
    gboolean fake;
    /* mapping, for the offsets */
    uint8_t *host;
    uint64_t fd_offset;
    /* most bytes that a pread() returns, 0: no limit */
    size_t short_read;
    /* bytes on any node, 0: as it is */
    uint64_t node_available;
    /* what thp_size() returns, if it does not fail */
    uint64_t thp_size;

    /* seen */
    unsigned calls[TEST_NR_CALLS];
    unsigned frees;         /* madvise and fallocate together */
    uint64_t longest;       /* bytes in one of these */
    unsigned vectors;       /* calls of process_madvise() with ranges */
    uint64_t longest_vector;
} TestFaults;

extern TestFaults test_faults;
extern const HpbSysOps test_fault_ops;

/* Forget everything; @map: what will be worked on, or NULL. */
void test_faults_reset(TestMap *map);

/* --- huge page pool (pool.c) --- */

/*
 * Run the tests of this program with @pages more huge pages of @page_size in
 * the pool, which is put back however the tests end. As many as can be had;
 * tests look at the pool themselves. Returns what main() returns.
 */
int test_run_with_pool(size_t page_size, unsigned pages);
/* Free pages in the pool of @page_size that no one has reserved; 0: no such pool. */
unsigned test_pool_free(size_t page_size);
unsigned test_pool_available(size_t page_size);
/* Change the pool; returns by how many pages it really changed. */
int test_pool_change(size_t page_size, int pages);

/* --- settings of the machine (settings.c) --- */

/*
 * Run the tests of this program; whatever settings they change are put back
 * however the tests end. Returns what main() returns.
 */
int test_run_with_settings(void);
/* Set a file of transparent_hugepage/. FALSE: cannot be set here. */
gboolean test_setting(const char *name, const char *value);

#endif /* HPB_TEST_SUPPORT_H */
