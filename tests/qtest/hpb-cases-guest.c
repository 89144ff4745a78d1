/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp qtest: what the guest may give up, and how it stands
 * (DEV-31, DEV-32)
 *
 * Theory of operation: the configuration is compared with the properties, and
 * "guest-state" with what was sent. Nothing that a driver says may change what
 * is out.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qnum.h"
#include "hpb-qtest.h"
#include "hpb-qtest-migrate.h"

#define RAM         (256 * MiB)
#define ARGS        HPB_PC "-m 256M " HPB_DEV_PCI
#define F_STATE     (1ULL << VIRTIO_BALLOON_HP_F_STATE)
#define F_RECLAIM   (1ULL << VIRTIO_BALLOON_HP_F_RECLAIM)
#define OK          VIRTIO_BALLOON_HP_OK
#define INVAL       VIRTIO_BALLOON_HP_INVAL
#define UNSUPP      VIRTIO_BALLOON_HP_UNSUPP

/* A machine whose driver knows both features */
static Hpb *boot(const char *props)
{
    Hpb *h = hpb_boot(props);

    hpb_driver_init(h, HPB_FEATURES | F_STATE | F_RECLAIM);
    g_assert_cmphex(h->features & (F_STATE | F_RECLAIM), ==,
                    F_STATE | F_RECLAIM);
    return h;
}

static void set_reclaim(Hpb *h, const char *value)
{
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'qom-set', 'arguments': "
                             "{ 'path': %s, 'property': 'reclaim', "
                             "'value': %s } }", HPB_PATH, value);
}

static void set_floor(Hpb *h, uint64_t value)
{
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'qom-set', 'arguments': "
                             "{ 'path': %s, 'property': 'cache-floor', "
                             "'value': %" PRIu64 " } }", HPB_PATH, value);
}

static void check_config(Hpb *h, uint32_t reclaim, uint64_t floor)
{
    g_assert_cmpint(HPB_CFG(h, reclaim), ==, reclaim);
    g_assert_cmphex(HPB_CFG(h, cache_floor), ==, floor);
}

/* DEV-32: both fields follow the properties, and the driver is told */
static void test_reclaim(void)
{
    Hpb *h = boot("");

    check_config(h, VIRTIO_BALLOON_HP_RECLAIM_CLEAN, 0);
    hpb_isr(h);
    set_reclaim(h, "free");
    check_config(h, VIRTIO_BALLOON_HP_RECLAIM_FREE, 0);
    g_assert_true(hpb_isr(h) & HPB_ISR_CONFIG);
    set_reclaim(h, "free");
    g_assert_false(hpb_isr(h) & HPB_ISR_CONFIG);
    set_floor(h, 100 * MiB);
    check_config(h, VIRTIO_BALLOON_HP_RECLAIM_FREE, 100 * MiB);
    g_assert_true(hpb_isr(h) & HPB_ISR_CONFIG);

    /* what the operator wants outlives a reset of the guest */
    hpb_driver_init(h, HPB_FEATURES | F_RECLAIM);
    check_config(h, VIRTIO_BALLOON_HP_RECLAIM_FREE, 100 * MiB);
    hpb_driver_init(h, HPB_FEATURES);
    check_config(h, 0, 0);
    hpb_isr(h);
    set_reclaim(h, "clean");
    g_assert_false(hpb_isr(h) & HPB_ISR_CONFIG);
    hpb_quit(h);
}

/* A change while the VM is paused reaches the driver when it runs again */
static void test_reclaim_paused(void)
{
    Hpb *h = boot(",reclaim=free,cache-floor=64M");

    check_config(h, VIRTIO_BALLOON_HP_RECLAIM_FREE, 64 * MiB);
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'stop' }");
    hpb_isr(h);
    set_floor(h, 0);
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'cont' }");
    while (!(hpb_isr(h) & HPB_ISR_CONFIG)) {
        qtest_clock_step(h->qts, 1000);
    }
    check_config(h, VIRTIO_BALLOON_HP_RECLAIM_FREE, 0);
    hpb_quit(h);
}

static void test_reclaim_bad(void)
{
    Hpb *h = boot("");
    QDict *rsp = qtest_qmp(h->qts, "{ 'execute': 'qom-set', 'arguments': "
                           "{ 'path': %s, 'property': 'reclaim', "
                           "'value': 'dirty' } }", HPB_PATH);

    g_assert_nonnull(strstr(qdict_get_str(qdict_get_qdict(rsp, "error"),
                                          "desc"), "reclaim=dirty"));
    qobject_unref(rsp);
    check_config(h, VIRTIO_BALLOON_HP_RECLAIM_CLEAN, 0);
    hpb_quit(h);
}

/* Properties that leave the features out, for machines of older versions */
static void test_not_offered(void)
{
    Hpb *h = hpb_boot(",report-state=off,offer-reclaim=off,reclaim=free");

    g_assert_cmphex(hpb_offered(h) & (F_STATE | F_RECLAIM), ==, 0);
    check_config(h, 0, 0);
    hpb_quit(h);
}

static uint64_t number(QDict *d, const char *name)
{
    uint64_t val;

    g_assert_true(qnum_get_try_uint(qobject_to(QNum, qdict_get(d, name)),
                                    &val));
    return val;
}

static void check_state(Hpb *h, const char *stop, uint64_t requested,
                        uint64_t available, uint64_t wanted)
{
    QDict *d = qtest_qmp_assert_success_ref(
        h->qts, "{ 'execute': 'qom-get', 'arguments': "
        "{ 'path': %s, 'property': 'guest-state' } }", HPB_PATH);

    g_assert_cmpstr(qdict_get_str(d, "stop"), ==, stop);
    g_assert_cmphex(number(d, "requested"), ==, requested);
    g_assert_cmphex(number(d, "available"), ==, available);
    g_assert_cmphex(number(d, "wanted"), ==, wanted);
    qobject_unref(d);
}

/* DEV-31: the newest is kept, unknown reasons too, and nothing goes out */
static void test_state(void)
{
    static const char *const names[] = {
        "none", "fragmented", "guest-floor", "page-cache", "pressure",
        "host-refuses", "host-busy", "host-no-memory", "unknown",
    };
    Hpb *h = boot("");

    check_state(h, "none", 0, 0, 0);
    hpb_take(h, HPB_RAM_START, h->unit);
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        hpb_tell(h, i, i * MiB, UINT64_MAX - i, i);
        check_state(h, names[i], i * MiB, UINT64_MAX - i, i);
    }
    hpb_tell(h, UINT16_MAX, 1, 2, 3);
    check_state(h, "unknown", 1, 2, 3);
    g_assert_cmpint(hpb_counter(h, "state.requests"), ==,
                    G_N_ELEMENTS(names) + 1);
    hpb_check_out(h, RAM, h->unit);
    hpb_reset(h);
    check_state(h, "none", 0, 0, 0);
    hpb_quit(h);
}

/* DEV-31: what is refused changes nothing */
static void test_state_bad(void)
{
    struct virtio_balloon_hp_state state = { .stop = cpu_to_le16(1) };
    Hpb *h = boot("");
    HpbReq *r;

    hpb_tell(h, 2, 3, 4, 5);
    for (size_t len = 0; len < sizeof(state); len += 8) {
        r = hpb_state_req(h, &state, len);
        hpb_expect(r, INVAL, 0, NULL);
        hpb_req_free(r);
    }
    r = hpb_range(hpb_state_req(h, &state, sizeof(state)), HPB_RAM_START, h->unit);
    hpb_expect(r, INVAL, 0, NULL);
    hpb_req_free(r);
    r = hpb_state_req(h, &state, sizeof(state));
    r->vq = VIRTIO_BALLOON_HP_VQ_DEFLATE;
    hpb_expect(r, UNSUPP, 0, NULL);
    hpb_req_free(r);
    check_state(h, "guest-floor", 3, 4, 5);

    hpb_driver_init(h, HPB_FEATURES);
    r = hpb_state_req(h, &state, sizeof(state));
    hpb_expect(r, UNSUPP, 0, NULL);
    hpb_req_free(r);
    check_state(h, "none", 0, 0, 0);
    hpb_quit(h);
}

/* The destination knows; what may be given up is the destination's to say */
static void test_migrate(void)
{
    Hpb *h = boot("");
    HpbDir d;

    hpb_dir_init(&d);
    hpb_tell(h, VIRTIO_BALLOON_HP_STOP_PRESSURE, 1, 2, 3);
    hpb_move(h, hpb_start_incoming(ARGS, &d), &d);
    check_state(h, "pressure", 1, 2, 3);
    check_config(h, VIRTIO_BALLOON_HP_RECLAIM_CLEAN, 0);
    hpb_isr(h);
    hpb_move(h, hpb_start_incoming(ARGS ",reclaim=free", &d), &d);
    while (!(hpb_isr(h) & HPB_ISR_CONFIG)) {
        qtest_clock_step(h->qts, 1000);
    }
    check_config(h, VIRTIO_BALLOON_HP_RECLAIM_FREE, 0);
    check_state(h, "pressure", 1, 2, 3);
    hpb_quit(h);
    hpb_dir_done(&d);
}

void hpb_add_guest_tests(void)
{
    qtest_add_func("/virtio-balloon-hp/guest/reclaim", test_reclaim);
    qtest_add_func("/virtio-balloon-hp/guest/reclaim-paused",
                   test_reclaim_paused);
    qtest_add_func("/virtio-balloon-hp/guest/reclaim-bad", test_reclaim_bad);
    qtest_add_func("/virtio-balloon-hp/guest/not-offered", test_not_offered);
    qtest_add_func("/virtio-balloon-hp/guest/state", test_state);
    qtest_add_func("/virtio-balloon-hp/guest/state-bad", test_state_bad);
    qtest_add_func("/virtio-balloon-hp/guest/migrate", test_migrate);
}
