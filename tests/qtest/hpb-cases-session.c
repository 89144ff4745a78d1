/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp qtest: what is lent for the time of a migration (DEV-33)
 *
 * Theory of operation: a migration is started, and waits for the guest to lend.
 * Meanwhile the test plays a driver that does so, in every way that a driver or
 * an operator can end the waiting. The configuration tells what is asked for;
 * nobody may see anything of a loan afterwards, on either side.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "hpb-qtest.h"
#include "hpb-qtest-migrate.h"

#define RAM         (256 * MiB)
#define ARGS        HPB_PC "-m 256M " HPB_DEV_PCI
#define BOTH        ((1ULL << VIRTIO_BALLOON_HP_F_STATE) | \
                     (1ULL << VIRTIO_BALLOON_HP_F_RECLAIM))
#define LEND_FREE   VIRTIO_BALLOON_HP_RECLAIM_LEND_FREE
#define LEND_CLEAN  VIRTIO_BALLOON_HP_RECLAIM_LEND_CLEAN
#define CLEAN       VIRTIO_BALLOON_HP_RECLAIM_CLEAN
#define NONE        VIRTIO_BALLOON_HP_STOP_NONE
#define FLOOR       VIRTIO_BALLOON_HP_STOP_FLOOR
/* Longer than a test takes: whoever waits so long has missed something */
#define FOREVER     100000
#define START       (HPB_RAM_START + 32 * MiB)
/* Memory that takes long to send, so that the migration is not over at once */
#define BUSY        (RAM - 16 * MiB)
#define NR_BUSY     8

static Hpb *boot(const char *lend)
{
    g_autofree char *props = g_strdup_printf(",migration-lend=%s", lend);
    Hpb *h = hpb_boot(props);

    hpb_driver_init(h, HPB_FEATURES | BOTH);
    g_assert_cmphex(h->features & BOTH, ==, BOTH);
    return h;
}

static void set_time(Hpb *h, uint64_t ms)
{
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'qom-set', 'arguments': "
                             "{ 'path': %s, 'property': 'migration-lend-time', "
                             "'value': %" PRIu64 " } }", HPB_PATH, ms);
}

static void wait_status(QTestState *qts, const char *want)
{
    gint64 start = g_get_monotonic_time();

    for (;;) {
        g_autofree char *status = hpb_migration_status(qts);

        if (!strcmp(status, want)) {
            return;
        }
        g_assert_cmpint(g_get_monotonic_time() - start, <, HPB_TIMEOUT_US);
    }
}

static void check_config(Hpb *h, uint64_t requested, uint32_t reclaim)
{
    g_assert_cmphex(HPB_CFG(h, requested), ==, requested);
    g_assert_cmpint(HPB_CFG(h, reclaim), ==, reclaim);
}

static void check_session(Hpb *h, bool active, uint64_t lent, uint64_t most)
{
    QDict *d = qtest_qmp_assert_success_ref(
        h->qts, "{ 'execute': 'qom-get', 'arguments': "
        "{ 'path': %s, 'property': 'migration-session' } }", HPB_PATH);

    g_assert_true(qdict_get_bool(d, "active") == active);
    g_assert_cmphex(qdict_get_int(d, "lent"), ==, lent);
    g_assert_cmphex(qdict_get_int(d, "most-lent"), ==, most);
    qobject_unref(d);
}

/* Migrate to @to, slowly; returns when the guest is asked to lend */
static void start(Hpb *h, QTestState *to, HpbDir *d, uint32_t reclaim)
{
    hpb_fill(h, BUSY, NR_BUSY * h->unit, 0xbb);
    hpb_isr(h);
    hpb_move_start(h, to, d, MiB);
    wait_status(h->qts, "wait-unplug");
    check_config(h, RAM, reclaim);
    g_assert_true(hpb_isr(h) & HPB_ISR_CONFIG);
}

/* The destination has what was out, and the target that there was before */
static void test_lend(void)
{
    QTestState *to;
    HpbDir d;
    Hpb *h = boot("free");

    hpb_dir_init(&d);
    set_time(h, FOREVER);
    hpb_qmp_balloon(h, 192 * MiB);
    hpb_take(h, HPB_RAM_START, 32 * MiB);
    check_config(h, 64 * MiB, CLEAN);
    to = hpb_start_incoming(ARGS, &d);
    start(h, to, &d, LEND_FREE);
    hpb_take(h, START, 48 * MiB);
    check_session(h, true, 16 * MiB, 16 * MiB);
    /* about another target, or no end: the waiting goes on */
    hpb_tell(h, FLOOR, 64 * MiB, 0, 0);
    hpb_tell(h, NONE, RAM, 0, 0);
    wait_status(h->qts, "wait-unplug");
    hpb_tell(h, FLOOR, RAM, 0, 0);
    hpb_move_finish(h, to);
    hpb_check_out(h, RAM, 80 * MiB);
    while (!(hpb_isr(h) & HPB_ISR_CONFIG)) {
        qtest_clock_step(h->qts, 1000);
    }
    check_config(h, 64 * MiB, CLEAN);
    check_session(h, false, 0, 0);
    hpb_give(h, START, 16 * MiB);
    hpb_check_out(h, RAM, 64 * MiB);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* Page cache as well; a guest that is short of memory ends the waiting too */
static void test_clean(void)
{
    QTestState *to;
    HpbDir d;
    Hpb *h = boot("clean");

    hpb_dir_init(&d);
    set_time(h, FOREVER);
    to = hpb_start_incoming(ARGS, &d);
    start(h, to, &d, LEND_CLEAN);
    hpb_take(h, START, 8 * h->unit);
    hpb_tell(h, NONE, RAM, 0, 1);
    check_config(h, 7 * h->unit, LEND_CLEAN);
    hpb_move_finish(h, to);
    hpb_check_out(h, RAM, 8 * h->unit);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* A guest that says nothing delays the migration, and no longer than allowed */
static void test_silent(void)
{
    QTestState *to;
    QDict *rsp;
    HpbDir d;
    Hpb *h = boot("free");

    hpb_dir_init(&d);
    set_time(h, 1000);
    to = hpb_start_incoming(ARGS, &d);
    hpb_move_start(h, to, &d, 10 * GiB);
    g_assert_true(hpb_migration_ended(h->qts));
    rsp = qtest_qmp_assert_success_ref(h->qts,
                                       "{ 'execute': 'query-migrate' }");
    g_assert_cmpint(qdict_get_int(rsp, "setup-time"), >=, 500);
    qobject_unref(rsp);
    g_assert_true(hpb_migration_ended(to));
    hpb_migrated(h, to);
    check_config(h, 0, CLEAN);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* No waiting at all: lending goes on beside the migration */
static void test_no_time(void)
{
    QTestState *to;
    HpbDir d;
    Hpb *h = boot("free");

    hpb_dir_init(&d);
    set_time(h, 0);
    hpb_fill(h, BUSY, NR_BUSY * h->unit, 0xbb);
    to = hpb_start_incoming(ARGS, &d);
    hpb_move_start(h, to, &d, MiB);
    wait_status(h->qts, "active");
    check_config(h, RAM, LEND_FREE);
    hpb_take(h, START, h->unit);
    check_session(h, true, h->unit, h->unit);
    hpb_move_finish(h, to);
    hpb_check_out(h, RAM, h->unit);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* Cancelled while it waits: at once, and as if nothing had been */
static void test_cancel(void)
{
    QTestState *to;
    HpbDir d;
    Hpb *h = boot("free");

    hpb_dir_init(&d);
    set_time(h, FOREVER);
    to = hpb_start_incoming(ARGS, &d);
    start(h, to, &d, LEND_FREE);
    hpb_take(h, START, 4 * h->unit);
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'migrate_cancel' }");
    wait_status(h->qts, "cancelled");
    check_config(h, 0, CLEAN);
    g_assert_true(hpb_isr(h) & HPB_ISR_CONFIG);
    check_session(h, false, 0, 4 * h->unit);
    hpb_give(h, START, 4 * h->unit);
    hpb_check_out(h, RAM, 0);
    qtest_quit(to);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* What the guest wants back is not asked for again */
static void test_wanted(void)
{
    QTestState *to;
    HpbDir d;
    Hpb *h = boot("free");

    hpb_dir_init(&d);
    set_time(h, FOREVER);
    hpb_qmp_balloon(h, RAM - 16 * MiB);
    to = hpb_start_incoming(ARGS, &d);
    start(h, to, &d, LEND_FREE);
    hpb_take(h, START, 64 * MiB);
    hpb_tell(h, NONE, RAM, 0, 20 * MiB + 1);
    check_config(h, 42 * MiB, LEND_FREE);
    g_assert_true(hpb_isr(h) & HPB_ISR_CONFIG);
    hpb_give(h, START, 22 * MiB);
    /* never below what the operator has asked for */
    hpb_tell(h, NONE, 42 * MiB, 0, UINT64_MAX);
    check_config(h, 16 * MiB, LEND_FREE);
    hpb_move_finish(h, to);
    check_config(h, 16 * MiB, CLEAN);
    hpb_check_out(h, RAM, 42 * MiB);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* Somebody sets a size: that is what holds from then on */
static void test_resize(void)
{
    QTestState *to;
    HpbDir d;
    Hpb *h = boot("free");

    hpb_dir_init(&d);
    set_time(h, FOREVER);
    to = hpb_start_incoming(ARGS, &d);
    start(h, to, &d, LEND_FREE);
    hpb_qmp_balloon(h, RAM);
    check_config(h, 0, CLEAN);
    g_assert_true(hpb_isr(h) & HPB_ISR_CONFIG);
    hpb_move_finish(h, to);
    check_config(h, 0, CLEAN);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* A driver that is reset does not hold up the migration */
static void test_reset(void)
{
    QTestState *to;
    HpbDir d;
    Hpb *h = boot("free");

    hpb_dir_init(&d);
    set_time(h, FOREVER);
    to = hpb_start_incoming(ARGS, &d);
    start(h, to, &d, LEND_FREE);
    hpb_take(h, START, h->unit);
    hpb_driver_init(h, HPB_FEATURES | BOTH);
    check_config(h, 0, CLEAN);
    hpb_move_finish(h, to);
    hpb_check_out(h, RAM, 0);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* Nobody is asked who does not understand it, or does not run */
static void test_nobody(void)
{
    QTestState *to;
    HpbDir d;
    Hpb *h = boot("free");

    hpb_dir_init(&d);
    set_time(h, FOREVER);
    hpb_driver_init(h, HPB_FEATURES | (1ULL << VIRTIO_BALLOON_HP_F_RECLAIM));
    to = hpb_start_incoming(ARGS ",migration-lend=clean", &d);
    hpb_move(h, to, &d);
    set_time(h, FOREVER);
    hpb_driver_init(h, HPB_FEATURES | BOTH);
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'stop' }");
    to = hpb_start_incoming(ARGS ",migration-lend=off", &d);
    hpb_move_start(h, to, &d, 10 * GiB);
    g_assert_true(hpb_migration_ended(h->qts));
    g_assert_true(hpb_migration_ended(to));
    hpb_migrated(h, to);
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'cont' }");
    hpb_move(h, hpb_start_incoming(ARGS, &d), &d);
    check_config(h, 0, CLEAN);
    hpb_quit(h);
    hpb_dir_done(&d);
}

static void test_bad(void)
{
    Hpb *h = boot("clean");
    QDict *rsp = qtest_qmp(h->qts, "{ 'execute': 'qom-set', 'arguments': "
                           "{ 'path': %s, 'property': 'migration-lend', "
                           "'value': 'all' } }", HPB_PATH);

    g_assert_nonnull(strstr(qdict_get_str(qdict_get_qdict(rsp, "error"),
                                          "desc"), "migration-lend=all"));
    qobject_unref(rsp);
    hpb_quit(h);
}

void hpb_add_session_tests(void)
{
    qtest_add_func("/virtio-balloon-hp/session/lend", test_lend);
    qtest_add_func("/virtio-balloon-hp/session/clean", test_clean);
    qtest_add_func("/virtio-balloon-hp/session/silent", test_silent);
    qtest_add_func("/virtio-balloon-hp/session/no-time", test_no_time);
    qtest_add_func("/virtio-balloon-hp/session/cancel", test_cancel);
    qtest_add_func("/virtio-balloon-hp/session/wanted", test_wanted);
    qtest_add_func("/virtio-balloon-hp/session/resize", test_resize);
    qtest_add_func("/virtio-balloon-hp/session/reset", test_reset);
    qtest_add_func("/virtio-balloon-hp/session/nobody", test_nobody);
    qtest_add_func("/virtio-balloon-hp/session/bad", test_bad);
}
