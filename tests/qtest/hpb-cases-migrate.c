/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp qtest: migration and saved state (DEV-20, DEV-27)
 *
 * Theory of operation: two QEMUs and a unix socket, or a file in between. The
 * driver goes on with the same rings on the destination (hpb_migrated()), so
 * that whatever the device forgets shows up as a wrong answer. What happens
 * while it runs is in hpb-cases-live.c, what does not fit in hpb-cases-load.c.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "hpb-qtest.h"
#include "hpb-qtest-migrate.h"

#define RAM     (256 * MiB)
#define OK      VIRTIO_BALLOON_HP_OK
#define ARGS    HPB_PC "-m 256M " HPB_DEV_PCI

static uint64_t at(Hpb *h, unsigned i)
{
    return HPB_RAM_START + i * h->unit;
}

/* Out: units 2..9 and 20; then all of it has to be known on the other side */
static void make_state(Hpb *h)
{
    hpb_qmp_balloon(h, RAM - 30 * h->unit);
    hpb_fill(h, at(h, 10), 10 * h->unit, 0x5a);
    hpb_take(h, at(h, 2), 8 * h->unit);
    hpb_take(h, at(h, 20), h->unit);
}

static void check_state(Hpb *h)
{
    g_autoptr(HpbReq) in = hpb_inflate(h), out = hpb_deflate(h);
    const HpbExc not_out[] = {
        { 0, 2, VIRTIO_BALLOON_HP_NOT_OUT },
        { 10, 10, VIRTIO_BALLOON_HP_NOT_OUT },
        { 21, 4, VIRTIO_BALLOON_HP_NOT_OUT }, { 0 },
    };

    hpb_check_out(h, RAM, 9 * h->unit);
    g_assert_true(hpb_filled(h, at(h, 10), 10 * h->unit, 0x5a));
    hpb_range(in, at(h, 2), 8 * h->unit);
    hpb_expect(in, VIRTIO_BALLOON_HP_ALREADY_OUT, 0, NULL);
    hpb_range(out, at(h, 0), 25 * h->unit);
    hpb_expect(out, VIRTIO_BALLOON_HP_PARTIAL, 9 * h->unit, not_out);
    hpb_check_out(h, RAM, 0);
}

/* DEV-27: what is out, requested and actual */
static void test_live(void)
{
    Hpb *h = hpb_boot("");
    QDict *event;
    HpbDir d;

    hpb_dir_init(&d);
    make_state(h);
    hpb_move(h, hpb_start_incoming(ARGS, &d), &d);
    g_assert_cmphex(HPB_CFG(h, requested), ==, 30 * h->unit);
    /* management on this side has never heard of the size */
    event = qtest_qmp_eventwait_ref(h->qts, "BALLOON_CHANGE");
    g_assert_cmphex(qdict_get_int(qdict_get_qdict(event, "data"), "actual"),
                    ==, RAM - 9 * h->unit);
    qobject_unref(event);
    check_state(h);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* DEV-27: twice, with changes in between, and with shared memory files */
static void test_twice(void)
{
    const char *mem = "-m 256M -machine memory-backend=m -object "
                      "memory-backend-memfd,id=m,size=256M,share=on";
    g_autofree char *args = g_strdup_printf(HPB_PC "%s " HPB_DEV_PCI, mem);
    Hpb *h = hpb_boot_mem(mem, "");
    HpbDir d;

    hpb_dir_init(&d);
    hpb_take(h, at(h, 60), 10 * h->unit);
    hpb_move(h, hpb_start_incoming(args, &d), &d);
    hpb_give(h, at(h, 60), 10 * h->unit);
    make_state(h);
    hpb_move(h, hpb_start_incoming(args, &d), &d);
    check_state(h);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* Save to a file, load from it later, as managedsave does */
static void test_file(void)
{
    Hpb *h = hpb_boot("");
    QTestState *to;
    HpbDir d;

    hpb_dir_init(&d);
    make_state(h);
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'stop' }");
    hpb_migrate(h->qts, d.file_uri);
    g_assert_true(hpb_migration_ended(h->qts));
    to = hpb_start_incoming(ARGS, &d);
    hpb_incoming(to, d.file_uri);
    g_assert_true(hpb_migration_ended(to));
    hpb_migrated(h, to);
    qtest_qmp_assert_success(to, "{ 'execute': 'cont' }");
    check_state(h);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* Two nodes, something out of each */
static void test_numa(void)
{
    const char *mem = "-m 256M -object memory-backend-ram,id=m0,size=128M "
                      "-object memory-backend-ram,id=m1,size=128M "
                      "-numa node,memdev=m0 -numa node,memdev=m1";
    g_autofree char *args = g_strdup_printf(HPB_PC "%s " HPB_DEV_PCI, mem);
    Hpb *h = hpb_boot_mem(mem, "");
    HpbDir d;

    hpb_dir_init(&d);
    hpb_take(h, 124 * MiB, 8 * MiB);
    hpb_take(h, 250 * MiB, 4 * MiB);
    hpb_move(h, hpb_start_incoming(args, &d), &d);
    hpb_check_out(h, RAM, 12 * MiB);
    hpb_give(h, 124 * MiB, 8 * MiB);
    hpb_give(h, 250 * MiB, 4 * MiB);
    hpb_check_out(h, RAM, 0);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* libvirt sets the target before the state comes: it is the newer one */
static void test_target_before_state(void)
{
    Hpb *h = hpb_boot("");
    QTestState *to;
    HpbDir d;

    hpb_dir_init(&d);
    make_state(h);
    to = hpb_start_incoming(ARGS, &d);
    qtest_qmp_assert_success(to, "{ 'execute': 'balloon', 'arguments': "
                             "{ 'value': %" PRIu64 " } }", RAM - 7 * h->unit);
    hpb_move(h, to, &d);
    g_assert_cmphex(HPB_CFG(h, requested), ==, 7 * h->unit);
    check_state(h);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* DEV-20: paused, requests in the ring; the destination answers them */
static void test_available(void)
{
    Hpb *h = hpb_boot("");
    g_autoptr(HpbReq) in = hpb_inflate(h), out = hpb_deflate(h);
    QTestState *to;
    HpbDir d;

    hpb_dir_init(&d);
    hpb_take(h, at(h, 50), 2 * h->unit);
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'stop' }");
    hpb_submit(hpb_range(in, at(h, 1), 4 * h->unit));
    hpb_submit(hpb_range(out, at(h, 50), h->unit));
    to = hpb_start_incoming(ARGS, &d);
    hpb_move(h, to, &d);
    g_assert_false(in->answered);
    qtest_qmp_assert_success(to, "{ 'execute': 'cont' }");
    hpb_wait(in);
    hpb_wait(out);
    g_assert_cmpint(in->status, ==, OK);
    g_assert_cmpint(out->status, ==, OK);
    hpb_check_out(h, RAM, 5 * h->unit);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* DEV-20: requests arrive while the migration runs; each is answered once */
static void test_in_flight(void)
{
    enum { N = 60 };
    Hpb *h = hpb_boot("");
    QTestState *to;
    HpbReq *in[N];
    uint64_t done = 0;
    HpbDir d;

    hpb_dir_init(&d);
    hpb_fill(h, at(h, 0), N * h->unit, 1);
    to = hpb_start_incoming(ARGS, &d);
    hpb_incoming(to, d.uri);
    for (unsigned i = 0; i < N; i++) {
        in[i] = hpb_range(hpb_inflate(h), at(h, i), h->unit);
        hpb_add(in[i]);
    }
    hpb_migrate(h->qts, d.uri);
    hpb_kick(h, VIRTIO_BALLOON_HP_VQ_INFLATE);
    g_assert_true(hpb_migration_ended(h->qts));
    g_assert_true(hpb_migration_ended(to));
    hpb_migrated(h, to);
    hpb_wait_running(to, true);
    for (unsigned i = 0; i < N; i++) {
        hpb_wait(in[i]);
        done += in[i]->done;
        g_assert_true(in[i]->status == OK ||
                      in[i]->status == VIRTIO_BALLOON_HP_AGAIN);
        hpb_req_free(in[i]);
    }
    hpb_check_out(h, RAM, done);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* A statistics buffer that the source holds is not lost */
static void test_stats_buffer(void)
{
    Hpb *h = hpb_boot("");
    const HpbDesc buf = { 8 * MiB, 16, 0 };
    HpbDir d;

    hpb_dir_init(&d);
    hpb_chain(h, VIRTIO_BALLOON_HP_VQ_STATS, &buf, 1, false);
    g_assert_cmpint(hpb_collect(h, VIRTIO_BALLOON_HP_VQ_STATS), ==, 0);
    hpb_move(h, hpb_start_incoming(ARGS, &d), &d);
    hpb_wait_running(h->qts, true);
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'qom-set', 'arguments': "
                             "{ 'path': %s, "
                             "'property': 'guest-stats-polling-interval', "
                             "'value': 1 } }", HPB_PATH);
    qtest_clock_step(h->qts, 2000000000LL);
    g_assert_true(hpb_answered(h, VIRTIO_BALLOON_HP_VQ_STATS));
    hpb_quit(h);
    hpb_dir_done(&d);
}

/*
 * DEV-19: memory that the destination has already been sent is reported, or
 * taken and given back, on the source. ZEROED is a promise about where the
 * driver reads next, and that is the destination.
 */
static void test_zeroed_while_migrating(void)
{
    Hpb *h = hpb_boot_mem("-m 256M", ",free-page-reporting=on");
    g_autoptr(HpbReq) rep = hpb_report(h), out = hpb_deflate(h);
    QTestState *to;
    HpbDir d;

    hpb_dir_init(&d);
    /* sent first, in the order of addresses; and what keeps it busy then */
    hpb_fill(h, at(h, 0), 2 * h->unit, 0x5a);
    for (unsigned i = 0; i < 3; i++) {
        hpb_fill(h, at(h, 50 + 8 * i), 8 * h->unit, 1);
    }
    to = hpb_start_incoming(HPB_PC "-m 256M " HPB_DEV_PCI
                        ",free-page-reporting=on", &d);
    hpb_move_start(h, to, &d, 8 * MiB);
    hpb_wait_sent(h, 3 * h->unit);
    hpb_range(rep, at(h, 0), h->unit);
    hpb_expect(rep, OK, h->unit, NULL);
    hpb_take(h, at(h, 1), h->unit);
    hpb_range(out, at(h, 1), h->unit);
    hpb_expect(out, OK, h->unit, NULL);
    hpb_move_finish(h, to);
    if (rep->resp_flags & VIRTIO_BALLOON_HP_RESP_F_ZEROED) {
        g_assert_true(hpb_filled(h, at(h, 0), h->unit, 0));
    }
    if (out->resp_flags & VIRTIO_BALLOON_HP_RESP_F_ZEROED) {
        g_assert_true(hpb_filled(h, at(h, 1), h->unit, 0));
    }
    hpb_check_out(h, RAM, 0);
    hpb_quit(h);
    hpb_dir_done(&d);
}

#define ADD(name, fn) qtest_add_func("virtio-balloon-hp/migrate/" name, fn)

void hpb_add_migrate_tests(void)
{
    ADD("DEV-27-live", test_live);
    ADD("DEV-27-twice", test_twice);
    ADD("DEV-27-file", test_file);
    ADD("DEV-27-numa", test_numa);
    ADD("target-before-state", test_target_before_state);
    ADD("DEV-20-available", test_available);
    ADD("DEV-20-in-flight", test_in_flight);
    ADD("stats-buffer", test_stats_buffer);
    ADD("DEV-19-zeroed-while-migrating", test_zeroed_while_migrating);
}
