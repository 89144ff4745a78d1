/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp qtest: what well-formed requests do (DEV-8, DEV-9, DEV-12
 * to DEV-17, DEV-19)
 *
 * Theory of operation: each test asks for ranges of which the outcome of
 * every unit is known, and compares the whole answer: status, bytes done,
 * list of exceptions; then what is out by the device's own count.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "hpb-qtest.h"

#define RAM     (256 * MiB)
#define OK      VIRTIO_BALLOON_HP_OK
#define PARTIAL VIRTIO_BALLOON_HP_PARTIAL
#define EXC(...) ((const HpbExc[]) { __VA_ARGS__, { 0 } })

/* Address of the i-th unit that tests use */
static uint64_t at(Hpb *h, unsigned i)
{
    return HPB_RAM_START + i * h->unit;
}

/* DEV-13, DEV-14, DEV-4: there and back, with a count that follows */
static void test_there_and_back(void)
{
    Hpb *h = hpb_boot("");
    uint64_t all = RAM - HPB_RAM_START;

    hpb_take(h, HPB_RAM_START, all);
    hpb_check_out(h, RAM, all);
    hpb_give(h, HPB_RAM_START + all / 2, all / 2);
    hpb_check_out(h, RAM, all / 2);
    hpb_give(h, HPB_RAM_START, all / 2);
    hpb_check_out(h, RAM, 0);
    hpb_quit(h);
}

/* Many ranges that are not adjacent, in no order, as one request */
static void test_many_ranges(void)
{
    Hpb *h = hpb_boot("");
    g_autoptr(HpbReq) in = hpb_inflate(h), out = hpb_deflate(h);

    for (unsigned i = 0; i < 60; i++) {
        hpb_range(in, at(h, (i * 34 + 7) % 120 / 2 * 2), h->unit);
        hpb_range(out, at(h, i * 2), h->unit);
    }
    hpb_expect(in, OK, 60 * h->unit, NULL);
    hpb_check_out(h, RAM, 60 * h->unit);
    hpb_expect(out, OK, 60 * h->unit, NULL);
    hpb_check_out(h, RAM, 0);
    hpb_quit(h);
}

/* A request may have max_ranges descriptors, directly and in a table */
static void test_max_ranges(void)
{
    Hpb *h = hpb_boot(",unit=4096");
    unsigned max = HPB_CFG(h, max_ranges);

    for (unsigned indirect = 0; indirect < 2; indirect++) {
        g_autoptr(HpbReq) in = hpb_inflate(h), out = hpb_deflate(h);

        for (unsigned i = 0; i < max; i++) {
            hpb_range(in, at(h, 2 * i), h->unit);
            hpb_range(out, at(h, 2 * i), h->unit);
        }
        in->indirect = out->indirect = indirect;
        hpb_expect(in, OK, max * h->unit, NULL);
        hpb_check_out(h, RAM, max * h->unit);
        hpb_expect(out, OK, max * h->unit, NULL);
        hpb_check_out(h, RAM, 0);
    }
    hpb_quit(h);
}

/* DEV-8: only the response is written: not the header, not the ranges */
static void test_writes_only_response(void)
{
    Hpb *h = hpb_boot("");
    g_autoptr(HpbReq) in = hpb_inflate(h);
    uint8_t before[16], after[16];

    /* refused ranges keep their contents, they were not given up */
    hpb_fill(h, at(h, 0) + 4096, h->unit, 0x5a);
    hpb_range(in, at(h, 0) + 4096, h->unit);
    hpb_submit(in);
    qtest_memread(h->qts, in->hdr, before, sizeof(before));
    hpb_wait(in);
    qtest_memread(h->qts, in->hdr, after, sizeof(after));
    g_assert_cmpmem(before, 16, after, 16);
    g_assert_cmpint(in->used_len, <=, 32);
    g_assert_true(hpb_filled(h, at(h, 0) + 4096, h->unit, 0x5a));
    hpb_quit(h);
}

/* DEV-9: header and response cut anywhere, response and range in one piece */
static void test_framing(void)
{
    static const uint8_t cuts[] = { 0, 1, 2, 7, 8, 15 };
    Hpb *h = hpb_boot("");

    for (unsigned i = 0; i < ARRAY_SIZE(cuts); i++) {
        for (unsigned j = 0; j < ARRAY_SIZE(cuts); j++) {
            g_autoptr(HpbReq) in = hpb_inflate(h), out = hpb_deflate(h);

            in->cut_hdr = out->cut_hdr = cuts[i];
            in->cut_resp = out->cut_resp = cuts[j];
            in->indirect = (i + j) % 2;
            hpb_range(hpb_range(in, at(h, 3), h->unit), at(h, 5), h->unit);
            hpb_range(out, at(h, 2), 4 * h->unit);
            hpb_expect(in, OK, 2 * h->unit, NULL);
            hpb_expect(out, PARTIAL, 2 * h->unit,
                       EXC({ 0, 1, VIRTIO_BALLOON_HP_NOT_OUT },
                           { 2, 1, VIRTIO_BALLOON_HP_NOT_OUT }));
        }
    }
    hpb_check_out(h, RAM, 0);
    hpb_quit(h);
}

/* DEV-9: a later version of the driver may say more behind the header */
static void test_framing_longer_header(void)
{
    Hpb *h = hpb_boot("");
    g_autoptr(HpbReq) in = hpb_inflate(h);

    in->hdr_len = 4096;
    in->cut_hdr = 100;
    hpb_range(in, at(h, 0), h->unit);
    hpb_expect(in, OK, h->unit, NULL);
    hpb_check_out(h, RAM, h->unit);
    hpb_quit(h);
}

/* DEV-9: an exception that lies across the cut of the response */
static void test_framing_exception_cut(void)
{
    Hpb *h = hpb_boot("");

    for (unsigned cut = 16; cut < 48; cut++) {
        g_autoptr(HpbReq) out = hpb_deflate(h);

        out->cut_resp = cut;
        hpb_range(out, at(h, 0), h->unit);
        hpb_range(out, at(h, 2) + 4096, h->unit);
        hpb_ask(out);
        g_assert_cmpint(out->exc->len, ==, 2);
        g_assert_cmpint(g_array_index(out->exc, HpbExc, 0).status, ==,
                        VIRTIO_BALLOON_HP_NOT_OUT);
        g_assert_cmpint(g_array_index(out->exc, HpbExc, 1).status, ==,
                        VIRTIO_BALLOON_HP_INVAL);
    }
    hpb_quit(h);
}

/* DEV-9: a descriptor that holds the end of the response and the first range */
static void test_framing_joined(void)
{
    Hpb *h = hpb_boot("");
    g_autoptr(HpbReq) in = hpb_inflate(h);

    in->resp = at(h, 4) - in->resp_len;
    in->join = true;
    hpb_range(hpb_range(in, at(h, 4), 2 * h->unit), at(h, 8), h->unit);
    hpb_expect(in, OK, 3 * h->unit, NULL);
    hpb_check_out(h, RAM, 3 * h->unit);
    hpb_give(h, at(h, 4), 2 * h->unit);
    hpb_give(h, at(h, 8), h->unit);
    hpb_quit(h);
}

/* DEV-9: one range, cut below the unit */
static void test_framing_range(void)
{
    static const uint32_t first[] = { 1, 512, 4096, 5000, 2 * MiB - 1 };
    Hpb *h = hpb_boot("");

    for (unsigned i = 0; i < ARRAY_SIZE(first); i++) {
        g_autoptr(HpbReq) in = hpb_inflate(h), out = hpb_deflate(h);

        hpb_range(in, at(h, 1), first[i]);
        hpb_range(in, at(h, 1) + first[i], h->unit - first[i]);
        hpb_range(in, at(h, 2), h->unit);
        hpb_expect(in, OK, 2 * h->unit, NULL);
        hpb_range(out, at(h, 1), h->unit + first[i]);
        hpb_range(out, at(h, 2) + first[i], h->unit - first[i]);
        hpb_expect(out, OK, 2 * h->unit, NULL);
    }
    hpb_check_out(h, RAM, 0);
    hpb_quit(h);
}

/* DEV-12: each unit is judged by itself, the good ones between are done */
static void test_partial(void)
{
    Hpb *h = hpb_boot("");
    g_autoptr(HpbReq) in = hpb_inflate(h), out = hpb_deflate(h);

    hpb_take(h, at(h, 2), 2 * h->unit);
    hpb_range(in, at(h, 0), 6 * h->unit);           /* units 0..5 */
    hpb_range(in, at(h, 10) + 4096, h->unit);       /* unit 6 */
    hpb_range(in, at(h, 20), h->unit);              /* unit 7 */
    hpb_expect(in, PARTIAL, 5 * h->unit,
               EXC({ 2, 2, VIRTIO_BALLOON_HP_ALREADY_OUT },
                   { 6, 1, VIRTIO_BALLOON_HP_INVAL }));
    hpb_check_out(h, RAM, 7 * h->unit);

    hpb_range(out, at(h, 5), 2 * h->unit);          /* 0: out, 1: not */
    hpb_range(out, at(h, 19), 3 * h->unit);         /* 2: not, 3: out, 4: not */
    hpb_expect(out, PARTIAL, 2 * h->unit,
               EXC({ 1, 2, VIRTIO_BALLOON_HP_NOT_OUT },
                   { 4, 1, VIRTIO_BALLOON_HP_NOT_OUT }));
    hpb_check_out(h, RAM, 5 * h->unit);
    hpb_quit(h);
}

/* DEV-12 d, DEV-13: double inflate, and it does not count twice */
static void test_double_inflate(void)
{
    Hpb *h = hpb_boot("");
    g_autoptr(HpbReq) in = hpb_inflate(h);

    hpb_take(h, at(h, 0), 4 * h->unit);
    hpb_range(in, at(h, 0), 4 * h->unit);
    hpb_expect(in, VIRTIO_BALLOON_HP_ALREADY_OUT, 0, NULL);
    hpb_check_out(h, RAM, 4 * h->unit);
    hpb_give(h, at(h, 0), 4 * h->unit);
    hpb_check_out(h, RAM, 0);
    hpb_quit(h);
}

/* DEV-12 e, DEV-14: deflate of what is not out */
static void test_deflate_not_out(void)
{
    Hpb *h = hpb_boot("");
    g_autoptr(HpbReq) never = hpb_deflate(h), twice = hpb_deflate(h);

    hpb_fill(h, at(h, 0), h->unit, 0x77);
    hpb_range(never, at(h, 0), h->unit);
    hpb_expect(never, VIRTIO_BALLOON_HP_NOT_OUT, 0, NULL);
    g_assert_true(hpb_filled(h, at(h, 0), h->unit, 0x77));

    hpb_take(h, at(h, 1), h->unit);
    hpb_give(h, at(h, 1), h->unit);
    hpb_range(twice, at(h, 1), h->unit);
    hpb_expect(twice, VIRTIO_BALLOON_HP_NOT_OUT, 0, NULL);
    hpb_check_out(h, RAM, 0);
    hpb_quit(h);
}

/* DEV-12 c: the same unit twice in a request; the first one counts */
static void test_overlap_inside(void)
{
    Hpb *h = hpb_boot("");
    g_autoptr(HpbReq) in = hpb_inflate(h), out = hpb_deflate(h);

    hpb_range(in, at(h, 0), 4 * h->unit);
    hpb_range(in, at(h, 2), 4 * h->unit);
    hpb_expect(in, PARTIAL, 6 * h->unit,
               EXC({ 4, 2, VIRTIO_BALLOON_HP_OVERLAP }));
    hpb_check_out(h, RAM, 6 * h->unit);
    hpb_range(out, at(h, 5), h->unit);
    hpb_range(out, at(h, 5), h->unit);
    hpb_range(out, at(h, 5), h->unit);
    hpb_expect(out, PARTIAL, h->unit,
               EXC({ 1, 2, VIRTIO_BALLOON_HP_OVERLAP }));
    hpb_check_out(h, RAM, 5 * h->unit);
    hpb_quit(h);
}

/* DEV-12: of several reasons the first in the list is answered */
static void test_order_of_reasons(void)
{
    Hpb *h = hpb_boot("");
    g_autoptr(HpbReq) in = hpb_inflate(h), out = hpb_deflate(h);

    hpb_take(h, at(h, 0), 2 * h->unit);
    /* out and here twice: the second is OVERLAP before ALREADY_OUT */
    hpb_range(in, at(h, 0), h->unit);
    hpb_range(in, at(h, 0), h->unit);
    /* not aligned and out: INVAL before ALREADY_OUT */
    hpb_range(in, at(h, 0) + 4096, h->unit);
    hpb_ask(in);
    g_assert_cmpint(in->exc->len, ==, 3);
    g_assert_cmpint(g_array_index(in->exc, HpbExc, 0).status, ==,
                    VIRTIO_BALLOON_HP_ALREADY_OUT);
    g_assert_cmpint(g_array_index(in->exc, HpbExc, 1).status, ==,
                    VIRTIO_BALLOON_HP_OVERLAP);
    g_assert_cmpint(g_array_index(in->exc, HpbExc, 2).status, ==,
                    VIRTIO_BALLOON_HP_INVAL);

    /* not out and here twice */
    hpb_range(out, at(h, 9), h->unit);
    hpb_range(out, at(h, 9), h->unit);
    hpb_ask(out);
    g_assert_cmpint(out->exc->len, ==, 2);
    g_assert_cmpint(g_array_index(out->exc, HpbExc, 1).status, ==,
                    VIRTIO_BALLOON_HP_OVERLAP);
    hpb_check_out(h, RAM, 2 * h->unit);
    hpb_quit(h);
}

/*
 * DEV-17: no room for all exceptions. The device must use the room for
 * reasons, say AGAIN for all that it did not look at, and leave that alone.
 */
static void test_no_room(void)
{
    Hpb *h = hpb_boot("");

    for (unsigned room = 2; room < 12; room++) {
        g_autoptr(HpbReq) in = hpb_room(hpb_inflate(h), room);
        HpbExc *last;
        uint64_t seen;

        hpb_reset(h);
        hpb_driver_init(h, HPB_FEATURES);
        for (unsigned i = 0; i < 40; i += 2) {
            hpb_take(h, at(h, i), h->unit);
        }
        hpb_range(in, at(h, 0), 40 * h->unit);
        hpb_ask(in);
        g_assert_cmpint(in->status, ==, PARTIAL);
        g_assert_cmpint(in->exc->len, ==, room);
        for (unsigned i = 0; i < room - 1; i++) {
            HpbExc *e = &g_array_index(in->exc, HpbExc, i);

            g_assert_cmpint(e->first, ==, 2 * i);
            g_assert_cmpint(e->count, ==, 1);
            g_assert_cmpint(e->status, ==, VIRTIO_BALLOON_HP_ALREADY_OUT);
        }
        last = &g_array_index(in->exc, HpbExc, room - 1);
        g_assert_cmpint(last->status, ==, VIRTIO_BALLOON_HP_AGAIN);
        g_assert_cmpint(last->first + last->count, ==, 40);
        seen = last->first;
        g_assert_cmphex(in->done, ==, (seen - (room - 1)) * h->unit);
        hpb_check_out(h, RAM, 20 * h->unit + in->done);
    }
    hpb_quit(h);
}

/* DEV-17: AGAIN means at once, so asking again for the rest comes to an end */
static void test_again(void)
{
    Hpb *h = hpb_boot("");
    unsigned first = 0, rounds = 0;

    for (unsigned i = 0; i < 40; i += 2) {
        hpb_take(h, at(h, i), h->unit);
    }
    while (first < 40) {
        g_autoptr(HpbReq) in = hpb_room(hpb_inflate(h), 2);
        HpbExc *last;

        hpb_range(in, at(h, first), (40 - first) * h->unit);
        hpb_ask(in);
        last = in->exc->len ? &g_array_index(in->exc, HpbExc,
                                             in->exc->len - 1) : NULL;
        if (!last || last->status != VIRTIO_BALLOON_HP_AGAIN) {
            break;
        }
        g_assert_cmpint(last->first, >, 0);
        first += last->first;
        g_assert_cmpint(++rounds, <, 40);
    }
    hpb_check_out(h, RAM, 40 * h->unit);
    hpb_quit(h);
}

/*
 * DEV-18, DEV-17: more exceptions than anybody wants in one answer. The device
 * may stop wherever it likes, if it says so and goes on when asked again.
 */
static void test_long_answer(void)
{
    enum { OUT = 10000, PER_REQUEST = 1000 };
    Hpb *h = hpb_boot(",unit=4096");
    unsigned first = 0;

    for (unsigned i = 0; i < OUT; i += PER_REQUEST) {
        g_autoptr(HpbReq) in = hpb_inflate(h);

        for (unsigned j = 0; j < PER_REQUEST; j++) {
            hpb_range(in, at(h, 2 * (i + j)), h->unit);
        }
        hpb_expect(in, OK, PER_REQUEST * h->unit, NULL);
    }
    for (unsigned asked = 0; first < 2 * OUT; asked++) {
        g_autoptr(HpbReq) in = hpb_room(hpb_inflate(h), 2 * OUT);
        HpbExc *last;

        g_assert_cmpint(asked, <, 20);
        hpb_range(in, at(h, first), (2 * OUT - first) * h->unit);
        hpb_ask(in);
        g_assert_cmpint(in->exc->len, >, 0);
        last = &g_array_index(in->exc, HpbExc, in->exc->len - 1);
        if (last->status != VIRTIO_BALLOON_HP_AGAIN) {
            break;
        }
        first += last->first;
    }
    hpb_check_out(h, RAM, 2 * OUT * h->unit);
    hpb_quit(h);
}

/* DEV-15, DEV-23: beyond and below what is requested */
static void test_not_bound_by_requested(void)
{
    Hpb *h = hpb_boot("");

    g_assert_cmphex(HPB_CFG(h, requested), ==, 0);
    hpb_take(h, at(h, 0), 10 * h->unit);
    hpb_qmp_balloon(h, RAM - 20 * h->unit);
    hpb_give(h, at(h, 0), 5 * h->unit);
    hpb_check_out(h, RAM, 5 * h->unit);
    hpb_take(h, at(h, 40), 60 * h->unit);
    hpb_check_out(h, RAM, 65 * h->unit);
    hpb_quit(h);
}

/* DEV-19: a report drops contents, changes no state, refuses what is out */
static void test_report(void)
{
    Hpb *h = hpb_boot(",free-page-reporting=on");
    g_autoptr(HpbReq) r = hpb_report(h), again = hpb_report(h);

    hpb_take(h, at(h, 2), h->unit);
    hpb_fill(h, at(h, 0), 2 * h->unit, 0x33);
    hpb_fill(h, at(h, 3), h->unit, 0x33);
    hpb_range(r, at(h, 0), 4 * h->unit);
    hpb_expect(r, PARTIAL, 3 * h->unit,
               EXC({ 2, 1, VIRTIO_BALLOON_HP_ALREADY_OUT }));
    hpb_check_out(h, RAM, h->unit);
    if (r->resp_flags & VIRTIO_BALLOON_HP_RESP_F_ZEROED) {
        g_assert_true(hpb_filled(h, at(h, 0), 2 * h->unit, 0));
        g_assert_true(hpb_filled(h, at(h, 3), h->unit, 0));
    }
    /* usable at once, without a deflate; and the device is done with it */
    hpb_fill(h, at(h, 0), 2 * h->unit, 0x44);
    hpb_take(h, at(h, 10), h->unit);
    hpb_give(h, at(h, 10), h->unit);
    g_assert_true(hpb_filled(h, at(h, 0), 2 * h->unit, 0x44));
    hpb_range(again, at(h, 0), h->unit);
    hpb_expect(again, OK, h->unit, NULL);
    hpb_quit(h);
}

/* ZEROED in the answer to a deflate is true, on private and shared memory */
static void test_zeroed(void)
{
    static const char *const mem[] = {
        "-m 256M",
        "-m 256M -machine memory-backend=m "
        "-object memory-backend-memfd,id=m,size=256M,share=on",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(mem); i++) {
        Hpb *h = hpb_boot_mem(mem[i], "");
        g_autoptr(HpbReq) out = hpb_deflate(h);

        hpb_fill(h, at(h, 0), 2 * h->unit, 0x11);
        hpb_take(h, at(h, 0), 2 * h->unit);
        hpb_range(out, at(h, 0), 2 * h->unit);
        hpb_expect(out, OK, 2 * h->unit, NULL);
        g_assert_cmpint(out->resp_flags, ==, VIRTIO_BALLOON_HP_RESP_F_ZEROED);
        g_assert_true(hpb_filled(h, at(h, 0), 2 * h->unit, 0));
        hpb_quit(h);
    }
}

void hpb_add_request_tests(void)
{
    qtest_add_func("virtio-balloon-hp/request/DEV-13-DEV-14-there-and-back",
                   test_there_and_back);
    qtest_add_func("virtio-balloon-hp/request/many-ranges", test_many_ranges);
    qtest_add_func("virtio-balloon-hp/request/DEV-6-max-ranges",
                   test_max_ranges);
    qtest_add_func("virtio-balloon-hp/request/DEV-8-writes-only-response",
                   test_writes_only_response);
    qtest_add_func("virtio-balloon-hp/request/DEV-9-framing", test_framing);
    qtest_add_func("virtio-balloon-hp/request/DEV-9-framing-longer-header",
                   test_framing_longer_header);
    qtest_add_func("virtio-balloon-hp/request/DEV-9-framing-exception-cut",
                   test_framing_exception_cut);
    qtest_add_func("virtio-balloon-hp/request/DEV-9-framing-joined",
                   test_framing_joined);
    qtest_add_func("virtio-balloon-hp/request/DEV-9-framing-range",
                   test_framing_range);
    qtest_add_func("virtio-balloon-hp/request/DEV-12-partial", test_partial);
    qtest_add_func("virtio-balloon-hp/request/DEV-12d-double-inflate",
                   test_double_inflate);
    qtest_add_func("virtio-balloon-hp/request/DEV-12e-deflate-not-out",
                   test_deflate_not_out);
    qtest_add_func("virtio-balloon-hp/request/DEV-12c-overlap-inside",
                   test_overlap_inside);
    qtest_add_func("virtio-balloon-hp/request/DEV-12-order-of-reasons",
                   test_order_of_reasons);
    qtest_add_func("virtio-balloon-hp/request/DEV-17-no-room", test_no_room);
    qtest_add_func("virtio-balloon-hp/request/DEV-17-again", test_again);
    qtest_add_func("virtio-balloon-hp/request/DEV-18-long-answer",
                   test_long_answer);
    qtest_add_func("virtio-balloon-hp/request/DEV-15-DEV-23-requested",
                   test_not_bound_by_requested);
    qtest_add_func("virtio-balloon-hp/request/DEV-19-report", test_report);
    qtest_add_func("virtio-balloon-hp/request/zeroed", test_zeroed);
}
