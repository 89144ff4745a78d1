/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp qtest: guest statistics (DEV-21, DEV-22)
 *
 * Theory of operation: the test fills statistics buffers as a guest would, or
 * would not, and reads what QEMU made of them from the QOM property that
 * management uses. Virtual time stands still unless the test moves it,
 * so that "the device asks for new values after n seconds" is exact.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qnum.h"
#include "hpb-qtest.h"

#define RAM         (256 * MiB)
#define VQ          VIRTIO_BALLOON_HP_VQ_STATS
#define SECOND      1000000000LL
#define UNKNOWN     UINT64_MAX
#define MAX_ENTRIES 256
/* offset of the second of two buffers in the test's memory */
#define NEXT_BUFFER (64 * KiB)

/* Names, by tag, that the traditional balloon gives its statistics */
static const char *const names[] = {
    "stat-swap-in", "stat-swap-out", "stat-major-faults", "stat-minor-faults",
    "stat-free-memory", "stat-total-memory", "stat-available-memory",
    "stat-disk-caches", "stat-htlb-pgalloc", "stat-htlb-pgfail",
    "stat-oom-kills", "stat-alloc-stalls", "stat-async-scans",
    "stat-direct-scans", "stat-async-reclaims", "stat-direct-reclaims",
};
#define NR_NAMES ARRAY_SIZE(names)

typedef struct Stat {
    uint16_t tag;
    uint64_t val;
} Stat;

static uint64_t buffer_addr(unsigned which)
{
    return 8 * MiB + which * NEXT_BUFFER;
}

static void put_stats(Hpb *h, unsigned which, const Stat *stat, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        struct virtio_balloon_hp_stat s = {
            .tag = cpu_to_le16(stat[i].tag), .val = cpu_to_le64(stat[i].val),
        };

        qtest_memwrite(h->qts, buffer_addr(which) + i * sizeof(s), &s,
                       sizeof(s));
    }
}

/* Make a buffer of @len bytes available; the device keeps it */
static void send_buffer(Hpb *h, unsigned which, uint32_t len)
{
    HpbDesc d = { buffer_addr(which), len, 0 };

    hpb_chain(h, VQ, &d, 1, false);
}

static void send_stats(Hpb *h, unsigned which, const Stat *stat, unsigned n)
{
    put_stats(h, which, stat, n);
    send_buffer(h, which, n * sizeof(struct virtio_balloon_hp_stat));
}

static QDict *get_stats(Hpb *h)
{
    QDict *rsp = qtest_qmp_assert_success_ref(
        h->qts, "{ 'execute': 'qom-get', 'arguments': "
        "{ 'path': %s, 'property': 'guest-stats' } }", HPB_PATH);

    g_assert_true(qdict_haskey(rsp, "last-update"));
    return rsp;
}

static uint64_t get_stat(Hpb *h, const char *name)
{
    QDict *rsp = get_stats(h);
    QNum *num = qobject_to(QNum, qdict_get(qdict_get_qdict(rsp, "stats"),
                                           name));
    uint64_t val;

    g_assert_nonnull(num);
    g_assert_true(qnum_get_try_uint(num, &val));
    qobject_unref(rsp);
    return val;
}

static void set_interval(Hpb *h, int64_t secs)
{
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'qom-set', 'arguments': "
                             "{ 'path': %s, "
                             "'property': 'guest-stats-polling-interval', "
                             "'value': %" PRId64 " } }", HPB_PATH, secs);
}

/* The shape that management knows: every name is there, unknown is all ones */
static void test_shape(void)
{
    Hpb *h = hpb_boot("");
    QDict *rsp = get_stats(h), *stats = qdict_get_qdict(rsp, "stats");

    g_assert_cmpint(qdict_get_int(rsp, "last-update"), ==, 0);
    g_assert_cmpint(qdict_size(stats), ==, NR_NAMES + 2);
    qobject_unref(rsp);
    for (unsigned i = 0; i < NR_NAMES; i++) {
        g_assert_cmphex(get_stat(h, names[i]), ==, UNKNOWN);
    }
    g_assert_cmphex(get_stat(h, "stat-free-ranges"), ==, UNKNOWN);
    g_assert_cmphex(get_stat(h, "stat-refaults"), ==, UNKNOWN);
    hpb_quit(h);
}

/* Each statistic goes where its tag says; missing ones become unknown again */
static void test_values(void)
{
    Hpb *h = hpb_boot("");
    const Stat one = { VIRTIO_BALLOON_HP_STAT_MEMFREE, 4711 };
    Stat all[NR_NAMES + 2];
    QDict *rsp;

    for (unsigned i = 0; i < NR_NAMES; i++) {
        all[i] = (Stat) { NR_NAMES - 1 - i, 1000 + NR_NAMES - 1 - i };
    }
    all[NR_NAMES] = (Stat) { VIRTIO_BALLOON_HP_STAT_FREE_RANGES, 77 };
    all[NR_NAMES + 1] = (Stat) { VIRTIO_BALLOON_HP_STAT_REFAULTS, 78 };
    send_stats(h, 0, all, NR_NAMES + 2);
    for (unsigned i = 0; i < NR_NAMES; i++) {
        g_assert_cmphex(get_stat(h, names[i]), ==, 1000 + i);
    }
    g_assert_cmphex(get_stat(h, "stat-free-ranges"), ==, 77);
    g_assert_cmphex(get_stat(h, "stat-refaults"), ==, 78);
    rsp = get_stats(h);
    g_assert_cmpint(qdict_get_int(rsp, "last-update"), >, 0);
    qobject_unref(rsp);

    set_interval(h, 1);
    qtest_clock_step(h->qts, SECOND);
    g_assert_true(hpb_answered(h, VQ));
    send_stats(h, 0, &one, 1);
    g_assert_cmphex(get_stat(h, "stat-free-memory"), ==, 4711);
    g_assert_cmphex(get_stat(h, "stat-total-memory"), ==, UNKNOWN);
    g_assert_cmphex(get_stat(h, "stat-free-ranges"), ==, UNKNOWN);
    hpb_quit(h);
}

/* DEV-21: unknown tags, and a trailing part of an entry */
static void test_unknown_tags(void)
{
    Hpb *h = hpb_boot("");
    const Stat stat[] = {
        { 0xffff, 1 }, { VIRTIO_BALLOON_HP_STAT_MEMFREE, 10 }, { 16, 2 },
        { 0xff, 3 }, { 0x101, 4 }, { VIRTIO_BALLOON_HP_STAT_MEMTOT, 20 },
        { VIRTIO_BALLOON_HP_STAT_CACHES, 30 },
    };

    put_stats(h, 0, stat, ARRAY_SIZE(stat));
    send_buffer(h, 0, sizeof(struct virtio_balloon_hp_stat) * 6 + 15);
    g_assert_cmphex(get_stat(h, "stat-free-memory"), ==, 10);
    g_assert_cmphex(get_stat(h, "stat-total-memory"), ==, 20);
    g_assert_cmphex(get_stat(h, "stat-disk-caches"), ==, UNKNOWN);
    hpb_quit(h);
}

/* DEV-21: lengths that are not a multiple of an entry, below one, above 256 */
static void test_lengths(void)
{
    static const uint32_t lengths[] = { 1, 15, 17, 4095, 16 * 300 };
    Hpb *h = hpb_boot("");
    Stat many[300];

    for (unsigned i = 0; i < ARRAY_SIZE(many); i++) {
        many[i] = (Stat) { i < MAX_ENTRIES ? 0x200 : 4, i };
    }
    many[MAX_ENTRIES - 1] = (Stat) { VIRTIO_BALLOON_HP_STAT_MEMTOT, 5 };
    put_stats(h, 0, many, ARRAY_SIZE(many));
    for (unsigned i = 0; i < ARRAY_SIZE(lengths); i++) {
        send_buffer(h, 0, lengths[i]);
        g_assert_cmphex(get_stat(h, "stat-free-memory"), ==, UNKNOWN);
    }
    /* the 256th counts, those behind it do not */
    g_assert_cmphex(get_stat(h, "stat-total-memory"), ==, 5);
    hpb_quit(h);
}

/* DEV-21: device-writable parts */
static void test_writable(void)
{
    Hpb *h = hpb_boot("");
    const HpbDesc chain[] = {
        { buffer_addr(0), 16, 0 },
        { buffer_addr(1), 16, VRING_DESC_F_WRITE },
    };

    hpb_take(h, HPB_RAM_START, h->unit);
    hpb_chain(h, VQ, chain, 2, false);
    hpb_wait_broken(h);
    hpb_check_out(h, RAM, h->unit);
    hpb_driver_init(h, HPB_FEATURES);
    hpb_chain(h, VQ, chain + 1, 1, false);
    hpb_wait_broken(h);
    hpb_driver_init(h, HPB_FEATURES);
    send_buffer(h, 0, 16);
    hpb_check_out(h, RAM, 0);
    hpb_quit(h);
}

/* DEV-22, DEV-21: the older of two buffers is returned at once, length 0 */
static void test_two_buffers(void)
{
    Hpb *h = hpb_boot("");
    const Stat a = { VIRTIO_BALLOON_HP_STAT_MEMFREE, 1 };
    const Stat b = { VIRTIO_BALLOON_HP_STAT_MEMFREE, 2 };

    send_stats(h, 0, &a, 1);
    g_assert_cmpint(hpb_collect(h, VQ), ==, 0);
    h->vq[VQ].used_len = UINT32_MAX;
    send_stats(h, 1, &b, 1);
    g_assert_true(hpb_answered(h, VQ));
    g_assert_cmpint(h->vq[VQ].used_len, ==, 0);
    g_assert_cmpint(hpb_collect(h, VQ), ==, 0);
    g_assert_cmphex(get_stat(h, "stat-free-memory"), ==, 2);
    hpb_quit(h);
}

/* The ring full of buffers: all but one come back */
static void test_many_buffers(void)
{
    Hpb *h = hpb_boot("");
    HpbQueue *q = &h->vq[VQ];
    const Stat a = { VIRTIO_BALLOON_HP_STAT_MEMFREE, 1 };
    HpbDesc d = { buffer_addr(0), 16, 0 };
    unsigned size = q->size, back = 0;

    put_stats(h, 0, &a, 1);
    for (unsigned i = 0; i < size; i++) {
        uint16_t head = q->free[--q->nfree];

        q->next[head] = head;
        hpb_desc_write(h, q->desc, head, d.addr, d.len, 0, 0);
        hpb_avail_push(h, VQ, head);
    }
    hpb_kick(h, VQ);
    while (back < size - 1) {
        uint16_t before = q->used_idx;

        g_assert_true(hpb_answered(h, VQ));
        back += (uint16_t)(q->used_idx - before);
    }
    g_assert_cmpint(back, ==, size - 1);
    g_assert_cmpint(hpb_collect(h, VQ), ==, 0);
    hpb_quit(h);
}

/* The device returns the buffer when the interval is over, and not before */
static void test_polling(void)
{
    Hpb *h = hpb_boot("");
    const Stat a = { VIRTIO_BALLOON_HP_STAT_MEMFREE, 1 };

    send_stats(h, 0, &a, 1);
    qtest_clock_step(h->qts, 100 * SECOND);
    g_assert_cmpint(hpb_collect(h, VQ), ==, 0);

    set_interval(h, 10);
    qtest_clock_step(h->qts, SECOND / 10);
    /* switching it on asks at once */
    g_assert_true(hpb_answered(h, VQ));
    for (unsigned i = 0; i < 3; i++) {
        send_stats(h, 0, &a, 1);
        qtest_clock_step(h->qts, 9 * SECOND);
        g_assert_cmpint(hpb_collect(h, VQ), ==, 0);
        h->vq[VQ].used_len = UINT32_MAX;
        qtest_clock_step(h->qts, SECOND + SECOND / 10);
        g_assert_true(hpb_answered(h, VQ));
        g_assert_cmpint(h->vq[VQ].used_len, ==, 0);
    }
    set_interval(h, 0);
    send_stats(h, 0, &a, 1);
    qtest_clock_step(h->qts, 100 * SECOND);
    g_assert_cmpint(hpb_collect(h, VQ), ==, 0);
    hpb_quit(h);
}

/* Nonsense for the interval is refused with its name in the message */
static void test_bad_interval(void)
{
    static const int64_t bad[] = { -1, INT64_MIN, INT64_MAX, 1LL << 32 };
    Hpb *h = hpb_boot("");

    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        QDict *err = qtest_qmp_assert_failure_ref(
            h->qts, "{ 'execute': 'qom-set', 'arguments': { 'path': %s, "
            "'property': 'guest-stats-polling-interval', "
            "'value': %" PRId64 " } }", HPB_PATH, bad[i]);

        g_assert_nonnull(strstr(qdict_get_str(err, "desc"),
                                "guest-stats-polling-interval"));
        qobject_unref(err);
    }
    hpb_quit(h);
}

/* A pause and a continuation neither lose the buffer nor return it twice */
static void test_stop(void)
{
    Hpb *h = hpb_boot("");
    const Stat a = { VIRTIO_BALLOON_HP_STAT_MEMFREE, 99 };

    send_stats(h, 0, &a, 1);
    for (unsigned i = 0; i < 3; i++) {
        qtest_qmp_assert_success(h->qts, "{ 'execute': 'stop' }");
        qtest_qmp_assert_success(h->qts, "{ 'execute': 'cont' }");
    }
    g_assert_cmphex(get_stat(h, "stat-free-memory"), ==, 99);
    g_assert_cmpint(hpb_collect(h, VQ), ==, 0);
    set_interval(h, 1);
    qtest_clock_step(h->qts, SECOND);
    g_assert_true(hpb_answered(h, VQ));
    g_assert_cmpint(h->vq[VQ].used_idx, ==, 1);
    hpb_quit(h);
}

/* Reset with the buffer held, polling on: the old buffer is forgotten */
static void test_reset(void)
{
    Hpb *h = hpb_boot("");
    const Stat a = { VIRTIO_BALLOON_HP_STAT_MEMFREE, 99 };

    set_interval(h, 1);
    send_stats(h, 0, &a, 1);
    hpb_driver_init(h, HPB_FEATURES);
    g_assert_cmphex(get_stat(h, "stat-free-memory"), ==, UNKNOWN);
    qtest_clock_step(h->qts, 10 * SECOND);
    g_assert_cmpint(hpb_collect(h, VQ), ==, 0);
    send_stats(h, 0, &a, 1);
    qtest_clock_step(h->qts, 10 * SECOND);
    g_assert_true(hpb_answered(h, VQ));
    hpb_quit(h);
}

#define ADD(name, fn) qtest_add_func("virtio-balloon-hp/stats/" name, fn)

void hpb_add_stats_tests(void)
{
    ADD("shape", test_shape);
    ADD("values", test_values);
    ADD("DEV-21-unknown-tags", test_unknown_tags);
    ADD("DEV-21-lengths", test_lengths);
    ADD("DEV-21-writable", test_writable);
    ADD("DEV-22-two-buffers", test_two_buffers);
    ADD("DEV-22-many-buffers", test_many_buffers);
    ADD("polling", test_polling);
    ADD("bad-interval", test_bad_interval);
    ADD("stop", test_stop);
    ADD("reset", test_reset);
}
