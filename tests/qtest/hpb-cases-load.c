/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp qtest: state that does not fit, and old state (DEV-27)
 *
 * Theory of operation: a destination that differs from the source in one
 * thing says what it is and ends the migration, and the source goes on. Streams
 * that no device of ours would write are made by changing single fields of a
 * saved one. Streams of older versions are made by putting what those wrote,
 * which is recorded here byte by byte, in the place of what this one writes:
 * what is recorded is never to be changed.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "hpb-qtest.h"
#include "hpb-qtest-migrate.h"

#define RAM     (256 * MiB)
#define OK      VIRTIO_BALLOON_HP_OK
#define ARGS    HPB_PC "-m 256M " HPB_DEV_PCI
#define NODES(size0, size1, memory1) \
    "-object memory-backend-ram,id=m0,size=" size0 " " \
    "-object " memory1 ",id=m1,size=" size1 " " \
    "-numa node,memdev=m0 -numa node,memdev=m1 "
#define TWO     "-m 256M " NODES("128M", "128M", "memory-backend-ram")
#define HUGE    "memory-backend-memfd,share=on,hugetlb=on,hugetlbsize=2M," \
                "prealloc=on"
#define POOL    "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages"

static uint64_t at(Hpb *h, unsigned i)
{
    return HPB_RAM_START + i * h->unit;
}

/* Out: units 2..9 and 20, by addresses that are below the second node */
static void make_state(Hpb *h)
{
    hpb_qmp_balloon(h, RAM - 30 * h->unit);
    hpb_take(h, at(h, 2), 8 * h->unit);
    hpb_take(h, at(h, 20), h->unit);
}

static void check_state(Hpb *h, uint64_t ram)
{
    hpb_check_out(h, ram, 9 * h->unit);
    hpb_give(h, at(h, 2), 8 * h->unit);
    hpb_give(h, at(h, 20), h->unit);
    hpb_check_out(h, ram, 0);
}

/* Does not fit; the reason is said, and @h goes on. */
static void refuse(Hpb *h, const char *args, const char *word)
{
    g_autofree char *said = NULL;
    QTestState *to;
    HpbDir d;

    hpb_dir_init(&d);
    to = hpb_start_incoming(args, &d);
    hpb_migrate_capability(h->qts, "return-path");
    hpb_migrate_capability(to, "return-path");
    hpb_incoming(to, d.uri);
    hpb_migrate(h->qts, d.uri);
    g_assert_false(hpb_migration_ended(to));
    g_assert_false(hpb_migration_ended(h->qts));
    hpb_wait_running(h->qts, true);
    qtest_quit(to);
    g_assert_true(g_file_get_contents(d.log, &said, NULL, NULL));
    g_test_message("%s", said);
    g_assert_nonnull(strstr(said, word));
    hpb_dir_done(&d);
}

static void expect_misfit(const char *mem, const char *props, const char *args,
                          const char *word)
{
    Hpb *h = hpb_boot_mem(mem, props);
    uint64_t ram = hpb_qmp_query(h);

    make_state(h);
    refuse(h, args, word);
    check_state(h, ram);
    hpb_quit(h);
}

static void test_other_unit(void)
{
    expect_misfit("-m 256M", "", HPB_PC "-m 256M " HPB_DEV_PCI ",unit=4M",
                  "unit=2097152");
}

/* One piece of memory here, two there */
static void test_other_split(void)
{
    expect_misfit("-m 256M", "", HPB_PC TWO HPB_DEV_PCI, "pc.ram");
}

/* As many pieces, of other sizes */
static void test_other_node_sizes(void)
{
    expect_misfit(TWO, "", HPB_PC "-m 256M "
                  NODES("96M", "160M", "memory-backend-ram") HPB_DEV_PCI,
                  "m0");
}

static void test_no_device(void)
{
    expect_misfit("-m 256M", "", HPB_PC "-m 256M", "virtio-balloon-hp");
}

static bool need_pool(int pages)
{
    g_autofree char *text = NULL;

    if (g_file_get_contents(POOL, &text, NULL, NULL) && atoi(text) >= pages) {
        return true;
    }
    g_test_skip("needs 40 free huge pages (sysctl vm.nr_hugepages=40)");
    return false;
}

/* Pages that are larger than the unit: what is out of them cannot be here */
static void test_huge_destination(void)
{
    const char *unit = ",unit=64K";
    Hpb *h;

    if (!need_pool(40)) {
        return;
    }
    h = hpb_boot_mem("-m 128M " NODES("64M", "64M", "memory-backend-ram"),
                     unit);
    hpb_take(h, 64 * MiB, 4 * h->unit);
    refuse(h, HPB_PC "-m 128M " NODES("64M", "64M", HUGE) HPB_DEV_PCI
           ",unit=64K", "use the memory backend of the source");
    hpb_check_out(h, 128 * MiB, 4 * h->unit);
    hpb_give(h, 64 * MiB, 4 * h->unit);
    hpb_check_out(h, 128 * MiB, 0);
    hpb_quit(h);
}

/* Other pages, not larger than the unit: there and back, and both can free */
static void test_other_pages(void)
{
    const char *ram = "-m 64M -machine memory-backend=m -object "
                      "memory-backend-ram,id=m,size=64M";
    const char *huge = "-m 64M -machine memory-backend=m -object "
                       HUGE ",id=m,size=64M";
    g_autofree char *to_ram = g_strdup_printf(HPB_PC "%s " HPB_DEV_PCI, ram);
    g_autofree char *to_huge = g_strdup_printf(HPB_PC "%s " HPB_DEV_PCI, huge);
    HpbDir d;
    Hpb *h;

    if (!need_pool(40)) {
        return;
    }
    hpb_dir_init(&d);
    h = hpb_boot_mem(ram, "");
    hpb_take(h, at(h, 2), 8 * h->unit);
    hpb_fill(h, at(h, 12), h->unit, 0x12);
    hpb_move(h, hpb_start_incoming(to_huge, &d), &d);
    hpb_check_out(h, 64 * MiB, 8 * h->unit);
    hpb_take(h, at(h, 20), h->unit);
    hpb_move(h, hpb_start_incoming(to_ram, &d), &d);
    g_assert_true(hpb_filled(h, at(h, 12), h->unit, 0x12));
    check_state(h, 64 * MiB);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* Where the fields of saved state are, behind the unit */
enum {
    REQUESTED = -8, UNIT = 0, NR = 8, IDSTR = 12, LENGTH = IDSTR + 256,
    BYTES = LENGTH + 8, BITS = BYTES + 4,
};

/* Fields set to what no device writes; the last four are harmless */
static const struct { int at, size; uint64_t value; bool loads; } damages[] = {
    { UNIT, 8, 0, false },
    { UNIT, 8, 3, false },
    { UNIT, 8, UINT64_MAX, false },
    { NR, 4, 0xffffffff, false },
    { NR, 4, 0x7fffffff, false },
    { NR, 4, 2, false },
    { IDSTR, 8, 0x4141414141414141, false },
    { IDSTR, 1, 0, false },
    { LENGTH, 8, 0, false },
    { LENGTH, 8, 128 * MiB, false },
    { LENGTH, 8, UINT64_MAX, false },
    { BYTES, 4, 0, false },
    { BYTES, 4, 4, false },
    { BYTES, 4, 8, false },
    { BYTES, 4, 24, false },
    { BYTES, 4, 0xfffffff8, false },
    { BITS, 8, 0, true },
    { BITS + 8, 8, UINT64_MAX, true },
    { REQUESTED, 8, UINT64_MAX, true },
    { REQUESTED, 8, 12345, true },
};

/* Where the unit is in the state of a device with something out of @name */
static size_t find_state(const char *data, size_t len, uint64_t unit,
                         const char *name)
{
    uint8_t key[12 + 256] = { 0 };

    stq_be_p(key, unit);
    stl_be_p(key + 8, 1);
    memcpy(key + 12, name, strlen(name));
    for (size_t i = 0; i + sizeof(key) < len; i++) {
        if (!memcmp(data + i, key, sizeof(key))) {
            return i;
        }
    }
    g_error("the saved state is not where it is looked for");
}

/* DEV-27: a damaged stream is refused, or harmless: QEMU survives it */
static void test_damaged(void)
{
    Hpb *h = hpb_boot("");
    g_autofree char *data = NULL;
    uint64_t unit = h->unit;
    size_t len, start;
    HpbDir d;

    hpb_dir_init(&d);
    make_state(h);
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'stop' }");
    hpb_migrate(h->qts, d.file_uri);
    g_assert_true(hpb_migration_ended(h->qts));
    hpb_quit(h);
    g_assert_true(g_file_get_contents(d.file, &data, &len, NULL));
    start = find_state(data, len, unit, "pc.ram");
    for (unsigned i = 0; i < ARRAY_SIZE(damages); i++) {
        size_t where = start + damages[i].at;
        char saved[8], value[8];
        Hpb *to;
        bool loaded;

        memcpy(saved, data + where, 8);
        stq_be_p(value, damages[i].value);
        memcpy(data + where, value + 8 - damages[i].size, damages[i].size);
        g_assert_true(g_file_set_contents(d.file, data, len, NULL));
        memcpy(data + where, saved, 8);

        to = hpb_attach(hpb_start_incoming(ARGS, &d));
        hpb_incoming(to->qts, d.file_uri);
        loaded = hpb_migration_ended(to->qts);
        g_test_message("case %u: %s", i, loaded ? "loaded" : "refused");
        g_assert_true(loaded == damages[i].loads);
        if (loaded) {
            qtest_qmp_assert_success(to->qts, "{ 'execute': 'cont' }");
            hpb_probe_pci(to);
            g_assert_cmphex(HPB_CFG(to, actual) % unit, ==, 0);
            g_assert_cmphex(HPB_CFG(to, requested) % unit, ==, 0);
            g_assert_cmphex(hpb_qmp_query(to), ==, RAM - HPB_CFG(to, actual));
            hpb_driver_init(to, HPB_FEATURES);
            hpb_take(to, HPB_RAM_START, RAM - HPB_RAM_START);
        }
        hpb_quit(to);
    }
    hpb_dir_done(&d);
}

/*
 * What the device wrote in version 1, from requested to the last bitmap: 256
 * MiB in units of 2 MiB, 60 MiB requested, units 10..17 and 28 out of one block
 */
static const uint8_t recorded_one[] = {
    0x00, 0x00, 0x00, 0x00, 0x03, 0xc0, 0x00, 0x00,     /* requested */
    0x00, 0x00, 0x00, 0x00, 0x00, 0x20, 0x00, 0x00,     /* unit */
    0x00, 0x00, 0x00, 0x01,                             /* blocks */
    'p', 'c', '.', 'r', 'a', 'm',
    [276] = 0x00, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, /* length */
    0x00, 0x00, 0x00, 0x10,                             /* bytes */
    0x00, 0xfc, 0x03, 0x10, 0x00, 0x00, 0x00, 0x00,     /* bitmap */
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
};

/* Likewise of the first of two nodes, without targets of nodes */
static const uint8_t recorded_node[] = {
    0x00, 0x00, 0x00, 0x00, 0x03, 0xc0, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x20, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x01,
    'm', '0',
    [276] = 0x00, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x08,
    0x00, 0xfc, 0x03, 0x10, 0x00, 0x00, 0x00, 0x00,
};

/* And with them: 20 MiB of the first and 40 MiB of the second */
static const uint8_t recorded_targets[] = {
    0x00, 0x00, 0x00, 0x00, 0x03, 0xc0, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x00, 0x20, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x01,
    'm', '0',
    [276] = 0x00, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x08,
    0x00, 0xfc, 0x03, 0x10, 0x00, 0x00, 0x00, 0x00,
    0x05, 30,                                           /* subsection */
    'v', 'i', 'r', 't', 'i', 'o', '-', 'b', 'a', 'l', 'l', 'o', 'o', 'n', '-',
    'h', 'p', '-', 'd', 'e', 'v', 'i', 'c', 'e', '/', 'n', 'o', 'd', 'e', 's',
    0x00, 0x00, 0x00, 0x01,                             /* its version */
    0x00, 0x00, 0x00, 0x02,                             /* nodes */
    0x00, 0x00, 0x00, 0x00, 0x01, 0x40, 0x00, 0x00,
    0x00, 0x00, 0x00, 0x00, 0x02, 0x80, 0x00, 0x00,
};

/* Where the subsections of all virtio devices begin, behind our state */
static size_t find_end(const char *data, size_t len, size_t from)
{
    for (size_t i = from; i + 9 < len; i++) {
        if (data[i] == 5 && !memcmp(data + i + 2, "virtio/", 7)) {
            return i;
        }
    }
    g_error("the saved state does not end where its end is looked for");
}

/*
 * Load @recorded in a machine with @mem, of which the block @name is in it.
 * The stream around it is one of today, whose device has something else out.
 */
static Hpb *load_recorded(const char *mem, const char *name,
                          const uint8_t *recorded, size_t size)
{
    g_autofree char *args = g_strdup_printf(HPB_PC "%s " HPB_DEV_PCI, mem);
    g_autoptr(GByteArray) stream = g_byte_array_new();
    g_autofree char *data = NULL;
    Hpb *h = hpb_boot_mem(mem, "");
    size_t len, start, end;
    QTestState *to;
    HpbDir d;

    hpb_dir_init(&d);
    hpb_take(h, at(h, 0), h->unit);
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'stop' }");
    hpb_migrate(h->qts, d.file_uri);
    g_assert_true(hpb_migration_ended(h->qts));
    g_assert_true(g_file_get_contents(d.file, &data, &len, NULL));
    start = find_state(data, len, h->unit, name) + REQUESTED;
    end = find_end(data, len, start);
    g_byte_array_append(stream, (uint8_t *)data, start);
    g_byte_array_append(stream, recorded, size);
    g_byte_array_append(stream, (uint8_t *)data + end, len - end);
    g_assert_true(g_file_set_contents(d.file, (char *)stream->data,
                                      stream->len, NULL));
    to = hpb_start_incoming(args, &d);
    hpb_incoming(to, d.file_uri);
    g_assert_true(hpb_migration_ended(to));
    hpb_migrated(h, to);
    qtest_qmp_assert_success(to, "{ 'execute': 'cont' }");
    g_assert_cmphex(HPB_CFG(h, requested), ==, 60 * MiB);
    hpb_dir_done(&d);
    return h;
}

/* DEV-27: version 1, before there was anything optional */
static void test_recorded(void)
{
    Hpb *h = load_recorded("-m 256M", "pc.ram", recorded_one,
                           sizeof(recorded_one));

    check_state(h, RAM);
    hpb_quit(h);
}

/* Sizes of nodes as somebody set them; -1 where nobody did */
static void check_node_sizes(Hpb *h, int64_t first, int64_t second)
{
    const int64_t expected[] = { first, second };
    QDict *rsp = qtest_qmp(h->qts, "{ 'execute': 'qom-get', 'arguments': "
                           "{ 'path': %s, 'property': 'nodes' } }", HPB_PATH);
    const QListEntry *entry = qlist_first(qdict_get_qlist(rsp, "return"));

    for (unsigned i = 0; i < 2; i++, entry = qlist_next(entry)) {
        QDict *node = qobject_to(QDict, qlist_entry_obj(entry));

        g_assert_cmpint(qdict_get_try_int(node, "requested-size", -1), ==,
                        expected[i]);
    }
    g_assert_null(entry);
    qobject_unref(rsp);
}

/* A machine with nodes, and a source that had no targets of them, or had */
static void test_recorded_node(void)
{
    Hpb *h = load_recorded(TWO, "m0", recorded_node, sizeof(recorded_node));

    check_node_sizes(h, -1, -1);
    check_state(h, RAM);
    hpb_quit(h);
}

static void test_recorded_targets(void)
{
    Hpb *h = load_recorded(TWO, "m0", recorded_targets,
                           sizeof(recorded_targets));

    check_node_sizes(h, 108 * MiB, 88 * MiB);
    check_state(h, RAM);
    hpb_quit(h);
}

#define ADD(name, fn) qtest_add_func("virtio-balloon-hp/load/" name, fn)

void hpb_add_load_tests(void)
{
    ADD("DEV-27-other-unit", test_other_unit);
    ADD("DEV-27-other-split", test_other_split);
    ADD("DEV-27-other-node-sizes", test_other_node_sizes);
    ADD("DEV-27-no-device", test_no_device);
    ADD("DEV-27-huge-destination", test_huge_destination);
    ADD("DEV-27-other-pages", test_other_pages);
    ADD("DEV-27-damaged", test_damaged);
    ADD("DEV-27-recorded", test_recorded);
    ADD("DEV-27-recorded-node", test_recorded_node);
    ADD("DEV-27-recorded-targets", test_recorded_targets);
}
