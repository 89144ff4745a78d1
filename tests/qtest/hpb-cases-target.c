/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp qtest: the target, and what management sees of the size
 *
 * Theory of operation: QMP on one side, configuration space on the other. The
 * events are those that the monitor really sends: device and monitor hold back
 * BALLOON_CHANGE for up to a second of virtual time each, so that a test makes
 * a burst, moves the clock, and looks at the last one.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "hpb-qtest.h"

#define RAM     (256 * MiB)
#define SECOND  1000000000LL

/* What BALLOON_CHANGE has said */
typedef struct Changes {
    unsigned count;
    uint64_t last;
} Changes;

static bool on_event(QTestState *s, const char *name, QDict *event,
                     void *opaque)
{
    Changes *c = opaque;

    if (strcmp(name, "BALLOON_CHANGE")) {
        return false;
    }
    c->count++;
    c->last = qdict_get_int(qdict_get_qdict(event, "data"), "actual");
    return true;
}

/* Let all events arrive: time for the rate limit, a command to read them */
static void flush_events(Hpb *h)
{
    qtest_clock_step(h->qts, 3 * SECOND);
    hpb_qmp_query(h);
}

/* ARCHITECTURE "Rounding": the guest never has less than it was promised */
static void test_rounding(void)
{
    Hpb *h = hpb_boot("");
    const struct { int64_t target; uint64_t requested; } cases[] = {
        { RAM, 0 },
        { RAM - 1, 0 },
        { RAM - h->unit + 1, 0 },
        { RAM - h->unit, h->unit },
        { RAM - h->unit - 1, h->unit },
        { RAM - 3 * h->unit - 4096, 3 * h->unit },
        { 1, RAM - h->unit },
        { h->unit, RAM - h->unit },
        { RAM + 1, 0 },
        { 1 * TiB, 0 },
        { INT64_MAX, 0 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        hpb_qmp_balloon(h, cases[i].target);
        g_assert_cmphex(HPB_CFG(h, requested), ==, cases[i].requested);
        hpb_check_out(h, RAM, 0);
    }
    hpb_quit(h);
}

/* Targets that are none: an error that says so, and the old target stays */
static void test_bad_targets(void)
{
    static const int64_t bad[] = { 0, -1, INT64_MIN };
    Hpb *h = hpb_boot("");

    hpb_qmp_balloon(h, RAM - 4 * h->unit);
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        QDict *err = qtest_qmp_assert_failure_ref(
            h->qts, "{ 'execute': 'balloon', 'arguments': "
            "{ 'value': %" PRId64 " } }", bad[i]);

        g_assert_nonnull(strstr(qdict_get_str(err, "desc"), "size"));
        qobject_unref(err);
        g_assert_cmphex(HPB_CFG(h, requested), ==, 4 * h->unit);
    }
    hpb_quit(h);
}

/* A target that comes before any driver, over resets of both kinds */
static void test_early_and_kept(void)
{
    Hpb *h = hpb_start(HPB_PC "-m 256M " HPB_DEV_PCI);
    uint64_t requested;

    hpb_qmp_balloon(h, RAM / 2);
    hpb_probe_pci(h);
    requested = HPB_CFG(h, requested);
    g_assert_cmphex(requested, ==, RAM / 2);
    hpb_driver_init(h, HPB_FEATURES);
    g_assert_cmphex(HPB_CFG(h, requested), ==, requested);
    hpb_take(h, HPB_RAM_START, 4 * h->unit);
    hpb_reset(h);
    g_assert_cmphex(HPB_CFG(h, requested), ==, requested);
    hpb_driver_init(h, HPB_FEATURES);
    hpb_take(h, HPB_RAM_START, 4 * h->unit);
    qtest_system_reset(h->qts);
    hpb_probe_pci(h);
    g_assert_cmphex(HPB_CFG(h, requested), ==, requested);
    hpb_driver_init(h, HPB_FEATURES);
    hpb_check_out(h, RAM, 0);
    hpb_quit(h);
}

/* A target that changes while a request is in flight */
static void test_change_in_flight(void)
{
    Hpb *h = hpb_boot("");

    for (unsigned i = 1; i < 20; i++) {
        g_autoptr(HpbReq) in = hpb_inflate(h);

        hpb_submit(hpb_range(in, HPB_RAM_START + i * 4 * h->unit,
                             4 * h->unit));
        hpb_qmp_balloon(h, RAM - i * h->unit);
        g_assert_cmphex(HPB_CFG(h, requested), ==, i * h->unit);
        hpb_wait(in);
        g_assert_cmpint(in->status, ==, VIRTIO_BALLOON_HP_OK);
        hpb_check_out(h, RAM, i * 4 * h->unit);
    }
    hpb_quit(h);
}

/* The last value of a burst of changes arrives, whatever the rate limit */
static void test_last_event(void)
{
    Changes c = { 0 };
    Hpb *h = hpb_boot("");

    qtest_qmp_set_event_callback(h->qts, on_event, &c);
    for (unsigned burst = 1; burst < 6; burst++) {
        uint64_t out = 0;

        for (unsigned i = 0; i < burst * 3; i++) {
            hpb_take(h, HPB_RAM_START + out, h->unit);
            out += h->unit;
        }
        if (burst % 2) {
            hpb_give(h, HPB_RAM_START, h->unit);
            out -= h->unit;
        }
        flush_events(h);
        g_assert_cmpint(c.count, >, 0);
        g_assert_cmphex(c.last, ==, RAM - out);
        g_assert_cmphex(hpb_qmp_query(h), ==, c.last);
        if (burst % 2) {
            hpb_take(h, HPB_RAM_START, h->unit);
            out += h->unit;
        }
        hpb_give(h, HPB_RAM_START, out);
        flush_events(h);
        g_assert_cmphex(c.last, ==, RAM);
        c.count = 0;
    }
    hpb_quit(h);
}

/*
 * A resize is told when the target is reached, with one event, also when it is
 * the target that comes to the size. What is short of the target is told a second
 * after the last change, and ten after the first where changes do not end.
 */
static void test_event_is_the_target(void)
{
    Changes c = { 0 };
    Hpb *h = hpb_boot("");

    qtest_qmp_set_event_callback(h->qts, on_event, &c);
    hpb_qmp_balloon(h, RAM - 8 * h->unit);
    for (unsigned i = 0; i < 7; i++) {
        hpb_take(h, HPB_RAM_START + i * h->unit, h->unit);
        hpb_qmp_query(h);
        g_assert_cmpint(c.count, ==, 0);
    }
    hpb_take(h, HPB_RAM_START + 7 * h->unit, h->unit);
    hpb_qmp_query(h);
    g_assert_cmpint(c.count, ==, 1);
    g_assert_cmphex(c.last, ==, RAM - 8 * h->unit);
    flush_events(h);
    g_assert_cmpint(c.count, ==, 1);

    hpb_qmp_balloon(h, RAM);
    hpb_give(h, HPB_RAM_START, 2 * h->unit);
    qtest_clock_step(h->qts, SECOND / 2);
    hpb_give(h, HPB_RAM_START + 2 * h->unit, h->unit);
    hpb_qmp_query(h);
    g_assert_cmpint(c.count, ==, 1);
    qtest_clock_step(h->qts, SECOND / 2);
    hpb_qmp_query(h);
    g_assert_cmpint(c.count, ==, 1);
    qtest_clock_step(h->qts, SECOND / 2);
    hpb_qmp_query(h);
    g_assert_cmpint(c.count, ==, 2);
    g_assert_cmphex(c.last, ==, RAM - 5 * h->unit);

    hpb_take(h, HPB_RAM_START, h->unit);
    for (unsigned half = 0; half < 20; half++) {
        hpb_qmp_query(h);
        g_assert_cmpint(c.count, ==, 2);
        if (half % 2) {
            hpb_take(h, HPB_RAM_START, h->unit);
        } else {
            hpb_give(h, HPB_RAM_START, h->unit);
        }
        qtest_clock_step(h->qts, SECOND / 2);
    }
    hpb_qmp_query(h);
    g_assert_cmpint(c.count, ==, 3);

    flush_events(h);
    hpb_give(h, HPB_RAM_START + 3 * h->unit, h->unit);
    hpb_qmp_balloon(h, hpb_qmp_query(h));
    hpb_qmp_query(h);
    g_assert_cmpint(c.count, ==, 4);
    hpb_quit(h);
}

/* A reset takes everything back: that is a change too. So is a refusal not. */
static void test_event_on_reset(void)
{
    Changes c = { 0 };
    Hpb *h = hpb_boot("");
    g_autoptr(HpbReq) out = hpb_deflate(h);

    qtest_qmp_set_event_callback(h->qts, on_event, &c);
    hpb_range(out, HPB_RAM_START, h->unit);
    hpb_expect(out, VIRTIO_BALLOON_HP_NOT_OUT, 0, NULL);
    flush_events(h);
    g_assert_cmpint(c.count, ==, 0);

    hpb_take(h, HPB_RAM_START, 8 * h->unit);
    flush_events(h);
    g_assert_cmphex(c.last, ==, RAM - 8 * h->unit);
    hpb_reset(h);
    flush_events(h);
    g_assert_cmphex(c.last, ==, RAM);

    hpb_driver_init(h, HPB_FEATURES);
    hpb_take(h, HPB_RAM_START, 8 * h->unit);
    c.count = 0;
    qtest_system_reset(h->qts);
    flush_events(h);
    g_assert_cmphex(c.last, ==, RAM);
    hpb_quit(h);
}

/* What has not been told when the device goes is told then, not after it */
static void test_event_on_unplug(void)
{
    Changes c = { 0 };
    Hpb *h = hpb_start(HPB_PC "-m 256M");

    qtest_qmp_device_add(h->qts, "virtio-balloon-hp-pci", HPB_ID,
                         "{ 'addr': '04.0' }");
    hpb_probe_pci(h);
    hpb_driver_init(h, HPB_FEATURES);
    qtest_qmp_set_event_callback(h->qts, on_event, &c);
    hpb_qmp_balloon(h, RAM - 16 * h->unit);
    hpb_take(h, HPB_RAM_START, 8 * h->unit);
    flush_events(h);
    g_assert_cmpint(c.count, ==, 1);
    g_assert_cmphex(c.last, ==, RAM - 8 * h->unit);

    qtest_qmp_device_del_send(h->qts, HPB_ID);
    qtest_system_reset_nowait(h->qts);
    qtest_qmp_eventwait(h->qts, "DEVICE_DELETED");
    g_assert_cmpint(c.count, ==, 2);
    g_assert_cmphex(c.last, ==, RAM);
    hpb_quit(h);
}

/* HMP shows and sets the same */
static void test_hmp(void)
{
    Hpb *h = hpb_boot("");
    g_autofree char *before = qtest_hmp(h->qts, "info balloon");
    g_autofree char *set = qtest_hmp(h->qts, "balloon 200");
    g_autofree char *after = NULL;

    g_assert_nonnull(strstr(before, "actual=256"));
    g_assert_cmpstr(set, ==, "");
    g_assert_cmphex(HPB_CFG(h, requested), ==, 56 * MiB);
    hpb_take(h, HPB_RAM_START, 56 * MiB);
    after = qtest_hmp(h->qts, "info balloon");
    g_assert_nonnull(strstr(after, "actual=200"));
    hpb_quit(h);
}

static int64_t qom_size(Hpb *h, const char *property)
{
    QDict *rsp = qtest_qmp(h->qts, "{ 'execute': 'qom-get', 'arguments': "
                           "{ 'path': %s, 'property': %s } }",
                           HPB_PATH, property);
    int64_t value = qdict_get_int(rsp, "return");

    qobject_unref(rsp);
    return value;
}

/* Sizes and counters that an operator reads by QOM */
static void test_counters(void)
{
    Hpb *h = hpb_boot(",free-page-reporting=on");
    g_autoptr(HpbReq) in = hpb_inflate(h), twice = hpb_inflate(h);
    g_autoptr(HpbReq) rep = hpb_report(h);

    hpb_qmp_balloon(h, RAM - 8 * h->unit);
    hpb_range(in, HPB_RAM_START, 2 * h->unit);
    hpb_range(in, HPB_RAM_START + 4 * h->unit, h->unit);
    hpb_expect(in, VIRTIO_BALLOON_HP_OK, 3 * h->unit, NULL);
    hpb_range(twice, HPB_RAM_START, h->unit);
    hpb_expect(twice, VIRTIO_BALLOON_HP_ALREADY_OUT, 0, NULL);
    hpb_give(h, HPB_RAM_START, h->unit);
    hpb_range(rep, HPB_RAM_START + 20 * h->unit, 4 * h->unit);
    hpb_expect(rep, VIRTIO_BALLOON_HP_OK, 4 * h->unit, NULL);

    g_assert_cmpint(hpb_counter(h, "inflate.requests"), ==, 2);
    g_assert_cmpint(hpb_counter(h, "inflate.ranges"), ==, 2);
    g_assert_cmphex(hpb_counter(h, "inflate.bytes"), ==, 3 * h->unit);
    g_assert_cmpint(hpb_counter(h, "deflate.requests"), ==, 1);
    g_assert_cmphex(hpb_counter(h, "deflate.bytes"), ==, h->unit);
    g_assert_cmpint(hpb_counter(h, "report.requests"), ==, 1);
    g_assert_cmphex(hpb_counter(h, "report.bytes"), ==, 4 * h->unit);
    g_assert_cmpint(hpb_counter(h, "refused.already-out"), ==, 1);
    g_assert_cmpint(hpb_counter(h, "descriptors"), ==, 5);
    g_assert_cmpint(hpb_counter(h, "in-flight"), ==, 0);
    g_assert_cmphex(qom_size(h, "requested-size"), ==, 8 * h->unit);
    g_assert_cmphex(qom_size(h, "actual-size"), ==, 2 * h->unit);
    g_assert_cmphex(qom_size(h, "preferred-size"), ==, HPB_CFG(h, preferred));
    hpb_quit(h);
}

/* Each reason for a refusal has its own counter */
static void test_refusal_counters(void)
{
    static const struct {
        const char *name;
        bool deflate;
        uint64_t addr, len;
        unsigned times;
    } cases[] = {
        { "refused.inval", false, HPB_RAM_START + 512, 8192, 1 },
        { "refused.inval", true, HPB_RAM_START, 512, 1 },
        { "refused.not-ram", false, 0xfffff000, 4096, 1 },
        { "refused.not-out", true, HPB_RAM_START, 4096, 1 },
        { "refused.overlap", false, HPB_RAM_START + MiB, 4096, 2 },
        { "refused.already-out", false, HPB_RAM_START + MiB, 4096, 1 },
    };
    Hpb *h = hpb_boot(",unit=4096");

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autoptr(HpbReq) r = cases[i].deflate ? hpb_deflate(h)
                                               : hpb_inflate(h);
        uint64_t before = hpb_counter(h, cases[i].name);
        uint64_t requests = hpb_counter(h, "inflate.requests") +
                            hpb_counter(h, "deflate.requests");

        for (unsigned j = 0; j < cases[i].times; j++) {
            hpb_range(r, cases[i].addr, cases[i].len);
        }
        hpb_ask(r);
        g_test_message("%s", cases[i].name);
        g_assert_cmpint(hpb_counter(h, cases[i].name), ==, before + 1);
        if (cases[i].len >= h->unit) {
            g_assert_cmpint(hpb_counter(h, "inflate.requests") +
                            hpb_counter(h, "deflate.requests"), ==,
                            requests + 1);
        }
    }
    hpb_check_out(h, RAM, 4096);
    hpb_quit(h);
}

#define ADD(name, fn) qtest_add_func("virtio-balloon-hp/target/" name, fn)

void hpb_add_target_tests(void)
{
    ADD("rounding", test_rounding);
    ADD("bad-targets", test_bad_targets);
    ADD("DEV-25-early-and-kept", test_early_and_kept);
    ADD("change-in-flight", test_change_in_flight);
    ADD("last-event-arrives", test_last_event);
    ADD("event-is-the-target", test_event_is_the_target);
    ADD("event-on-reset", test_event_on_reset);
    ADD("event-on-unplug", test_event_on_unplug);
    ADD("hmp", test_hmp);
    ADD("counters", test_counters);
    ADD("refusal-counters", test_refusal_counters);
}
