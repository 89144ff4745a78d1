/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: which kind of memory backs a mapping, and how it is freed
 *
 * Part of step [5] memory of the data path. The kernel is asked wherever it
 * can tell (file type, file system, seals, a trial hole past the end of the
 * file); the description is only believed for what it cannot: whether the
 * mapping is shared, and that anonymous memory is hugetlb. So what is accepted
 * here can be freed, and a range that fails later is an event, not a habit.
 *
 * Invariant: memory whose freeing would change a file that the guest's owner
 * maps privately is refused. QEMU's own ram_block_discard_range() punches holes
 * there and warns; MADV_DONTNEED alone would be harmless to the file, but
 * brings old contents back and leaves the page cache full, which is not what
 * "given back" promises. Private hugetlb mappings are different: their pages
 * never get into the file.
 *
 * Rejected: reading /proc/self/smaps, which tells nearly all of it, but takes
 * time by the number of mappings and holds the map lock meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <unistd.h>
#include "memory-int.h"

static gboolean fail_errno(const HpbMemory *mem, const char *call, int err,
                           GError **errp)
{
    g_set_error(errp, HPB_ERROR, HPB_ERROR_SYSTEM, "%s: %s of fd %d failed: %s",
                mem->name, call, mem->fd, g_strerror(err));
    return FALSE;
}

/* The page size of a description must be @size, or unknown. */
static gboolean settle_page_size(HpbMemory *mem, uint64_t size, GError **errp)
{
    if (mem->page_size && mem->page_size != size) {
        g_set_error(errp, HPB_ERROR, HPB_ERROR_INVALID,
                    "%s: described with pages of %" G_GUINT64_FORMAT
                    " bytes, but the file's are %" G_GUINT64_FORMAT
                    "; set page_size to that or to 0",
                    mem->name, mem->page_size, size);
        return FALSE;
    }
    mem->page_size = size;
    return TRUE;
}

static gboolean detect_anonymous(HpbMemory *mem, GError **errp)
{
    uint64_t base = sysconf(_SC_PAGESIZE);
    gboolean huge = mem->page_size > base;

    if (mem->page_size && mem->page_size < base) {
        g_set_error(errp, HPB_ERROR, HPB_ERROR_INVALID,
                    "%s: page size %" G_GUINT64_FORMAT
                    " is below this machine's %" G_GUINT64_FORMAT
                    "; set page_size to 0", mem->name, mem->page_size, base);
        return FALSE;
    }
    if (!mem->page_size) {
        mem->page_size = base;
    }
    if (huge) {
        mem->backing = HPB_BACKING_HUGETLB_ANONYMOUS;
    } else if (mem->shared) {
        mem->backing = HPB_BACKING_ANONYMOUS_SHARED;
    } else {
        mem->backing = HPB_BACKING_ANONYMOUS;
    }
    /* MADV_DONTNEED on shared memory only takes it out of the page table */
    mem->method = mem->shared ? HPB_METHOD_REMOVE : HPB_METHOD_DONTNEED;
    mem->discard_zeroes = TRUE;
    return TRUE;
}

static gboolean check_writable(HpbMemory *mem, GError **errp)
{
    int flags = mem->ops->fcntl_get(mem->fd, F_GETFL);
    int seals;

    if (flags == -1) {
        return fail_errno(mem, "fcntl(F_GETFL)", errno, errp);
    }
    if ((flags & O_ACCMODE) == O_RDONLY) {     /* or O_PATH */
        g_set_error(errp, HPB_ERROR, HPB_ERROR_READ_ONLY,
                    "%s: fd %d is not open for writing, so no part of its file "
                    "can be freed; open it O_RDWR", mem->name, mem->fd);
        return FALSE;
    }
    /* Files that have no seals fail with EINVAL */
    seals = mem->ops->fcntl_get(mem->fd, F_GET_SEALS);
    if (seals != -1 && (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))) {
        g_set_error(errp, HPB_ERROR, HPB_ERROR_READ_ONLY,
                    "%s: fd %d is sealed against writing, so no part of its "
                    "file can be freed; do not seal it", mem->name, mem->fd);
        return FALSE;
    }
    return TRUE;
}

/*
 * Try a hole where there is nothing: finds file systems that cannot make one,
 * and every reason for which this file may not have one.
 */
static gboolean try_hole(HpbMemory *mem, uint64_t file_size, GError **errp)
{
    uint64_t end = file_size + mem->page_size - 1;
    int err;

    end -= end % mem->page_size;
    if (end > (uint64_t)G_MAXINT64 - mem->page_size) {
        return TRUE;
    }
    do {
        err = mem->ops->fallocate(mem->fd,
                                  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                  (off_t)end,
                                  (off_t)mem->page_size) ? errno : 0;
    } while (err == EINTR);

    switch (err) {
    case 0:
        return TRUE;
    case EPERM:
    case EACCES:
    case EROFS:
    case EBADF:
    case ETXTBSY:
        g_set_error(errp, HPB_ERROR, HPB_ERROR_READ_ONLY,
                    "%s: no part of the file of fd %d may be freed: "
                    "fallocate(PUNCH_HOLE): %s; make the file writable",
                    mem->name, mem->fd, g_strerror(err));
        return FALSE;
    case EOPNOTSUPP:
    case ENODEV:
    case ENOSYS:
        g_set_error(errp, HPB_ERROR, HPB_ERROR_UNSUPPORTED,
                    "%s: the file system of fd %d cannot free parts of a file: "
                    "fallocate(PUNCH_HOLE): %s; use a file on tmpfs or "
                    "hugetlbfs, or memfd", mem->name, mem->fd, g_strerror(err));
        return FALSE;
    default:
        return fail_errno(mem, "fallocate(PUNCH_HOLE)", err, errp);
    }
}

/* Both free the file's part of a shared mapping; the first needs no mapping. */
static HpbMethod file_method(const HpbMemory *mem)
{
    return mem->disabled & HPB_NO_PUNCH_HOLE ? HPB_METHOD_REMOVE
                                             : HPB_METHOD_PUNCH_HOLE;
}

static gboolean detect_hugetlb(HpbMemory *mem, const struct stat *st,
                               const struct statfs *fs, GError **errp)
{
    if (!settle_page_size(mem, fs->f_bsize, errp)) {
        return FALSE;
    }
    if (mem->shared) {
        mem->backing = HPB_BACKING_HUGETLB;
        mem->method = file_method(mem);
        mem->discard_zeroes = TRUE;
    } else {
        mem->backing = HPB_BACKING_HUGETLB_PRIVATE;
        mem->method = HPB_METHOD_DONTNEED;
        mem->discard_zeroes = st->st_blocks == 0;
    }
    return TRUE;
}

static gboolean detect_plain_file(HpbMemory *mem, const struct statfs *fs,
                                  GError **errp)
{
    if (!mem->shared) {
        g_set_error(errp, HPB_ERROR, HPB_ERROR_PRIVATE_FILE,
                    "%s: is a private mapping of the file of fd %d: freeing it "
                    "would change the file for others or bring its old contents "
                    "back; map it shared (share=on), or use anonymous memory",
                    mem->name, mem->fd);
        return FALSE;
    }
    if (!settle_page_size(mem, sysconf(_SC_PAGESIZE), errp)) {
        return FALSE;
    }
    mem->backing = fs->f_type == TMPFS_MAGIC ? HPB_BACKING_SHMEM
                                             : HPB_BACKING_FILE;
    mem->method = file_method(mem);
    mem->discard_zeroes = TRUE;
    return TRUE;
}

static gboolean detect_file(HpbMemory *mem, GError **errp)
{
    struct stat st;
    struct statfs fs;
    gboolean ok;

    if (mem->ops->fstat(mem->fd, &st)) {
        return fail_errno(mem, "fstat", errno, errp);
    }
    if (!S_ISREG(st.st_mode)) {
        g_set_error(errp, HPB_ERROR, HPB_ERROR_UNSUPPORTED,
                    "%s: fd %d is not a regular file (mode %o), and memory of "
                    "devices cannot be freed by parts; use a file on tmpfs or "
                    "hugetlbfs, or memfd", mem->name, mem->fd, st.st_mode);
        return FALSE;
    }
    if (mem->ops->fstatfs(mem->fd, &fs)) {
        return fail_errno(mem, "fstatfs", errno, errp);
    }
    if (fs.f_type == HUGETLBFS_MAGIC) {
        ok = detect_hugetlb(mem, &st, &fs, errp);
    } else {
        ok = detect_plain_file(mem, &fs, errp);
    }
    if (!ok) {
        return FALSE;
    }
    if (st.st_size < 0 || mem->fd_offset > (uint64_t)st.st_size ||
        mem->length > (uint64_t)st.st_size - mem->fd_offset) {
        g_set_error(errp, HPB_ERROR, HPB_ERROR_INVALID,
                    "%s: the mapping (offset %" G_GUINT64_FORMAT ", %"
                    G_GUINT64_FORMAT " bytes) is longer than the file of fd %d "
                    "(%" G_GINT64_FORMAT " bytes); describe what is in the file",
                    mem->name, mem->fd_offset, mem->length, mem->fd,
                    (gint64)st.st_size);
        return FALSE;
    }
    switch (hpb_memory_method(mem)) {
    case HPB_METHOD_PUNCH_HOLE:
        return check_writable(mem, errp) && try_hole(mem, st.st_size, errp);
    case HPB_METHOD_REMOVE:
        return check_writable(mem, errp);
    case HPB_METHOD_DONTNEED:
    case HPB_METHOD_DONTNEED_LOCKED:
    default:
        return TRUE;
    }
}

gboolean hpb_backing_detect(HpbMemory *mem, GError **errp)
{
    return mem->fd == -1 ? detect_anonymous(mem, errp) : detect_file(mem, errp);
}
