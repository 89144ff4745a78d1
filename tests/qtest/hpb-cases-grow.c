/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp qtest: memory that comes back, or does not (DEV-14)
 *
 * Theory of operation: the host is made short of memory in each way that this
 * machine allows (huge page pool, control group, file system), and QEMU has to
 * live through it: answer NOMEM, say why, count right, and give the memory when
 * it is there again. What needs rights or pages that are missing is skipped.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "hpb-qtest.h"
#include <sys/mman.h>
#include <sys/mount.h>

#define RAM     (256 * MiB)
#define OK      VIRTIO_BALLOON_HP_OK
#define NOMEM   VIRTIO_BALLOON_HP_NOMEM
#define PARTIAL VIRTIO_BALLOON_HP_PARTIAL
#define MEMFD   "-m 256M -machine memory-backend=m -object " \
                "memory-backend-memfd,id=m,size=256M,share=on"
#define HUGE    "-m 64M -machine memory-backend=m -object " \
                "memory-backend-memfd,id=m,size=64M,share=on," \
                "hugetlb=on,hugetlbsize=2M,prealloc=on"
#define POOL    "/sys/kernel/mm/hugepages/hugepages-2048kB/"
/* What else of QEMU may come and go in its resident size */
#define SLACK   (8 * MiB)

static uint64_t at(Hpb *h, unsigned i)
{
    return HPB_RAM_START + i * h->unit;
}

static QDict *refused(Hpb *h)
{
    return qtest_qmp_assert_success_ref(
        h->qts, "{ 'execute': 'qom-get', 'arguments': "
        "{ 'path': %s, 'property': 'grow-refused' } }", HPB_PATH);
}

/* grow-refused speaks of @bytes of @block (NULL: of nothing), and of @word */
static void check_refused(Hpb *h, const char *block, uint64_t bytes,
                          const char *word)
{
    QDict *r = refused(h);

    g_assert_cmpint(qdict_get_bool(r, "active"), ==, block != NULL);
    if (block) {
        int64_t now = g_get_real_time() / G_USEC_PER_SEC;

        g_test_message("%s", qdict_get_str(r, "reason"));
        g_assert_cmpstr(qdict_get_str(r, "block"), ==, block);
        g_assert_cmphex(qdict_get_int(r, "bytes"), ==, bytes);
        g_assert_nonnull(strstr(qdict_get_str(r, "reason"), word));
        g_assert_cmpint(qdict_get_int(r, "since"), >, now - 600);
        g_assert_cmpint(qdict_get_int(r, "since"), <=,
                        qdict_get_int(r, "last"));
        g_assert_cmpint(qdict_get_int(r, "last"), <=, now);
    } else {
        g_assert_false(qdict_haskey(r, "reason"));
    }
    qobject_unref(r);
}

static uint64_t resident(Hpb *h)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/statm",
                                            qtest_pid(h->qts));
    g_autofree char *text = NULL;
    unsigned long pages;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_cmpint(sscanf(text, "%*u %lu", &pages), ==, 1);
    return pages * (uint64_t)qemu_real_host_page_size();
}

/* prealloc: what is given back is there, without that anybody touched it */
static void check_prealloc(const char *mem, bool prealloc)
{
    Hpb *h = hpb_boot_mem(mem, prealloc ? ",prealloc=on" : "");
    uint64_t n = 100 * h->unit, before, after;

    hpb_fill(h, at(h, 0), n, 0x5a);
    hpb_take(h, at(h, 0), n);
    before = resident(h);
    hpb_give(h, at(h, 0), n);
    after = resident(h);
    g_test_message("prealloc %d: resident %" PRIu64 " -> %" PRIu64 " MiB",
                   prealloc, before / MiB, after / MiB);
    if (prealloc) {
        g_assert_cmphex(after, >, before + n - SLACK);
    } else {
        g_assert_cmphex(after, <, before + SLACK);
    }
    g_assert_true(hpb_filled(h, at(h, 7), h->unit, 0));
    check_refused(h, NULL, 0, NULL);
    hpb_check_out(h, RAM, 0);
    hpb_quit(h);
}

static void test_prealloc(void)
{
    static const char *const mem[] = {
        "-m 256M", MEMFD,
        /* the policy of the backend is honoured: node 0 is always there */
        "-m 256M -machine memory-backend=m -object memory-backend-ram,id=m,"
        "size=256M,policy=bind,host-nodes=0",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(mem); i++) {
        check_prealloc(mem[i], true);
        check_prealloc(mem[i], false);
    }
}

static unsigned free_huge_pages(void)
{
    g_autofree char *text = NULL;

    return g_file_get_contents(POOL "free_hugepages", &text, NULL, NULL) ?
           atoi(text) : 0;
}

/* Take all huge pages but @leave from the pool */
static void *grab_pool(unsigned leave, size_t *len)
{
    void *p;

    *len = (free_huge_pages() - leave) * 2 * MiB;
    p = mmap(NULL, *len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS |
             MAP_HUGETLB | MAP_POPULATE, -1, 0);
    g_assert_true(p != MAP_FAILED);
    g_assert_cmpint(free_huge_pages(), ==, leave);
    return p;
}

static bool need_pool(unsigned pages)
{
    if (free_huge_pages() >= pages) {
        return true;
    }
    g_test_skip("needs 40 free huge pages (sysctl vm.nr_hugepages=40)");
    return false;
}

static unsigned lines_with(const char *path, const char *word)
{
    g_autofree char *text = NULL;
    unsigned n = 0;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    for (char *p = text; (p = strstr(p, word)); p++) {
        n++;
    }
    return n;
}

/*
 * The pool runs out: in part, then again and again by a driver that does not
 * wait, then with successes in between. The log has one line of it.
 */
static void test_pool(void)
{
    enum { UNITS = 8 };
    g_autofree char *log = g_strdup_printf("%s/hpb-qtest-%d.log",
                                           g_get_tmp_dir(), getpid());
    g_autofree char *props = g_strdup_printf(" 2>%s", log);
    size_t len;
    void *grab;
    Hpb *h;

    if (!need_pool(40)) {
        return;
    }
    h = hpb_boot_mem(HUGE, props);
    check_refused(h, NULL, 0, NULL);
    hpb_take(h, at(h, 0), UNITS * h->unit);
    grab = grab_pool(2, &len);
    for (unsigned i = 0; i < 50; i++) {
        g_autoptr(HpbReq) out = hpb_deflate(h);
        QDict *r;

        hpb_range(out, at(h, 0), UNITS * h->unit);
        hpb_expect(out, PARTIAL, 2 * h->unit, NULL);
        check_refused(h, "m", (UNITS - 2) * h->unit,
                      "2 MiB huge pages: 0 free in the pool");
        r = refused(h);
        g_assert_cmpint(qdict_get_int(r, "requests"), ==, i % 10 + 1);
        qobject_unref(r);
        /* what was not given back is not in use either */
        hpb_check_out(h, 64 * MiB, (UNITS - 2) * h->unit);
        hpb_take(h, at(h, 0), 2 * h->unit);
        g_assert_cmpint(free_huge_pages(), ==, 2);
        if (i % 10 == 9) {
            hpb_give(h, at(h, 3), h->unit);
            check_refused(h, NULL, 0, NULL);
            hpb_take(h, at(h, 3), h->unit);
        }
    }
    g_assert_cmpint(hpb_counter(h, "refused.nomem"), ==, 50);
    g_assert_cmpint(munmap(grab, len), ==, 0);
    hpb_give(h, at(h, 0), UNITS * h->unit);
    check_refused(h, NULL, 0, NULL);
    hpb_fill(h, at(h, 0), UNITS * h->unit, 1);
    hpb_check_out(h, 64 * MiB, 0);
    hpb_quit(h);
    g_assert_cmpint(lines_with(log, "grow-refused"), ==, 1);
    unlink(log);
}

/* A reset ends it: nothing is out any more that could be refused */
static void test_reset(void)
{
    g_autoptr(HpbReq) out = NULL;
    size_t len;
    void *grab;
    Hpb *h;

    if (!need_pool(40)) {
        return;
    }
    h = hpb_boot_mem(HUGE, "");
    hpb_take(h, at(h, 0), 4 * h->unit);
    grab = grab_pool(0, &len);
    out = hpb_range(hpb_deflate(h), at(h, 0), 4 * h->unit);
    hpb_expect(out, NOMEM, 0, NULL);
    check_refused(h, "m", 4 * h->unit, "huge pages");
    hpb_reset(h);
    check_refused(h, NULL, 0, NULL);
    g_assert_cmpint(munmap(grab, len), ==, 0);
    hpb_quit(h);
}

/* Two nodes, one of huge pages that are used up: the other one's come back */
static void test_mixed(void)
{
    g_autoptr(HpbReq) out = NULL;
    uint64_t second = 128 * MiB;
    size_t len;
    void *grab;
    Hpb *h;

    if (!need_pool(40)) {
        return;
    }
    h = hpb_boot_mem("-m 192M -object memory-backend-ram,id=m0,size=128M "
                     "-object memory-backend-memfd,id=m1,size=64M,share=on,"
                     "hugetlb=on,hugetlbsize=2M,prealloc=on "
                     "-numa node,memdev=m0 -numa node,memdev=m1", "");
    g_assert_cmphex(h->unit, ==, 2 * MiB);
    hpb_take(h, second - 4 * h->unit, 8 * h->unit);
    grab = grab_pool(1, &len);
    out = hpb_deflate(h);
    hpb_range(out, second + 2 * h->unit, 2 * h->unit);
    hpb_range(out, second - 2 * h->unit, 4 * h->unit);
    hpb_range(out, second - 4 * h->unit, 2 * h->unit);
    hpb_expect(out, PARTIAL, 5 * h->unit,
               ((const HpbExc[]) { { 1, 1, NOMEM }, { 4, 2, NOMEM }, { 0 } }));
    check_refused(h, "m1", 3 * h->unit, "huge pages");
    hpb_check_out(h, 192 * MiB, 3 * h->unit);
    /* memory of the other node says nothing about this one */
    hpb_take(h, second - 4 * h->unit, h->unit);
    hpb_give(h, second - 4 * h->unit, h->unit);
    check_refused(h, "m1", 3 * h->unit, "huge pages");
    g_assert_cmpint(munmap(grab, len), ==, 0);
    hpb_give(h, second, 2 * h->unit);
    check_refused(h, NULL, 0, NULL);
    hpb_quit(h);
}

/* A control group for memory, of either version */
typedef struct Group {
    char *dir;
    const char *limit, *usage;
} Group;

static bool write_number(const Group *g, const char *name, uint64_t value)
{
    g_autofree char *path = g_strdup_printf("%s/%s", g->dir, name);
    g_autofree char *text = g_strdup_printf("%" PRIu64, value);
    int fd = open(path, O_WRONLY);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == strlen(text);

    if (fd >= 0) {
        close(fd);
    }
    return ok;
}

static uint64_t usage(const Group *g)
{
    g_autofree char *path = g_strdup_printf("%s/%s", g->dir, g->usage);
    g_autofree char *text = NULL;

    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    return g_ascii_strtoull(text, NULL, 10);
}

/* A new group with @pid in it and no limit; false if that cannot be had */
static bool group_new(Group *g, pid_t pid)
{
    static const struct { const char *parent, *limit, *usage; } cases[] = {
        { "/sys/fs/cgroup/memory", "memory.limit_in_bytes",
          "memory.usage_in_bytes" },
        { "/sys/fs/cgroup", "memory.max", "memory.current" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g->dir = g_strdup_printf("%s/hpb-qtest-%d", cases[i].parent, pid);
        g->limit = cases[i].limit;
        g->usage = cases[i].usage;
        if (!mkdir(g->dir, 0700)) {
            g_autofree char *file = g_strdup_printf("%s/%s", g->dir, g->usage);

            if (!access(file, R_OK) && write_number(g, "cgroup.procs", pid)) {
                return true;
            }
            rmdir(g->dir);
        }
        g_free(g->dir);
    }
    return false;
}

/*
 * A control group with room for a part: what fits is populated, the rest is
 * refused before the out-of-memory killer has anything to do with it.
 */
static void check_group(const char *mem, const char *block)
{
    Hpb *h = hpb_boot_mem(mem, ",prealloc=on");
    g_autoptr(HpbReq) out = hpb_deflate(h);
    uint64_t n = 100 * h->unit;
    Group g;

    if (!group_new(&g, qtest_pid(h->qts))) {
        g_test_skip("needs to make a memory control group");
        hpb_quit(h);
        return;
    }
    hpb_fill(h, at(h, 0), n, 0x5a);
    hpb_take(h, at(h, 0), n);
    /* 32 MiB are left alone */
    g_assert_true(write_number(&g, g.limit, usage(&g) + 132 * MiB));
    hpb_range(out, at(h, 0), n);
    hpb_ask(out);
    g_test_message("%" PRIu64 " MiB of %" PRIu64, out->done / MiB, n / MiB);
    g_assert_cmpint(out->status, ==, PARTIAL);
    g_assert_cmphex(out->done, >=, 60 * MiB);
    g_assert_cmphex(out->done, <=, 110 * MiB);
    check_refused(h, block, n - out->done, "memory control group");
    hpb_check_out(h, RAM, n - out->done);
    g_assert_true(hpb_filled(h, at(h, 0), h->unit, 0));

    g_assert_true(write_number(&g, g.limit, 1 * TiB));
    hpb_give(h, at(h, 0) + out->done, n - out->done);
    check_refused(h, NULL, 0, NULL);
    hpb_check_out(h, RAM, 0);
    hpb_quit(h);
    g_assert_cmpint(rmdir(g.dir), ==, 0);
    g_free(g.dir);
}

static void test_group(void)
{
    check_group("-m 256M", "pc.ram");
    check_group(MEMFD, "m");
}

/* A file system of limited size: SIGBUS for whoever touches too much of it */
static void test_file_system(void)
{
    g_autofree char *dir = g_dir_make_tmp("hpb-qtest-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "guest-ram", NULL);
    g_autofree char *other = g_build_filename(dir, "other", NULL);
    g_autofree char *mem = g_strdup_printf(
        "-m 256M -machine memory-backend=m -object memory-backend-file,id=m,"
        "size=256M,share=on,mem-path=%s", path);
    g_autoptr(HpbReq) out = NULL;
    int fd;
    Hpb *h;

    if (mount("hpb-qtest", dir, "tmpfs", 0, "size=300m")) {
        g_test_skip("needs to mount a file system");
        rmdir(dir);
        return;
    }
    h = hpb_boot_mem(mem, ",prealloc=on");
    hpb_fill(h, at(h, 0), 100 * h->unit, 0x5a);
    hpb_take(h, at(h, 0), 100 * h->unit);
    fd = open(other, O_RDWR | O_CREAT, 0600);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(posix_fallocate(fd, 0, 200 * MiB), ==, 0);
    out = hpb_range(hpb_deflate(h), at(h, 0), 100 * h->unit);
    hpb_ask(out);
    g_assert_cmpint(out->status, ==, PARTIAL);
    check_refused(h, "m", 200 * MiB - out->done, "file system");
    g_assert_cmpint(ftruncate(fd, 0), ==, 0);
    hpb_give(h, at(h, 0) + out->done, 200 * MiB - out->done);
    check_refused(h, NULL, 0, NULL);
    close(fd);
    hpb_quit(h);
    g_assert_cmpint(umount(dir), ==, 0);
    rmdir(dir);
}

/* What the library made of the memory, for operators */
static void test_memory_property(void)
{
    Hpb *h = hpb_boot_mem("-m 256M "
                          "-object memory-backend-ram,id=m0,size=128M "
                          "-object memory-backend-memfd,id=m1,size=128M,"
                          "share=on -numa node,memdev=m0 -numa node,memdev=m1",
                          "");
    static const struct { const char *block, *backing, *method; } cases[] = {
        { "m0", "anonymous", "dontneed" }, { "m1", "shmem", "punch-hole" },
    };
    const QListEntry *e;
    unsigned i = 0;
    QDict *rsp;

    hpb_take(h, 128 * MiB, 3 * h->unit);
    rsp = qtest_qmp(h->qts, "{ 'execute': 'qom-get', 'arguments': "
                    "{ 'path': %s, 'property': 'memory' } }", HPB_PATH);
    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), e) {
        QDict *m = qobject_to(QDict, qlist_entry_obj(e));

        g_assert_cmpint(i, <, ARRAY_SIZE(cases));
        g_assert_cmpstr(qdict_get_str(m, "block"), ==, cases[i].block);
        g_assert_cmpstr(qdict_get_str(m, "backing"), ==, cases[i].backing);
        g_assert_cmpstr(qdict_get_str(m, "method"), ==, cases[i].method);
        g_assert_cmpint(qdict_get_int(m, "node"), ==, i);
        g_assert_cmphex(qdict_get_int(m, "size"), ==, 128 * MiB);
        g_assert_cmphex(qdict_get_int(m, "out-size"), ==, i * 3 * h->unit);
        g_assert_cmpint(qdict_get_int(m, "page-size"), ==,
                        qemu_real_host_page_size());
        g_assert_cmpstr(qdict_get_str(m, "populate"), ==, "on-touch");
        g_assert_cmpint(qdict_get_int(m, "populate-calls"), ==, 0);
        /* one or, across a slice of the library, two */
        g_assert_cmpint(!!qdict_get_int(m, "discard-calls"), ==, i);
        g_assert_true(qdict_haskey(m, "vectored"));
        i++;
    }
    g_assert_cmpint(i, ==, ARRAY_SIZE(cases));
    qobject_unref(rsp);
    hpb_quit(h);
}

/* Pages larger than the unit: their memory stays, the other node's moves */
static void test_larger_pages(void)
{
    const char *mem = "-m 192M -object memory-backend-ram,id=m0,size=128M "
                      "-object memory-backend-memfd,id=m1,size=64M,share=on,"
                      "hugetlb=on,hugetlbsize=2M,prealloc=on "
                      "-numa node,memdev=m0 -numa node,memdev=m1";
    g_autoptr(HpbReq) in = NULL;
    Hpb *h;

    if (!need_pool(40)) {
        return;
    }
    h = hpb_boot_mem(mem, ",unit=64k");
    g_assert_cmphex(h->unit, ==, 64 * KiB);
    in = hpb_range(hpb_inflate(h), 128 * MiB - 2 * MiB, 4 * MiB);
    hpb_expect(in, PARTIAL, 2 * MiB,
               ((const HpbExc[]) { { 32, 32, VIRTIO_BALLOON_HP_DENIED },
                                   { 0 } }));
    hpb_check_out(h, 192 * MiB, 2 * MiB);
    hpb_quit(h);
}

#define ADD(name, fn) qtest_add_func("virtio-balloon-hp/grow/" name, fn)

void hpb_add_grow_tests(void)
{
    ADD("prealloc", test_prealloc);
    ADD("DEV-14-pool", test_pool);
    ADD("DEV-25-reset", test_reset);
    ADD("DEV-14-mixed", test_mixed);
    ADD("DEV-14-control-group", test_group);
    ADD("DEV-14-file-system", test_file_system);
    ADD("memory-property", test_memory_property);
    ADD("larger-pages", test_larger_pages);
}
