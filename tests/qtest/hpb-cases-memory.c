/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp qtest: host memory behind the ranges (DEV-12 b, DEV-13,
 * DEV-14)
 *
 * Theory of operation: an answer is one thing, memory of the host another.
 * These tests look at the process and its files from outside: blocks of the
 * memory file, resident size, the pool of huge pages. And at machines whose
 * memory is in several pieces: holes, NUMA nodes, DIMMs, memory that is not
 * the balloon's.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "qobject/qnum.h"
#include "hpb-qtest.h"
#include <sys/mman.h>

#define RAM     (256 * MiB)
#define OK      VIRTIO_BALLOON_HP_OK
#define PARTIAL VIRTIO_BALLOON_HP_PARTIAL
#define NOT_RAM VIRTIO_BALLOON_HP_NOT_RAM
#define EXC(...) ((const HpbExc[]) { __VA_ARGS__, { 0 } })
#define MEMFD   "-m 256M -machine memory-backend=m " \
                "-object memory-backend-memfd,id=m,size=256M,share="
/* What else of QEMU may come and go in its resident size */
#define SLACK   (8 * MiB)

static uint64_t at(Hpb *h, unsigned i)
{
    return HPB_RAM_START + i * h->unit;
}

static void populate(Hpb *h, uint64_t ram, uint8_t value)
{
    hpb_fill(h, HPB_RAM_START, ram - HPB_RAM_START, value);
    /* and what the next requests will use */
    hpb_fill(h, h->heap, MiB, 0);
}

/* Bytes that QEMU's memory file whose name has @part in it occupies */
static uint64_t file_bytes(Hpb *h, const char *part)
{
    g_autofree char *dir = g_strdup_printf("/proc/%d/fd", qtest_pid(h->qts));
    GDir *d = g_dir_open(dir, 0, NULL);
    uint64_t bytes = UINT64_MAX;
    const char *name;

    g_assert_nonnull(d);
    while ((name = g_dir_read_name(d))) {
        g_autofree char *path = g_strdup_printf("%s/%s", dir, name);
        g_autofree char *target = g_file_read_link(path, NULL);
        struct stat st;

        if (target && strstr(target, part) && !stat(path, &st)) {
            bytes = st.st_blocks * 512ULL;
        }
    }
    g_dir_close(d);
    g_assert_cmphex(bytes, !=, UINT64_MAX);
    return bytes;
}

/* Resident bytes of QEMU */
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

/* DEV-13: memory of a file is given back to the host, exactly what was taken */
static void check_file_freed(const char *mem, const char *part)
{
    Hpb *h = hpb_boot_mem(mem, "");
    uint64_t before, out = 100 * h->unit;

    if (!strcmp(part, "memfd:")) {
        hpb_use_ram_file(h);
    }
    populate(h, RAM, 0x5a);
    before = file_bytes(h, part);
    hpb_take(h, at(h, 1), out);
    g_assert_cmphex(file_bytes(h, part), ==, before - out);
    /* the neighbours are whole, what comes back is zero */
    g_assert_true(hpb_filled(h, at(h, 0), h->unit, 0x5a));
    g_assert_true(hpb_filled(h, at(h, 101), h->unit, 0x5a));
    hpb_give(h, at(h, 1), out);
    for (unsigned i = 1; i <= 100; i += h->ram_fd < 0 ? 33 : 1) {
        g_assert_true(hpb_filled(h, at(h, i), h->unit, 0));
    }
    hpb_quit(h);
}

static void test_memfd_freed(void)
{
    check_file_freed(MEMFD "on", "memfd:");
}

static void test_file_freed(void)
{
    g_autofree char *dir = g_dir_make_tmp("hpb-qtest-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "guest-ram", NULL);
    g_autofree char *mem = g_strdup_printf(
        "-m 256M -machine memory-backend=m -object memory-backend-file,id=m,"
        "size=256M,share=on,mem-path=%s", path);

    check_file_freed(mem, path);
    unlink(path);
    rmdir(dir);
}

/* DEV-13: private memory leaves the resident size */
static void check_resident(const char *mem)
{
    Hpb *h = hpb_boot_mem(mem, "");
    uint64_t before, after, out = 110 * h->unit;

    populate(h, RAM, 0x5a);
    before = resident(h);
    hpb_take(h, at(h, 0), out);
    after = resident(h);
    g_test_message("resident %" PRIu64 " -> %" PRIu64 " MiB", before / MiB,
                   after / MiB);
    g_assert_cmphex(after, <, before - out + SLACK);
    g_assert_true(hpb_filled(h, at(h, 110), h->unit, 0x5a));
    hpb_give(h, at(h, 0), out);
    for (unsigned i = 0; i < 110; i += 37) {
        g_assert_true(hpb_filled(h, at(h, i), h->unit, 0));
    }
    hpb_quit(h);
}

static void test_anonymous_freed(void)
{
    check_resident("-m 256M");
    check_resident("-m 256M -machine memory-backend=m "
                   "-object memory-backend-ram,id=m,size=256M,share=on");
}

/* DEV-19: a report frees too */
static void test_report_freed(void)
{
    Hpb *h = hpb_boot_mem(MEMFD "on", ",free-page-reporting=on");
    g_autoptr(HpbReq) r = hpb_report(h);
    uint64_t before;

    hpb_use_ram_file(h);
    populate(h, RAM, 0x5a);
    before = file_bytes(h, "memfd:");
    hpb_range(r, at(h, 3), 50 * h->unit);
    hpb_expect(r, OK, 50 * h->unit, NULL);
    g_assert_cmpint(r->resp_flags, ==, VIRTIO_BALLOON_HP_RESP_F_ZEROED);
    g_assert_cmphex(file_bytes(h, "memfd:"), ==, before - 50 * h->unit);
    g_assert_true(hpb_filled(h, at(h, 2), h->unit, 0x5a));
    g_assert_true(hpb_filled(h, at(h, 3), 50 * h->unit, 0));
    g_assert_true(hpb_filled(h, at(h, 53), h->unit, 0x5a));
    hpb_check_out(h, RAM, 0);
    hpb_quit(h);
}

/* Every second unit, contents of the others intact */
static void test_neighbours(void)
{
    Hpb *h = hpb_boot_mem(MEMFD "on", "");
    g_autoptr(HpbReq) in = hpb_inflate(h);
    unsigned n = 100;

    hpb_use_ram_file(h);
    for (unsigned i = 0; i < n; i++) {
        hpb_fill(h, at(h, i), h->unit, i + 1);
    }
    for (unsigned i = 0; i < n; i += 2) {
        hpb_range(in, at(h, i), h->unit);
    }
    hpb_expect(in, OK, n / 2 * h->unit, NULL);
    for (unsigned i = 0; i < n; i++) {
        g_assert_true(hpb_filled(h, at(h, i), h->unit, i % 2 ? i + 1 : 0));
    }
    hpb_quit(h);
}

/*
 * A private mapping of a file cannot be freed without harm: the guest is told,
 * and file and memory are as before.
 */
static void test_private_file(void)
{
    g_autofree char *dir = g_dir_make_tmp("hpb-qtest-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "guest-ram", NULL);
    g_autofree char *mem = g_strdup_printf(
        "-m 256M -machine memory-backend=m -object memory-backend-file,id=m,"
        "size=256M,share=off,mem-path=%s", path);
    Hpb *h = hpb_boot_mem(mem, "");
    g_autoptr(HpbReq) in = hpb_inflate(h);

    hpb_fill(h, at(h, 0), h->unit, 0x5a);
    hpb_range(in, at(h, 0), h->unit);
    hpb_ask(in);
    g_assert_true(in->status == VIRTIO_BALLOON_HP_DENIED ||
                  in->status == NOT_RAM);
    hpb_check_out(h, RAM, 0);
    g_assert_true(hpb_filled(h, at(h, 0), h->unit, 0x5a));
    hpb_quit(h);
    unlink(path);
    rmdir(dir);
}

/* Free huge pages of 2 MiB in the pool of the host */
static unsigned free_huge_pages(void)
{
    g_autofree char *text = NULL;

    if (!g_file_get_contents("/sys/kernel/mm/hugepages/hugepages-2048kB/"
                             "free_hugepages", &text, NULL, NULL)) {
        return 0;
    }
    return atoi(text);
}

/*
 * DEV-14: huge pages given back go to the pool; when somebody else took them a
 * deflate is answered NOMEM and the units stay out, until there are some.
 */
static void test_hugetlb(void)
{
    enum { UNITS = 8 };
    unsigned spare = free_huge_pages();
    g_autoptr(HpbReq) out = NULL;
    uint64_t got;
    Hpb *h;
    void *grab;

    if (spare < 40) {
        g_test_skip("needs 40 free huge pages (sysctl vm.nr_hugepages=40)");
        return;
    }
    h = hpb_boot_mem("-m 64M -machine memory-backend=m -object "
                     "memory-backend-memfd,id=m,size=64M,share=on,"
                     "hugetlb=on,hugetlbsize=2M,prealloc=on", "");
    g_assert_cmpint(free_huge_pages(), ==, spare - 32);
    hpb_take(h, at(h, 0), UNITS * h->unit);
    g_assert_cmpint(free_huge_pages(), ==, spare - 32 + UNITS);
    hpb_give(h, at(h, 0), h->unit);
    g_assert_cmpint(free_huge_pages(), ==, spare - 32 + UNITS - 1);

    /* all but two of the free ones */
    got = (free_huge_pages() - 2) * 2 * MiB;
    grab = mmap(NULL, got, PROT_READ | PROT_WRITE, MAP_PRIVATE |
                MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);
    g_assert_true(grab != MAP_FAILED);
    out = hpb_range(hpb_deflate(h), at(h, 1), (UNITS - 1) * h->unit);
    hpb_expect(out, PARTIAL, 2 * h->unit,
               EXC({ 2, UNITS - 3, VIRTIO_BALLOON_HP_NOMEM }));
    hpb_check_out(h, 64 * MiB, (UNITS - 3) * h->unit);
    g_assert_cmpint(munmap(grab, got), ==, 0);
    hpb_give(h, at(h, 3), (UNITS - 3) * h->unit);
    hpb_fill(h, at(h, 0), UNITS * h->unit, 1);
    hpb_check_out(h, 64 * MiB, 0);
    hpb_quit(h);
}

/* Memory in two pieces, around the hole below 4 GiB */
static void test_hole(void)
{
    static const struct { const char *machine; uint64_t low; } cases[] = {
        { HPB_PC, 3 * GiB }, { HPB_Q35, 2 * GiB },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Hpb *h = hpb_start("%s -m 5G " HPB_DEV_PCI, cases[i].machine);
        uint64_t low = cases[i].low, ram = 5 * GiB, top = 4 * GiB + ram - low;
        g_autoptr(HpbReq) in = hpb_inflate(h), out = hpb_deflate(h);

        hpb_probe_pci(h);
        hpb_driver_init(h, HPB_FEATURES);
        /* adjacent in the RAM block, not for the guest */
        hpb_range(in, low - 4 * h->unit, 4 * h->unit);
        hpb_range(in, 4 * GiB, 4 * h->unit);
        hpb_range(in, top - h->unit, h->unit);
        hpb_expect(in, OK, 9 * h->unit, NULL);
        hpb_check_out(h, ram, 9 * h->unit);
        hpb_range(out, 4 * GiB + 2 * h->unit, 3 * h->unit);
        hpb_range(out, low - 5 * h->unit, 2 * h->unit);
        hpb_expect(out, PARTIAL, 3 * h->unit,
                   EXC({ 2, 2, VIRTIO_BALLOON_HP_NOT_OUT }));
        hpb_check_out(h, ram, 6 * h->unit);
        /* everything there is but low memory: two ranges of gigabytes */
        hpb_driver_init(h, HPB_FEATURES);
        hpb_take(h, HPB_RAM_START, low - HPB_RAM_START);
        hpb_take(h, 4 * GiB, top - 4 * GiB);
        hpb_check_out(h, ram, ram - HPB_RAM_START);
        hpb_quit(h);
    }
}

/* DEV-12 b: one descriptor that runs from RAM into the hole, and out of it */
static void test_into_hole(void)
{
    Hpb *h = hpb_start(HPB_PC "-m 5G " HPB_DEV_PCI);
    const uint64_t edges[] = { 3 * GiB, 4 * GiB, 6 * GiB };

    hpb_probe_pci(h);
    hpb_driver_init(h, HPB_FEATURES);
    for (unsigned i = 0; i < ARRAY_SIZE(edges); i++) {
        g_autoptr(HpbReq) in = hpb_inflate(h);

        hpb_range(in, edges[i] - h->unit, 2 * h->unit);
        hpb_submit(in);
        if (hpb_answered(h, in->vq)) {
            hpb_wait(in);
            g_assert_cmpint(in->status, ==, PARTIAL);
            g_assert_cmphex(in->done, ==, h->unit);
            g_assert_cmpint(g_array_index(in->exc, HpbExc, 0).status, ==,
                            NOT_RAM);
        }
        hpb_driver_init(h, HPB_FEATURES);
        hpb_check_out(h, 5 * GiB, 0);
    }
    hpb_quit(h);
}

/* Two NUMA nodes with a backend each: a range across the border */
static void test_numa(void)
{
    Hpb *h = hpb_boot_mem(
        "-m 256M -object memory-backend-memfd,id=m0,size=128M,share=on "
        "-object memory-backend-ram,id=m1,size=128M "
        "-numa node,memdev=m0 -numa node,memdev=m1", "");
    uint64_t border = 128 * MiB, before;
    g_autoptr(HpbReq) in = hpb_inflate(h), out = hpb_deflate(h);

    populate(h, RAM, 0x5a);
    before = file_bytes(h, "memfd:");
    hpb_range(in, border - 4 * h->unit, 10 * h->unit);
    hpb_expect(in, OK, 10 * h->unit, NULL);
    hpb_check_out(h, RAM, 10 * h->unit);
    g_assert_cmphex(file_bytes(h, "memfd:"), ==, before - 4 * h->unit);
    hpb_range(out, border - h->unit, 2 * h->unit);
    hpb_expect(out, OK, 2 * h->unit, NULL);
    g_assert_true(hpb_filled(h, border - h->unit, 2 * h->unit, 0));
    g_assert_true(hpb_filled(h, border - 5 * h->unit, h->unit, 0x5a));
    g_assert_true(hpb_filled(h, border + 6 * h->unit, h->unit, 0x5a));
    hpb_quit(h);
}

/* Nodes whose border is not at a unit: the unit across it is nobody's */
static void test_numa_unaligned(void)
{
    Hpb *h = hpb_boot_mem(
        "-m 256M -object memory-backend-ram,id=m0,size=127M "
        "-object memory-backend-ram,id=m1,size=129M "
        "-numa node,memdev=m0 -numa node,memdev=m1", "");
    g_autoptr(HpbReq) in = hpb_inflate(h);

    hpb_fill(h, 126 * MiB, h->unit, 0x5a);
    hpb_range(in, 122 * MiB, 3 * h->unit);
    hpb_expect(in, PARTIAL, 2 * h->unit, EXC({ 2, 1, NOT_RAM }));
    hpb_check_out(h, RAM, 2 * h->unit);
    g_assert_true(hpb_filled(h, 126 * MiB, h->unit, 0x5a));
    hpb_quit(h);
}

/* ACPI memory hot-plug registers of pc and q35: eject @slot */
static void eject_dimm(Hpb *h, unsigned slot)
{
    qtest_outl(h->qts, 0xa00, slot);
    qtest_outb(h->qts, 0xa14, 8);
}

/* DIMMs are the balloon's while they are plugged; their units go with them */
static void test_dimm(void)
{
    Hpb *h = hpb_boot_mem("-m 256M,slots=2,maxmem=1G "
                          "-object memory-backend-ram,id=d0,size=128M", "");
    uint64_t dimm = 4 * GiB, all = RAM + 128 * MiB;
    g_autoptr(HpbReq) early = hpb_inflate(h), late = hpb_inflate(h);

    hpb_check_out(h, RAM, 0);
    hpb_range(early, dimm, h->unit);
    hpb_submit(early);
    if (hpb_answered(h, early->vq)) {
        hpb_wait(early);
        g_assert_cmpint(early->status, ==, NOT_RAM);
    } else {
        hpb_driver_init(h, HPB_FEATURES);
    }
    qtest_qmp_device_add(h->qts, "pc-dimm", "dimm0", "{ 'memdev': 'd0' }");
    hpb_check_out(h, all, 0);
    hpb_take(h, dimm + 2 * h->unit, 8 * h->unit);
    hpb_take(h, at(h, 0), 3 * h->unit);
    hpb_check_out(h, all, 11 * h->unit);

    qtest_qmp_device_del_send(h->qts, "dimm0");
    eject_dimm(h, 0);
    qtest_qmp_eventwait(h->qts, "DEVICE_DELETED");
    hpb_check_out(h, RAM, 3 * h->unit);

    qtest_qmp_device_add(h->qts, "pc-dimm", "dimm0", "{ 'memdev': 'd0' }");
    hpb_check_out(h, all, 3 * h->unit);
    hpb_range(late, dimm, 32 * h->unit);
    hpb_expect(late, OK, 32 * h->unit, NULL);
    hpb_quit(h);
}

/* DEV-12 b: memory that another device manages is not the balloon's */
static void test_virtio_mem(void)
{
    g_autoptr(HpbReq) in = NULL;
    Hpb *h;

    if (!qtest_has_device("virtio-mem-pci")) {
        g_test_skip("virtio-mem-pci is not in this QEMU");
        return;
    }
    h = hpb_boot_mem("-m 256M,slots=2,maxmem=1G "
                     "-object memory-backend-ram,id=v0,size=128M "
                     "-device virtio-mem-pci,memdev=v0,addr=05.0,"
                     "requested-size=64M", "");
    in = hpb_range(hpb_inflate(h), 4 * GiB, h->unit);
    hpb_submit(in);
    if (hpb_answered(h, in->vq)) {
        hpb_wait(in);
        g_assert_cmpint(in->status, ==, NOT_RAM);
    } else {
        hpb_driver_init(h, HPB_FEATURES);
    }
    hpb_check_out(h, RAM, 0);
    hpb_take(h, at(h, 0), h->unit);
    hpb_quit(h);
}

/* The property "out-ranges" lists exactly @expected, offset and length */
static void check_map(Hpb *h, unsigned block, const uint64_t *expected)
{
    QDict *rsp = qtest_qmp(h->qts, "{ 'execute': 'qom-get', 'arguments': "
                           "{ 'path': %s, 'property': 'out-ranges' } }",
                           HPB_PATH);
    const QListEntry *e = qlist_first(qdict_get_qlist(rsp, "return"));
    QDict *entry;

    while (block--) {
        e = qlist_next(e);
    }
    entry = qobject_to(QDict, qlist_entry_obj(e));
    g_assert_cmphex(qdict_get_int(entry, "host") % 4096, ==, 0);
    g_assert_cmphex(qdict_get_int(entry, "host"), !=, 0);
    g_assert_cmphex(qdict_get_int(entry, "page-size"), ==, 4096);
    g_assert_cmphex(qdict_get_int(entry, "size"), ==, 128 * MiB);
    g_assert_cmpint(qdict_get_int(entry, "node"), ==, e ==
                    qlist_first(qdict_get_qlist(rsp, "return")) ? 0 : 1);
    QLIST_FOREACH_ENTRY(qdict_get_qlist(entry, "ranges"), e) {
        uint64_t value = qnum_get_uint(qobject_to(QNum, qlist_entry_obj(e)));

        g_assert_cmphex(value, ==, *expected++);
    }
    g_assert_cmphex(*expected, ==, UINT64_MAX);
    qobject_unref(rsp);
}

/* Where memory is out: merged, by RAM block, also when it comes back */
static void test_map(void)
{
    Hpb *h = hpb_boot_mem("-m 256M -object memory-backend-ram,id=m0,size=128M "
                          "-object memory-backend-ram,id=m1,size=128M "
                          "-numa node,memdev=m0 -numa node,memdev=m1", "");
    uint64_t u = h->unit, end = UINT64_MAX;

    check_map(h, 0, &end);
    check_map(h, 1, &end);
    hpb_take(h, 16 * MiB, 2 * u);
    hpb_take(h, 16 * MiB + 2 * u, u);
    hpb_take(h, 64 * MiB, u);
    hpb_take(h, 256 * MiB - 4 * u, 4 * u);
    check_map(h, 0, (uint64_t[]) { 16 * MiB, 3 * u, 64 * MiB, u, end });
    check_map(h, 1, (uint64_t[]) { 128 * MiB - 4 * u, 4 * u, end });
    hpb_give(h, 16 * MiB + u, u);
    hpb_give(h, 256 * MiB - 4 * u, 4 * u);
    check_map(h, 0, (uint64_t[]) { 16 * MiB, u, 16 * MiB + 2 * u, u,
                                   64 * MiB, u, end });
    check_map(h, 1, &end);
    hpb_driver_init(h, HPB_FEATURES);
    check_map(h, 0, &end);
    hpb_quit(h);
}

#define ADD(name, fn) qtest_add_func("virtio-balloon-hp/memory/" name, fn)

void hpb_add_memory_tests(void)
{
    ADD("DEV-13-memfd-freed", test_memfd_freed);
    ADD("DEV-13-file-freed", test_file_freed);
    ADD("DEV-13-anonymous-freed", test_anonymous_freed);
    ADD("DEV-19-report-freed", test_report_freed);
    ADD("DEV-13-neighbours", test_neighbours);
    ADD("private-file", test_private_file);
    ADD("DEV-14-hugetlb", test_hugetlb);
    ADD("hole-below-4g", test_hole);
    ADD("DEV-12b-into-hole", test_into_hole);
    ADD("numa", test_numa);
    ADD("numa-unaligned", test_numa_unaligned);
    ADD("dimm", test_dimm);
    ADD("DEV-12b-virtio-mem", test_virtio_mem);
    ADD("out-ranges", test_map);
}
