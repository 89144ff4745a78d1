/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: words for enums, and the one table from errno to outcome
 *
 * Part of step [5] memory of the data path: what it reports upwards. The
 * switches have no default so that the compiler names a value that was
 * forgotten; values from outside the enums fall out of them.
 */
#include <errno.h>
#include <hpballoon/hpballoon.h>

GQuark hpb_error_quark(void)
{
    return g_quark_from_static_string("hpb-error-quark");
}

HpbOutcome hpb_outcome_from_error(int error)
{
    switch (error) {
    case 0:
        return HPB_OUTCOME_OK;
    case -EINVAL:
    case -ERANGE:
        return HPB_OUTCOME_INVALID;
    case -ECANCELED:
        return HPB_OUTCOME_CANCELED;
    case -EPERM:
    case -EACCES:
    case -EROFS:
    case -EBADF:
    case -ENODEV:
    case -ENOSYS:
    case -ENOTSUP:
    case -ETXTBSY:
        return HPB_OUTCOME_DENIED;
    case -ENOMEM:
    case -ENOSPC:
    case -EDQUOT:
        return HPB_OUTCOME_NO_MEMORY;
    case -EAGAIN:
    case -EBUSY:
    case -EINTR:
        return HPB_OUTCOME_BUSY;
    default:
        return HPB_OUTCOME_IO;
    }
}

const char *hpb_outcome_name(HpbOutcome outcome)
{
    switch (outcome) {
    case HPB_OUTCOME_OK:
        return "ok";
    case HPB_OUTCOME_INVALID:
        return "invalid";
    case HPB_OUTCOME_CANCELED:
        return "canceled";
    case HPB_OUTCOME_DENIED:
        return "denied";
    case HPB_OUTCOME_NO_MEMORY:
        return "no-memory";
    case HPB_OUTCOME_BUSY:
        return "busy";
    case HPB_OUTCOME_IO:
        return "io";
    }
    return "unknown";
}

const char *hpb_backing_name(HpbBacking backing)
{
    switch (backing) {
    case HPB_BACKING_ANONYMOUS:
        return "anonymous";
    case HPB_BACKING_ANONYMOUS_SHARED:
        return "anonymous-shared";
    case HPB_BACKING_SHMEM:
        return "shmem";
    case HPB_BACKING_FILE:
        return "file";
    case HPB_BACKING_HUGETLB:
        return "hugetlb";
    case HPB_BACKING_HUGETLB_PRIVATE:
        return "hugetlb-private";
    case HPB_BACKING_HUGETLB_ANONYMOUS:
        return "hugetlb-anonymous";
    }
    return "unknown";
}

const char *hpb_method_name(HpbMethod method)
{
    switch (method) {
    case HPB_METHOD_DONTNEED:
        return "dontneed";
    case HPB_METHOD_DONTNEED_LOCKED:
        return "dontneed-locked";
    case HPB_METHOD_REMOVE:
        return "remove";
    case HPB_METHOD_PUNCH_HOLE:
        return "punch-hole";
    }
    return "unknown";
}

const char *hpb_scan_method_name(HpbScanMethod method)
{
    switch (method) {
    case HPB_SCAN_BY_IOCTL:
        return "pagemap-scan";
    case HPB_SCAN_BY_PAGEMAP:
        return "pagemap";
    }
    return "unknown";
}

const char *hpb_populate_method_name(HpbPopulateMethod method)
{
    switch (method) {
    case HPB_POPULATE_WRITE:
        return "populate-write";
    case HPB_POPULATE_FALLOCATE:
        return "fallocate";
    case HPB_POPULATE_NONE:
        return "none";
    }
    return "unknown";
}
