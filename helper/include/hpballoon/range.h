/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: requests, which are lists of ranges, and their answers
 *
 * What discard.h and populate.h have in common.
 */
#ifndef HPBALLOON_RANGE_H
#define HPBALLOON_RANGE_H

#include <stdint.h>
#include <glib.h>

G_BEGIN_DECLS

/* Part of a mapping: bytes from its start, both multiples of the smallest range. */
typedef struct HpbRange {
    uint64_t offset;
    uint64_t length;        /* not 0 */
} HpbRange;

/* Answer for one range. done == length exactly when error == 0. */
typedef struct HpbResult {
    /*
     * Bytes from the start of the range that are done for certain, a multiple
     * of the smallest range. With an error, more may have been done.
     */
    uint64_t done;
    int error;              /* 0 or negative errno, see the function */
    uint32_t reserved;      /* 0 */
} HpbResult;

/*
 * Sums of one kind of work since the HpbMemory was created; they only grow. Always
 * ranges == ranges_done + ranges_failed + ranges_invalid + ranges_canceled
 * and bytes == bytes_done + bytes_failed + bytes_canceled.
 */
typedef struct HpbCounters {
    uint64_t requests;          /* calls of the function */
    uint64_t ranges;
    uint64_t ranges_done;       /* whole */
    uint64_t ranges_failed;     /* refused by the kernel, maybe done in part */
    uint64_t ranges_invalid;    /* not of this mapping; in no bytes_* counter */
    uint64_t ranges_canceled;   /* maybe done in part */
    uint64_t bytes;             /* in valid ranges */
    uint64_t bytes_done;
    uint64_t bytes_failed;
    uint64_t bytes_canceled;
    uint64_t syscalls;          /* calls that do the work, also failed ones */
    uint64_t vectored;          /* those of them that took several runs */
    /*
     * Slices tried again: after EINTR or EAGAIN, or part by part to find the one
     * that failed. Never more than syscalls.
     */
    uint64_t retries;
} HpbCounters;

G_END_DECLS

#endif /* HPBALLOON_RANGE_H */
