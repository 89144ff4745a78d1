/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp qtest: the balloon moves while the machine does (DEV-27)
 *
 * Theory of operation: a migration between two QEMUs is held open by a low
 * bandwidth, with memory to send that takes seconds. Meanwhile the test plays
 * the driver on the source, or on the destination in postcopy. Guest memory is
 * a memfd, so that the test can write it behind the back of dirty logging (only
 * the device can then have said that it has to be sent), and see its holes.
 *
 * Which bytes are passed over, and why, is read from query-migrate.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "hpb-qtest.h"
#include "hpb-qtest-migrate.h"

#define RAM     (256 * MiB)
#define OK      VIRTIO_BALLOON_HP_OK
#define MEM     "-m 256M -machine memory-backend=m -object " \
                "memory-backend-memfd,id=m,size=256M,share=on"
#define ARGS    HPB_PC MEM " " HPB_DEV_PCI
/* Bytes a second: the busy memory takes several */
#define SLOW    (8 * MiB)
/* Units that keep a slow migration busy; the tests use those below */
#define BUSY    40
#define NR_BUSY 24

static uint64_t at(Hpb *h, unsigned i)
{
    return HPB_RAM_START + i * h->unit;
}

/* The source, with memory that takes long to send */
static Hpb *boot_busy(HpbDir *d)
{
    Hpb *h = hpb_boot_mem(MEM, "");

    hpb_dir_init(d);
    hpb_use_ram_file(h);
    hpb_fill(h, at(h, BUSY), NR_BUSY * h->unit, 0xbb);
    return h;
}

/* By the file: through the qtest socket it takes seconds */
static void check_busy(Hpb *h)
{
    if (h->ram_fd < 0) {
        hpb_use_ram_file(h);
    }
    g_assert_true(hpb_filled(h, at(h, BUSY), NR_BUSY * h->unit, 0xbb));
}

/* Wait until the memory file has nothing at @addr, which is out */
static void wait_hole(Hpb *h, uint64_t addr, uint64_t len)
{
    gint64 start = g_get_monotonic_time();

    for (;;) {
        off_t data = lseek(h->ram_fd, addr, SEEK_DATA);

        if ((data < 0 && errno == ENXIO) || data >= addr + len) {
            return;
        }
        g_assert_cmpint(data, >=, 0);
        g_assert_cmpint(g_get_monotonic_time() - start, <, HPB_TIMEOUT_US);
        /* the device frees it beside its main loop */
        g_assert_cmphex(HPB_CFG(h, actual), >=, len);
    }
}

/* Reasons do not overlap, and are of the guest's memory as a whole */
static void test_skipped(void)
{
    QTestState *to;
    uint64_t never;
    HpbDir d;
    Hpb *h = boot_busy(&d);
    uint64_t unit = h->unit;

    hpb_take(h, at(h, 2), 8 * unit);
    to = hpb_start_incoming(ARGS, &d);
    hpb_move_start(h, to, &d, SLOW);
    hpb_wait_sent(h, unit);
    g_assert_cmphex(hpb_migrate_stat(h->qts, "skipped-discarded-bytes"), ==,
                    8 * unit);
    never = hpb_migrate_stat(h->qts, "skipped-unpopulated-bytes");
    g_assert_cmphex(never, >, 16 * unit);
    g_assert_cmphex(never, <, RAM - 8 * unit - NR_BUSY * unit + 32 * MiB);
    g_assert_cmphex(hpb_migrate_stat(h->qts, "skipped-hinted-bytes"), ==, 0);
    /* still to be sent, and never populated: only the former is saved */
    hpb_take(h, at(h, BUSY + NR_BUSY - 3), 3 * unit);
    hpb_take(h, at(h, 20), unit);
    g_assert_cmphex(hpb_migrate_stat(h->qts, "skipped-hinted-bytes"), ==,
                    3 * unit);
    g_assert_cmphex(hpb_migrate_stat(h->qts, "skipped-discarded-bytes"), ==,
                    8 * unit);
    g_assert_cmphex(hpb_migrate_stat(h->qts, "skipped-unpopulated-bytes"), ==,
                    never);
    hpb_move_finish(h, to);
    hpb_check_out(h, RAM, 12 * unit);
    /* the next one counts from the beginning */
    to = hpb_start_incoming(ARGS, &d);
    hpb_move_start(h, to, &d, SLOW);
    hpb_wait_sent(h, unit);
    g_assert_cmphex(hpb_migrate_stat(h->qts, "skipped-discarded-bytes"), ==,
                    12 * unit);
    g_assert_cmphex(hpb_migrate_stat(h->qts, "skipped-hinted-bytes"), ==, 0);
    hpb_move_finish(h, to);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* What comes back is dirty: dirty logging has not seen who writes it here */
static void test_came_back(void)
{
    QTestState *to;
    HpbDir d;
    Hpb *h = boot_busy(&d);

    hpb_take(h, at(h, 2), 8 * h->unit);
    to = hpb_start_incoming(ARGS, &d);
    hpb_move_start(h, to, &d, SLOW);
    hpb_wait_sent(h, h->unit);
    hpb_give(h, at(h, 4), 3 * h->unit);
    hpb_fill(h, at(h, 4), 3 * h->unit, 0x77);
    hpb_move_finish(h, to);
    check_busy(h);
    g_assert_true(hpb_filled(h, at(h, 4), 3 * h->unit, 0x77));
    hpb_check_out(h, RAM, 5 * h->unit);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* DEV-27: sent before it went out: the destination does not keep it */
static void test_sent_before(void)
{
    QTestState *to;
    HpbDir d;
    Hpb *h = boot_busy(&d);

    hpb_fill(h, at(h, 0), 4 * h->unit, 0x11);
    to = hpb_start_incoming(ARGS, &d);
    hpb_move_start(h, to, &d, SLOW);
    hpb_wait_sent(h, 5 * h->unit);
    hpb_take(h, at(h, 0), 4 * h->unit);
    hpb_move_finish(h, to);
    check_busy(h);
    wait_hole(h, at(h, 0), 4 * h->unit);
    hpb_check_out(h, RAM, 4 * h->unit);
    hpb_give(h, at(h, 0), 4 * h->unit);
    g_assert_true(hpb_filled(h, at(h, 0), 4 * h->unit, 0));
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* Canceled: the source's balloon works as before, and it can be tried again */
static void test_cancel(void)
{
    QTestState *to;
    HpbDir d;
    Hpb *h = boot_busy(&d);

    hpb_take(h, at(h, 2), 8 * h->unit);
    to = hpb_start_incoming(ARGS, &d);
    hpb_move_start(h, to, &d, SLOW);
    hpb_wait_sent(h, h->unit);
    hpb_take(h, at(h, BUSY), h->unit);
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'migrate_cancel' }");
    for (;;) {
        g_autofree char *status = hpb_migration_status(h->qts);

        if (!strcmp(status, "cancelled")) {
            break;
        }
        g_assert_cmpstr(status, !=, "completed");
    }
    g_assert_false(hpb_migration_ended(to));
    qtest_quit(to);
    hpb_give(h, at(h, 4), 3 * h->unit);
    hpb_fill(h, at(h, 4), 3 * h->unit, 0x77);
    hpb_give(h, at(h, BUSY), h->unit);
    hpb_fill(h, at(h, BUSY), h->unit, 0xbb);
    hpb_move(h, hpb_start_incoming(ARGS, &d), &d);
    check_busy(h);
    g_assert_true(hpb_filled(h, at(h, 4), 3 * h->unit, 0x77));
    hpb_check_out(h, RAM, 5 * h->unit);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* The destination dies: as canceled, and nobody has asked for it */
static void test_destination_dies(void)
{
    QTestState *to;
    HpbDir d;
    Hpb *h = boot_busy(&d);

    hpb_take(h, at(h, 2), 8 * h->unit);
    to = hpb_start_incoming(ARGS, &d);
    hpb_move_start(h, to, &d, SLOW);
    hpb_wait_sent(h, h->unit);
    qtest_kill_qemu(to);
    qtest_quit(to);
    g_assert_false(hpb_migration_ended(h->qts));
    hpb_wait_running(h->qts, true);
    hpb_give(h, at(h, 4), 3 * h->unit);
    hpb_take(h, at(h, 20), h->unit);
    hpb_check_out(h, RAM, 6 * h->unit);
    hpb_move(h, hpb_start_incoming(ARGS, &d), &d);
    check_busy(h);
    hpb_check_out(h, RAM, 6 * h->unit);
    hpb_quit(h);
    hpb_dir_done(&d);
}

/* Can this host have page faults answered by a program? Says so if not. */
static bool allow_postcopy(QTestState *to)
{
    QDict *rsp = qtest_qmp(to, "{ 'execute': 'migrate-set-capabilities', "
                           "'arguments': { 'capabilities': [ "
                           "{ 'capability': 'postcopy-ram', "
                           "'state': true } ] } }");
    bool ok = qdict_haskey(rsp, "return");

    qobject_unref(rsp);
    if (!ok) {
        g_test_skip("needs postcopy (sysctl vm.unprivileged_userfaultfd=1)");
    }
    return ok;
}

static bool has_status(QTestState *qts, const char *expected)
{
    g_autofree char *status = hpb_migration_status(qts);

    return !strcmp(status, expected);
}

static void wait_status(QTestState *qts, const char *expected)
{
    gint64 start = g_get_monotonic_time();

    while (!has_status(qts, expected)) {
        g_assert_cmpint(g_get_monotonic_time() - start, <, HPB_TIMEOUT_US);
    }
}

/* A guest in the middle of postcopy, and what it has asked for since */
typedef struct Postcopy {
    Hpb *h;                 /* drives the destination, from begin on */
    QTestState *from;
    HpbReq *in, *out;
    HpbDir d;
} Postcopy;

/* False if this host cannot do that, which has been said */
static bool postcopy_begin(Postcopy *p)
{
    Hpb *h = p->h = boot_busy(&p->d);
    QTestState *to = hpb_start_incoming(ARGS, &p->d);

    p->from = h->qts;
    if (!allow_postcopy(to)) {
        qtest_quit(to);
        hpb_quit(h);
        hpb_dir_done(&p->d);
        return false;
    }
    hpb_migrate_capability(p->from, "postcopy-ram");
    hpb_migrate_parameter(p->from, "max-postcopy-bandwidth", SLOW);
    hpb_take(h, at(h, 2), 8 * h->unit);
    p->in = hpb_range(hpb_inflate(h), at(h, 20), 2 * h->unit);
    p->out = hpb_range(hpb_deflate(h), at(h, 4), 2 * h->unit);
    hpb_move_start(h, to, &p->d, SLOW);
    hpb_wait_sent(h, h->unit);
    qtest_qmp_assert_success(p->from,
                             "{ 'execute': 'migrate-start-postcopy' }");
    wait_status(to, "postcopy-active");
    hpb_wait_running(to, true);
    h->qts = to;
    hpb_qmp_balloon(h, RAM - 30 * h->unit);
    hpb_submit(p->in);
    hpb_submit(p->out);
    return true;
}

/*
 * The requests are not answered, for much longer than it takes the device to
 * look whether they may be
 */
static void check_held(Postcopy *p, const char *status)
{
    gint64 start = g_get_monotonic_time();
    Hpb *h = p->h;

    while (g_get_monotonic_time() - start < G_USEC_PER_SEC) {
        hpb_collect(h, VIRTIO_BALLOON_HP_VQ_INFLATE);
        hpb_collect(h, VIRTIO_BALLOON_HP_VQ_DEFLATE);
        g_assert_false(p->in->answered);
        g_assert_false(p->out->answered);
    }
    g_assert_true(has_status(h->qts, status));
    hpb_check_out(h, RAM, 8 * h->unit);
}

/* Let it end: then they are answered, and memory is as it has to be. */
static void postcopy_end(Postcopy *p)
{
    Hpb *h = p->h;
    QTestState *to = h->qts;

    hpb_migrate_parameter(p->from, "max-postcopy-bandwidth", 0);
    g_assert_true(hpb_migration_ended(p->from));
    g_assert_true(hpb_migration_ended(to));
    h->qts = p->from;
    hpb_migrated(h, to);
    hpb_wait(p->in);
    hpb_wait(p->out);
    g_assert_cmpint(p->in->status, ==, OK);
    g_assert_cmpint(p->out->status, ==, OK);
    g_assert_cmphex(HPB_CFG(h, requested), ==, 30 * h->unit);
    hpb_check_out(h, RAM, 8 * h->unit);
    check_busy(h);
    wait_hole(h, at(h, 6), 4 * h->unit);
    hpb_req_free(p->in);
    hpb_req_free(p->out);
    hpb_quit(h);
    hpb_dir_done(&p->d);
}

/* DEV-20, DEV-27: requests wait until postcopy ends, and are answered then */
static void test_postcopy(void)
{
    Postcopy p;

    if (postcopy_begin(&p)) {
        check_held(&p, "postcopy-active");
        postcopy_end(&p);
    }
}

/* The connection breaks in between: they wait longer */
static void test_postcopy_recover(void)
{
    Postcopy p;

    if (!postcopy_begin(&p)) {
        return;
    }
    /* so that all that this test touches is there before */
    check_held(&p, "postcopy-active");
    qtest_qmp_assert_success(p.from, "{ 'execute': 'migrate-pause' }");
    wait_status(p.from, "postcopy-paused");
    wait_status(p.h->qts, "postcopy-paused");
    check_held(&p, "postcopy-paused");
    qtest_qmp_assert_success(p.h->qts, "{ 'execute': 'migrate-recover', "
                             "'arguments': { 'uri': %s } }", p.d.uri);
    qtest_qmp_assert_success(p.from, "{ 'execute': 'migrate', 'arguments': "
                             "{ 'uri': %s, 'resume': true } }", p.d.uri);
    wait_status(p.h->qts, "postcopy-active");
    postcopy_end(&p);
}

/* The source dies: the destination says so, and has nothing of its balloon */
static void test_source_dies(void)
{
    HpbDir d;
    Hpb *h = boot_busy(&d);
    QTestState *to = hpb_start_incoming(ARGS, &d);

    hpb_take(h, at(h, 2), 8 * h->unit);
    hpb_move_start(h, to, &d, SLOW);
    hpb_wait_sent(h, h->unit);
    qtest_kill_qemu(h->qts);
    hpb_quit(h);
    g_assert_false(hpb_migration_ended(to));
    h = hpb_attach(to);
    g_assert_cmphex(hpb_qmp_query(h), ==, RAM);
    hpb_quit(h);
    hpb_dir_done(&d);
}

#define ADD(name, fn) qtest_add_func("virtio-balloon-hp/live/" name, fn)

void hpb_add_live_tests(void)
{
    ADD("skipped", test_skipped);
    ADD("came-back", test_came_back);
    ADD("DEV-27-sent-before", test_sent_before);
    ADD("cancel", test_cancel);
    ADD("destination-dies", test_destination_dies);
    ADD("source-dies", test_source_dies);
    ADD("DEV-20-postcopy", test_postcopy);
    ADD("DEV-20-postcopy-recover", test_postcopy_recover);
}
