/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp qtest: requests in flight, pause and reset (DEV-18, DEV-20,
 * DEV-24 to DEV-26)
 *
 * Theory of operation: the device frees memory on its own thread, so that what
 * is tested here is what happens between a request and its answer. Requests
 * are made long by ranges of populated shared memory, or many by adding them
 * to the ring before one notification; no test depends on winning a race, but
 * each gives the device the chance to lose one.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "hpb-qtest.h"

#define RAM     (256 * MiB)
#define OK      VIRTIO_BALLOON_HP_OK
#define EXC(...) ((const HpbExc[]) { __VA_ARGS__, { 0 } })
#define BIG_RAM (512 * MiB)
#define BIG_MEM "-m 512M -machine memory-backend=m " \
                "-object memory-backend-memfd,id=m,size=512M,share=on"

static uint64_t at(Hpb *h, unsigned i)
{
    return HPB_RAM_START + i * h->unit;
}

static void free_all(HpbReq **r, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        hpb_req_free(r[i]);
    }
}

/* Make the host really have the memory of all ranges */
static void populate(Hpb *h, uint64_t ram, uint8_t value)
{
    hpb_fill(h, HPB_RAM_START, ram - HPB_RAM_START, value);
}

static Hpb *boot_big(void)
{
    Hpb *h = hpb_boot_mem(BIG_MEM, "");

    hpb_use_ram_file(h);
    return h;
}

static void check_all(Hpb *h, uint64_t ram, uint8_t value)
{
    g_assert_true(hpb_filled(h, HPB_RAM_START, ram - HPB_RAM_START, value));
}

/* DEV-12 c: a unit of a request that is not answered */
static void test_overlap_in_flight(void)
{
    Hpb *h = boot_big();
    g_autoptr(HpbReq) first = hpb_inflate(h), second = hpb_inflate(h);

    populate(h, BIG_RAM, 1);
    hpb_range(first, at(h, 0), 100 * h->unit);
    hpb_range(second, at(h, 99), 2 * h->unit);
    hpb_add(first);
    hpb_add(second);
    hpb_kick(h, first->vq);
    hpb_wait(first);
    hpb_wait(second);
    g_assert_cmpint(first->status, ==, OK);
    g_assert_cmpint(second->status, ==, VIRTIO_BALLOON_HP_PARTIAL);
    g_assert_cmpint(second->exc->len, ==, 1);
    g_assert_cmpint(g_array_index(second->exc, HpbExc, 0).first, ==, 0);
    g_assert_cmpint(g_array_index(second->exc, HpbExc, 0).count, ==, 1);
    g_assert_cmpint(g_array_index(second->exc, HpbExc, 0).status, ==,
                    VIRTIO_BALLOON_HP_OVERLAP);
    hpb_check_out(h, BIG_RAM, 101 * h->unit);
    hpb_quit(h);
}

/* DEV-18: more requests than the device works on at a time; none is lost */
static void test_many_in_flight(void)
{
    enum { N = 500 };
    Hpb *h = hpb_boot(",unit=4096");
    HpbReq *in[N], *out[N];

    for (unsigned i = 0; i < N; i++) {
        in[i] = hpb_range(hpb_room(hpb_inflate(h), 2), at(h, 2 * i), h->unit);
        out[i] = hpb_range(hpb_room(hpb_deflate(h), 2), at(h, 2 * i), h->unit);
        in[i]->indirect = out[i]->indirect = true;
        hpb_add(in[i]);
    }
    hpb_kick(h, VIRTIO_BALLOON_HP_VQ_INFLATE);
    for (unsigned i = 0; i < N; i++) {
        hpb_wait(in[i]);
        g_assert_cmpint(in[i]->status, ==, OK);
    }
    hpb_check_out(h, RAM, N * h->unit);
    for (unsigned i = 0; i < N; i++) {
        hpb_add(out[i]);
    }
    hpb_kick(h, VIRTIO_BALLOON_HP_VQ_DEFLATE);
    for (unsigned i = 0; i < N; i++) {
        hpb_wait(out[i]);
        g_assert_cmpint(out[i]->status, ==, OK);
    }
    hpb_check_out(h, RAM, 0);
    free_all(in, N);
    free_all(out, N);
    hpb_quit(h);
}

/* DRV-18: requests on all queues at once, with work for the host in each */
static void test_all_queues(void)
{
    enum { N = 20 };
    Hpb *h = hpb_boot(",free-page-reporting=on");
    HpbReq *r[3 * N];

    hpb_take(h, at(h, 0), N * h->unit);
    for (unsigned i = 0; i < N; i++) {
        r[i] = hpb_range(hpb_deflate(h), at(h, i), h->unit);
        r[N + i] = hpb_range(hpb_inflate(h), at(h, N + i), h->unit);
        r[2 * N + i] = hpb_range(hpb_report(h), at(h, 2 * N + i), h->unit);
    }
    for (unsigned i = 0; i < 3 * N; i++) {
        hpb_submit(r[(i * 7) % (3 * N)]);
    }
    for (unsigned i = 0; i < 3 * N; i++) {
        hpb_wait(r[i]);
        g_assert_cmpint(r[i]->status, ==, OK);
    }
    hpb_check_out(h, RAM, N * h->unit);
    free_all(r, 3 * N);
    hpb_quit(h);
}

/*
 * An inflate is in flight when its deflate comes. Whichever the device sees,
 * its answers have to agree with what is out afterwards.
 */
static void test_deflate_of_inflight(void)
{
    Hpb *h = boot_big();

    for (unsigned i = 0; i < 10; i++) {
        g_autoptr(HpbReq) in = hpb_inflate(h), out = hpb_deflate(h);
        uint64_t len = (10 + i) * h->unit;

        populate(h, 64 * MiB, 1);
        hpb_submit(hpb_range(in, at(h, 0), len));
        hpb_submit(hpb_range(out, at(h, 0), len));
        hpb_wait(in);
        hpb_wait(out);
        g_assert_cmpint(in->status, ==, OK);
        if (out->status == OK) {
            hpb_check_out(h, BIG_RAM, 0);
        } else {
            g_assert_cmpint(out->status, ==, VIRTIO_BALLOON_HP_OVERLAP);
            hpb_check_out(h, BIG_RAM, len);
            hpb_give(h, at(h, 0), len);
        }
    }
    hpb_quit(h);
}

static void stop(Hpb *h)
{
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'stop' }");
    qtest_qmp_eventwait(h->qts, "STOP");
}

static void cont(Hpb *h)
{
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'cont' }");
    qtest_qmp_eventwait(h->qts, "RESUME");
}

/* DEV-20: what is made available while the machine is paused waits */
static void test_available_while_stopped(void)
{
    Hpb *h = hpb_boot("");
    g_autoptr(HpbReq) in = hpb_range(hpb_inflate(h), at(h, 0), h->unit);
    g_autoptr(HpbReq) bad = hpb_range(hpb_deflate(h), at(h, 5), h->unit);

    stop(h);
    hpb_submit(in);
    hpb_submit(bad);
    hpb_check_out(h, RAM, 0);
    g_assert_cmpint(hpb_collect(h, in->vq), ==, 0);
    g_assert_cmpint(hpb_collect(h, bad->vq), ==, 0);
    cont(h);
    hpb_wait(in);
    hpb_wait(bad);
    g_assert_cmpint(in->status, ==, OK);
    g_assert_cmpint(bad->status, ==, VIRTIO_BALLOON_HP_NOT_OUT);
    hpb_check_out(h, RAM, h->unit);
    hpb_quit(h);
}

/*
 * DEV-20: paused with requests in flight. Until the pause has been reached they
 * may be answered; from then on nothing moves; afterwards none is missing. A
 * device may give up on the rest of a long request, but has to say so.
 */
static void test_stop_in_flight(void)
{
    enum { N = 100 };
    Hpb *h = boot_big();
    uint64_t done = 0;
    HpbReq *in[N];
    uint16_t used;

    populate(h, BIG_RAM, 1);
    for (unsigned i = 0; i < N; i++) {
        in[i] = hpb_range(hpb_inflate(h), at(h, 2 * i), 2 * h->unit);
        hpb_add(in[i]);
    }
    hpb_kick(h, VIRTIO_BALLOON_HP_VQ_INFLATE);
    stop(h);
    used = qtest_readw(h->qts, h->vq[0].used + 2);
    g_test_message("%u of %u requests answered before the pause", used, N);
    for (unsigned i = 0; i < 100; i++) {
        hpb_qmp_query(h);
        g_assert_cmpint(qtest_readw(h->qts, h->vq[0].used + 2), ==, used);
    }
    cont(h);
    for (unsigned i = 0; i < N; i++) {
        hpb_wait(in[i]);
        done += in[i]->done;
        for (unsigned j = 0; j < in[i]->exc->len; j++) {
            g_assert_cmpint(g_array_index(in[i]->exc, HpbExc, j).status, ==,
                            VIRTIO_BALLOON_HP_AGAIN);
        }
    }
    hpb_check_out(h, BIG_RAM, done);
    free_all(in, N);
    hpb_quit(h);
}

/* DEV-25: nothing is out after a reset, and the target is kept */
static void test_reset_state(void)
{
    Hpb *h = hpb_boot("");
    g_autoptr(HpbReq) out = hpb_deflate(h);

    hpb_qmp_balloon(h, RAM - 10 * h->unit);
    hpb_take(h, at(h, 0), 10 * h->unit);
    hpb_reset(h);
    g_assert_cmphex(hpb_qmp_query(h), ==, RAM);
    hpb_driver_init(h, HPB_FEATURES);
    hpb_check_out(h, RAM, 0);
    g_assert_cmphex(HPB_CFG(h, requested), ==, 10 * h->unit);
    hpb_range(out, at(h, 0), 10 * h->unit);
    hpb_expect(out, VIRTIO_BALLOON_HP_NOT_OUT, 0, NULL);
    hpb_take(h, at(h, 0), 10 * h->unit);
    hpb_quit(h);
}

enum Reset { RESET_STATUS, RESET_SYSTEM, RESET_QUEUE };

static void add_long_requests(Hpb *h, HpbReq **in, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        in[i] = hpb_range(hpb_inflate(h), at(h, 30 * i), 30 * h->unit);
        hpb_add(in[i]);
    }
    hpb_kick(h, VIRTIO_BALLOON_HP_VQ_INFLATE);
}

/*
 * DEV-24: the reset is complete, requests were in flight. From here on the
 * memory is the driver's: what it writes stays, and no answer appears.
 */
static void reset_in_flight(enum Reset how)
{
    enum { N = 8 };
    Hpb *h = boot_big();
    HpbReq *in[N];
    uint8_t seen[2][N * 16];

    populate(h, BIG_RAM, 1);
    add_long_requests(h, in, N);
    if (how == RESET_SYSTEM) {
        qtest_system_reset(h->qts);
    } else {
        hpb_set_status(h, 0);
    }
    for (unsigned i = 0; i < N; i++) {
        qtest_memread(h->qts, in[i]->resp, &seen[0][16 * i], 16);
    }
    populate(h, BIG_RAM, 0x5a);
    if (how == RESET_SYSTEM) {
        hpb_probe_pci(h);
    }
    for (unsigned i = 0; i < N; i++) {
        qtest_memread(h->qts, in[i]->resp, &seen[1][16 * i], 16);
    }
    g_assert_cmpmem(seen[0], sizeof(seen[0]), seen[1], sizeof(seen[1]));
    hpb_driver_init(h, HPB_FEATURES);
    hpb_check_out(h, BIG_RAM, 0);
    /* one more request passes through the same thread as the abandoned ones */
    hpb_take(h, BIG_RAM - h->unit, h->unit);
    hpb_give(h, BIG_RAM - h->unit, h->unit);
    check_all(h, BIG_RAM - h->unit, 0x5a);
    free_all(in, N);
    hpb_quit(h);
}

static void test_reset_in_flight(void)
{
    reset_in_flight(RESET_STATUS);
}

static void test_system_reset_in_flight(void)
{
    reset_in_flight(RESET_SYSTEM);
}

/*
 * DEV-24, DEV-26: one queue is reset. Units of its requests are out or are
 * not, each by itself, and a deflate finds out; the other queue is not touched.
 */
static void test_queue_reset(void)
{
    enum { N = 8 };
    Hpb *h = boot_big();
    g_autoptr(HpbReq) out = hpb_room(hpb_deflate(h), 1000);
    uint8_t before[16], after[16];
    HpbReq *in[N];

    g_assert_true(hpb_offered(h) & (1ULL << VIRTIO_F_RING_RESET));
    hpb_driver_init(h, HPB_FEATURES | 1ULL << VIRTIO_F_RING_RESET);
    populate(h, BIG_RAM, 1);
    add_long_requests(h, in, N);
    hpb_queue_reset(h, VIRTIO_BALLOON_HP_VQ_INFLATE);
    qtest_memread(h->qts, in[N - 1]->resp, before, sizeof(before));

    hpb_range(out, at(h, 0), N * 30 * h->unit);
    hpb_ask(out);
    for (unsigned i = 0; i < out->exc->len; i++) {
        g_assert_cmpint(g_array_index(out->exc, HpbExc, i).status, ==,
                        VIRTIO_BALLOON_HP_NOT_OUT);
    }
    hpb_check_out(h, BIG_RAM, 0);
    populate(h, BIG_RAM, 0x66);

    qtest_memread(h->qts, in[N - 1]->resp, after, sizeof(after));
    g_assert_cmpmem(before, 16, after, 16);
    hpb_queue_setup(h, VIRTIO_BALLOON_HP_VQ_INFLATE);
    hpb_take(h, BIG_RAM - h->unit, h->unit);
    hpb_check_out(h, BIG_RAM, h->unit);
    check_all(h, BIG_RAM - h->unit, 0x66);
    free_all(in, N);
    hpb_quit(h);
}

/* A queue reset with nothing in flight leaves what is out */
static void test_queue_reset_idle(void)
{
    Hpb *h = hpb_boot("");

    hpb_driver_init(h, HPB_FEATURES | 1ULL << VIRTIO_F_RING_RESET);
    hpb_take(h, at(h, 0), 4 * h->unit);
    for (unsigned i = 0; i <= VIRTIO_BALLOON_HP_VQ_STATS; i++) {
        hpb_queue_reset(h, i);
        hpb_check_out(h, RAM, 4 * h->unit);
        hpb_queue_setup(h, i);
    }
    hpb_give(h, at(h, 0), 4 * h->unit);
    hpb_check_out(h, RAM, 0);
    hpb_quit(h);
}

/*
 * DRV-4: a driver uses a queue whose feature it did not negotiate. What happens
 * there is its own fault, but nothing else may suffer.
 */
static void test_unnegotiated_queue(void)
{
    Hpb *h = hpb_boot(",free-page-reporting=on");
    g_autoptr(HpbReq) r = hpb_report(h);

    hpb_driver_init(h, 0);
    hpb_queue_setup(h, VIRTIO_BALLOON_HP_VQ_REPORTING);
    hpb_submit(hpb_range(r, at(h, 0), h->unit));
    hpb_take(h, at(h, 1), h->unit);
    hpb_check_out(h, RAM, h->unit);
    hpb_quit(h);
}

/*
 * Random requests, overlapping and on all queues, that nobody waits for, while
 * the machine is paused, queues and the device are reset. What each answer will
 * be depends on the device's speed, but together they have to agree:
 * net[] counts for each unit how often it was taken minus how often given back.
 */
enum { WINDOW = 512, FLIGHT = 40 };

typedef struct Race {
    Hpb *h;
    GRand *rand;
    HpbReq *flying[FLIGHT];
    int first[FLIGHT];
    int8_t net[WINDOW];
    bool unknown[WINDOW];   /* in a request that a queue reset abandoned */
    unsigned answers, abandoned;
} Race;

/* Take over the answer in slot @i */
static void race_land(Race *race, unsigned i)
{
    HpbReq *r = race->flying[i];
    g_autofree bool *not_done = NULL;
    unsigned count = r->size / race->h->unit;

    hpb_wait(r);
    not_done = g_new0(bool, count);
    if (r->status > VIRTIO_BALLOON_HP_PARTIAL && !r->exc->len) {
        memset(not_done, 1, count);
    }
    for (unsigned e = 0; e < r->exc->len; e++) {
        HpbExc *exc = &g_array_index(r->exc, HpbExc, e);

        memset(not_done + exc->first, 1, exc->count);
    }
    for (unsigned u = 0; u < count; u++) {
        if (r->type != VIRTIO_BALLOON_HP_REQ_REPORT && !not_done[u]) {
            race->net[race->first[i] + u] +=
                r->type == VIRTIO_BALLOON_HP_REQ_INFLATE ? 1 : -1;
        }
    }
    race->answers++;
    race->flying[i] = NULL;
    hpb_req_free(r);
}

/* Forget what is in flight on @vq, or on all queues */
static void race_abandon(Race *race, unsigned vq)
{
    for (unsigned i = 0; i < FLIGHT; i++) {
        HpbReq *r = race->flying[i];

        if (r && (vq == VIRTIO_BALLOON_HP_VQ_MAX || r->vq == vq)) {
            memset(race->unknown + race->first[i], 1, r->size / race->h->unit);
            race->flying[i] = NULL;
            race->abandoned++;
            hpb_req_free(r);
        }
    }
}

/* Everything lands; then ask for all of it back, and compare with net[] */
static void race_settle(Race *race)
{
    Hpb *h = race->h;
    g_autoptr(HpbReq) out = hpb_room(hpb_deflate(h), WINDOW + 1);
    bool is_out[WINDOW];

    for (unsigned i = 0; i < FLIGHT; i++) {
        if (race->flying[i]) {
            race_land(race, i);
        }
    }
    hpb_range(out, at(h, 0), WINDOW * h->unit);
    hpb_ask(out);
    memset(is_out, 1, sizeof(is_out));
    for (unsigned e = 0; e < out->exc->len; e++) {
        HpbExc *exc = &g_array_index(out->exc, HpbExc, e);

        g_assert_cmpint(exc->status, ==, VIRTIO_BALLOON_HP_NOT_OUT);
        memset(is_out + exc->first, 0, exc->count);
    }
    for (unsigned u = 0; u < WINDOW; u++) {
        if (!race->unknown[u]) {
            g_assert_cmpint(race->net[u], ==, is_out[u]);
        }
    }
    hpb_check_out(h, RAM, 0);
    g_assert_cmpint(hpb_counter(h, "in-flight"), ==, 0);
    memset(race->net, 0, sizeof(race->net));
    memset(race->unknown, 0, sizeof(race->unknown));
}

static void race_submit(Race *race, unsigned slot)
{
    unsigned first = g_rand_int_range(race->rand, 0, WINDOW);
    unsigned count = g_rand_int_range(race->rand, 1,
                                      MIN(48, WINDOW - first) + 1);
    HpbReq *r;

    switch (g_rand_int_range(race->rand, 0, 5)) {
    case 0:
        r = hpb_report(race->h);
        break;
    case 1:
    case 2:
        r = hpb_deflate(race->h);
        break;
    default:
        r = hpb_inflate(race->h);
    }
    race->flying[slot] = hpb_range(r, at(race->h, first),
                                   count * race->h->unit);
    race->first[slot] = first;
    hpb_submit(r);
}

static void race_event(Race *race)
{
    Hpb *h = race->h;
    unsigned vq;

    switch (g_rand_int_range(race->rand, 0, 8)) {
    case 0:
        hpb_set_status(h, 0);
        race_abandon(race, VIRTIO_BALLOON_HP_VQ_MAX);
        memset(race->net, 0, sizeof(race->net));
        memset(race->unknown, 0, sizeof(race->unknown));
        hpb_driver_init(h, HPB_FEATURES | 1ULL << VIRTIO_F_RING_RESET);
        break;
    case 1:
        vq = g_rand_int_range(race->rand, 0, 2);
        hpb_queue_reset(h, vq);
        hpb_collect(h, vq);
        for (unsigned i = 0; i < FLIGHT; i++) {
            if (race->flying[i] && race->flying[i]->answered) {
                race_land(race, i);
            }
        }
        race_abandon(race, vq);
        hpb_queue_setup(h, vq);
        race_settle(race);
        break;
    case 2:
    case 3:
        stop(h);
        cont(h);
        break;
    case 4:
        race_settle(race);
        break;
    default:
        hpb_fill(h, at(h, 0), WINDOW * h->unit, 1);
    }
}

static void test_race(void)
{
    const char *n = g_getenv("HPB_STRESS_ITERATIONS");
    const char *seed = g_getenv("HPB_STRESS_SEED");
    unsigned iterations = n && *n ? atoi(n) : 1500;
    Race race = {
        .h = hpb_boot_mem("-m 256M -machine memory-backend=m -object "
                          "memory-backend-memfd,id=m,size=256M,share=on",
                          ",unit=64k,free-page-reporting=on"),
        .rand = g_rand_new_with_seed(seed && *seed ? atoi(seed) : 1),
    };

    hpb_use_ram_file(race.h);
    hpb_driver_init(race.h, HPB_FEATURES | 1ULL << VIRTIO_F_RING_RESET);
    for (unsigned i = 0; i < iterations; i++) {
        unsigned slot = g_rand_int_range(race.rand, 0, FLIGHT);

        if (race.h->heap > HPB_LOW_END - MiB) {
            race_settle(&race);
            hpb_driver_init(race.h, HPB_FEATURES | 1ULL << VIRTIO_F_RING_RESET);
        }
        if (race.flying[slot]) {
            race_land(&race, slot);
        }
        race_submit(&race, slot);
        if (g_rand_int_range(race.rand, 0, 20) == 0) {
            race_event(&race);
        }
    }
    race_settle(&race);
    g_test_message("%u answers, %u abandoned", race.answers, race.abandoned);
    g_rand_free(race.rand);
    hpb_quit(race.h);
}

#define ADD(name, fn) qtest_add_func("virtio-balloon-hp/queue/" name, fn)

void hpb_add_queue_tests(void)
{
    ADD("DEV-12c-overlap-in-flight", test_overlap_in_flight);
    ADD("DEV-18-many-in-flight", test_many_in_flight);
    ADD("DRV-18-all-queues", test_all_queues);
    ADD("deflate-of-in-flight", test_deflate_of_inflight);
    ADD("DEV-20-available-while-stopped", test_available_while_stopped);
    ADD("DEV-20-stop-in-flight", test_stop_in_flight);
    ADD("DEV-25-reset-state", test_reset_state);
    ADD("DEV-24-reset-in-flight", test_reset_in_flight);
    ADD("DEV-24-system-reset-in-flight", test_system_reset_in_flight);
    ADD("DEV-24-DEV-26-queue-reset", test_queue_reset);
    ADD("queue-reset-idle", test_queue_reset_idle);
    ADD("DRV-4-unnegotiated-queue", test_unnegotiated_queue);
    ADD("random-in-flight", test_race);
}
