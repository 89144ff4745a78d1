/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp qtest: what a driver must not send (DEV-10 to DEV-12)
 *
 * Theory of operation: three kinds of outcome. A request that is wrong as a
 * whole but has a place for an answer gets INVAL or UNSUPP; a request without
 * a safe place for an answer makes the device ask for a reset; a wrong unit
 * gets an exception. In each case the test checks that nothing moved, and that
 * the device, after a reset if it needs one, works as if nothing had happened.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "hpb-qtest.h"

#define RAM         (256 * MiB)
#define OK          VIRTIO_BALLOON_HP_OK
#define PARTIAL     VIRTIO_BALLOON_HP_PARTIAL
#define INVAL       VIRTIO_BALLOON_HP_INVAL
#define NOT_RAM     VIRTIO_BALLOON_HP_NOT_RAM
#define UNSUPP      VIRTIO_BALLOON_HP_UNSUPP
#define EXC(...)    ((const HpbExc[]) { __VA_ARGS__, { 0 } })
#define W           VRING_DESC_F_WRITE
#define BIOS        0xffff0000ULL
#define NOWHERE     0x7000000000ULL

static uint64_t at(Hpb *h, unsigned i)
{
    return HPB_RAM_START + i * h->unit;
}

/* The device has asked for a reset; reset it and see that it works */
static void recover(Hpb *h)
{
    g_assert_true(hpb_status(h) & VIRTIO_CONFIG_S_NEEDS_RESET);
    hpb_driver_init(h, HPB_FEATURES);
    hpb_check_out(h, RAM, 0);
    hpb_take(h, at(h, 0), h->unit);
    hpb_give(h, at(h, 0), h->unit);
}

/* @n units are out before; send @r; the device must break and move nothing */
static void expect_broken(HpbReq *r)
{
    Hpb *h = r->h;

    hpb_take(h, at(h, 30), 2 * h->unit);
    hpb_ask_broken(r);
    /* DEV-11: units keep their state, and other requests are not processed */
    hpb_check_out(h, RAM, 2 * h->unit);
    recover(h);
}

static void expect_chain_broken(Hpb *h, const HpbDesc *d, unsigned n,
                                bool indirect)
{
    hpb_take(h, at(h, 30), 2 * h->unit);
    hpb_chain(h, VIRTIO_BALLOON_HP_VQ_INFLATE, d, n, indirect);
    hpb_wait_broken(h);
    g_assert_cmpint(hpb_collect(h, VIRTIO_BALLOON_HP_VQ_INFLATE), ==, 0);
    hpb_check_out(h, RAM, 2 * h->unit);
    recover(h);
}

/* Refused as a whole, device goes on; the refusal is counted */
static void expect_refused(HpbReq *r, uint16_t status, const char *counter)
{
    Hpb *h = r->h;
    uint64_t before = hpb_counter(h, counter);

    hpb_expect(r, status, 0, NULL);
    g_assert_cmpint(hpb_counter(h, counter), ==, before + 1);
    hpb_check_out(h, RAM, 0);
    hpb_take(h, at(h, 50), h->unit);
    hpb_give(h, at(h, 50), h->unit);
}

/* A valid header of an inflate, for chains made by hand */
static void put_header(Hpb *h, uint64_t addr, uint32_t resp_size, uint64_t size)
{
    struct virtio_balloon_hp_req hdr = {
        .type = cpu_to_le16(VIRTIO_BALLOON_HP_REQ_INFLATE),
        .resp_size = cpu_to_le32(resp_size),
        .size = cpu_to_le64(size),
    };

    qtest_memwrite(h->qts, addr, &hdr, sizeof(hdr));
}

/* DEV-10: flags, one bit at a time */
static void test_flags(void)
{
    Hpb *h = hpb_boot("");

    for (unsigned bit = 0; bit < 16; bit++) {
        g_autoptr(HpbReq) in = hpb_range(hpb_inflate(h), at(h, 0), h->unit);

        in->flags = 1 << bit;
        expect_refused(in, INVAL, "refused.inval");
    }
    hpb_quit(h);
}

/* DEV-10: no ranges at all; part of a unit; header and chain disagree */
static void test_sizes(void)
{
    Hpb *h = hpb_boot("");
    const struct { int64_t lie; uint64_t len; } cases[] = {
        { 0, 0 },
        { 0, 512 },
        { 0, h->unit - 1 },
        { 0, h->unit + 512 },
        { -h->unit, h->unit },
        { h->unit, h->unit },
        { -1, h->unit },
        { 1, h->unit },
        { INT64_MAX, h->unit },
        { INT64_MIN, h->unit },
        { -2 * h->unit, h->unit },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autoptr(HpbReq) in = hpb_inflate(h);

        hpb_range(in, at(h, 0), cases[i].len);
        in->size += cases[i].lie;
        expect_refused(in, INVAL, "refused.inval");
    }
    hpb_quit(h);
}

/* DEV-10: resp_size + size wrap around, or do not add up although both fit */
static void test_resp_size_mismatch(void)
{
    Hpb *h = hpb_boot("");
    const int32_t lies[] = { 16, -16, 1, -1, h->unit };

    for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
        g_autoptr(HpbReq) in = hpb_range(hpb_inflate(h), at(h, 0), h->unit);

        in->resp_size += lies[i];
        expect_refused(in, INVAL, "refused.inval");
    }
    {
        g_autoptr(HpbReq) in = hpb_range(hpb_inflate(h), at(h, 0), h->unit);

        /* all of it response: the sum is right, nothing is a range */
        in->resp_size += h->unit;
        in->size -= h->unit;
        expect_refused(in, INVAL, "refused.inval");
    }
    hpb_quit(h);
}

/* DEV-10: more than the guest has, by naming memory many times */
static void test_more_than_ram(void)
{
    Hpb *h = hpb_boot("");
    g_autoptr(HpbReq) in = hpb_inflate(h);

    hpb_range(in, HPB_RAM_START, RAM - HPB_RAM_START);
    hpb_range(in, HPB_RAM_START, RAM - HPB_RAM_START);
    expect_refused(in, INVAL, "refused.inval");
    hpb_quit(h);
}

/* DEV-10: types and queues */
static void test_types(void)
{
    Hpb *h = hpb_boot(",free-page-reporting=on");
    static const unsigned queues[] = {
        [VIRTIO_BALLOON_HP_REQ_INFLATE] = VIRTIO_BALLOON_HP_VQ_INFLATE,
        [VIRTIO_BALLOON_HP_REQ_DEFLATE] = VIRTIO_BALLOON_HP_VQ_DEFLATE,
        [VIRTIO_BALLOON_HP_REQ_REPORT] = VIRTIO_BALLOON_HP_VQ_REPORTING,
    };
    static const uint16_t types[] = { 0, 1, 2, 3, 4, 0x100, 0xffff };

    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        for (unsigned q = 1; q < ARRAY_SIZE(queues); q++) {
            g_autoptr(HpbReq) r = hpb_req(h, queues[q], types[i]);

            hpb_range(r, at(h, 0), h->unit);
            if (types[i] == q) {
                continue;
            }
            expect_refused(r, UNSUPP, "refused.unsupp");
        }
    }
    hpb_quit(h);
}

/* DEV-11: header only; empty header; short header */
static void test_header(void)
{
    Hpb *h = hpb_boot("");

    for (unsigned len = 1; len < 16; len += 7) {
        g_autoptr(HpbReq) in = hpb_range(hpb_inflate(h), at(h, 0), h->unit);

        in->hdr_len = len;
        expect_broken(in);
    }
    {
        g_autoptr(HpbReq) in = hpb_inflate(h);

        in->resp_len = 0;
        expect_broken(in);
    }
    {
        g_autoptr(HpbReq) in = hpb_inflate(h);

        /* the header claims what is not there */
        in->resp_len = 0;
        in->size = h->unit;
        expect_broken(in);
    }
    {
        g_autoptr(HpbReq) in = hpb_range(hpb_inflate(h), at(h, 0), h->unit);

        in->hdr_len = 0;
        expect_broken(in);
    }
    g_assert_cmpint(hpb_counter(h, "broken"), ==, 6);
    hpb_quit(h);
}

/* DEV-11: no safe place for an answer */
static void test_resp_size(void)
{
    static const uint32_t sizes[] = { 0, 1, 15, 16, 32, 47 };
    Hpb *h = hpb_boot("");

    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        g_autoptr(HpbReq) in = hpb_inflate(h);

        in->resp_size = in->resp_len = sizes[i];
        expect_broken(hpb_range(in, at(h, 0), h->unit));
    }
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        g_autoptr(HpbReq) in = hpb_inflate(h);

        /* the same said of a chain that has the room */
        in->resp_size = sizes[i];
        expect_broken(hpb_range(in, at(h, 0), h->unit));
    }
    {
        g_autoptr(HpbReq) in = hpb_range(hpb_inflate(h), at(h, 0), h->unit);

        in->resp_size = UINT32_MAX;
        expect_broken(in);
    }
    {
        g_autoptr(HpbReq) in = hpb_inflate(h);

        /* one byte more than there is */
        in->resp_size++;
        expect_broken(in);
    }
    g_assert_cmpint(hpb_counter(h, "broken"), ==, 2 * ARRAY_SIZE(sizes) + 2);
    hpb_quit(h);
}

/* DEV-11: directions wrong or mixed up; zero-length descriptors; loops */
static void test_chains(void)
{
    Hpb *h = hpb_boot("");
    uint64_t low = 8 * MiB, unit = h->unit;
    const HpbDesc writable_header[] = {
        { low, 16, W }, { low + 4096, 1040, W }, { at(h, 0), unit, W },
    };
    const HpbDesc reversed[] = {
        { low + 4096, 1040, W }, { at(h, 0), unit, W }, { low, 16, 0 },
    };
    const HpbDesc all_readable[] = {
        { low, 16, 0 }, { low + 4096, 1040, 0 }, { at(h, 0), unit, 0 },
    };
    const HpbDesc empty[] = {
        { low, 16, 0 }, { low + 4096, 1040, W }, { at(h, 0), 0, W },
    };
    const HpbDesc nested[] = {
        { low, 16, 0 }, { low, 64, VRING_DESC_F_INDIRECT },
    };

    put_header(h, low, 1040, unit);
    for (unsigned ind = 0; ind < 2; ind++) {
        expect_chain_broken(h, writable_header, 3, ind);
        expect_chain_broken(h, reversed, 3, ind);
        expect_chain_broken(h, all_readable, 3, ind);
        expect_chain_broken(h, empty, 3, ind);
    }
    expect_chain_broken(h, nested, 2, true);
    hpb_quit(h);
}

/* Ranges as device-readable: not a payload, so the sizes do not add up */
static void test_readable_range(void)
{
    Hpb *h = hpb_boot("");
    g_autoptr(HpbReq) in = hpb_inflate(h);

    hpb_fill(h, at(h, 0), h->unit, 0x21);
    in->hdr_len = 16 + h->unit;
    in->hdr = at(h, 0) - 16;
    in->size = h->unit;
    expect_refused(in, INVAL, "refused.inval");
    g_assert_true(hpb_filled(h, at(h, 0), h->unit, 0x21));
    hpb_quit(h);
}

/* A descriptor whose next is itself, one beyond the table, a head beyond it */
static void test_loops(void)
{
    Hpb *h = hpb_boot("");
    uint64_t low = 8 * MiB;

    for (unsigned i = 0; i < 3; i++) {
        HpbQueue *q = &h->vq[VIRTIO_BALLOON_HP_VQ_INFLATE];
        uint16_t next[] = { 0, q->size, 0 }, head[] = { 0, 0, q->size };

        hpb_desc_write(h, q->desc, 0, low, 16, VRING_DESC_F_NEXT, next[i]);
        hpb_avail_push(h, VIRTIO_BALLOON_HP_VQ_INFLATE, head[i]);
        hpb_kick(h, VIRTIO_BALLOON_HP_VQ_INFLATE);
        hpb_wait_broken(h);
        recover(h);
    }
    hpb_quit(h);
}

/* More descriptors than a virtqueue has, in an indirect table */
static void test_chain_too_long(void)
{
    Hpb *h = hpb_boot(",unit=4096");
    g_autoptr(HpbReq) in = hpb_inflate(h);

    for (unsigned i = 0; i < HPB_QUEUE_MAX + 1; i++) {
        hpb_range(in, at(h, 10000 + 2 * i), h->unit);
    }
    in->indirect = true;
    expect_broken(in);
    hpb_quit(h);
}

/* DRV-10: more than max_ranges; answered or refused, but nothing is mixed up */
static void test_beyond_max_ranges(void)
{
    /* borders of possible DIMMs make max_ranges smaller than the queue */
    Hpb *h = hpb_boot_mem("-m 256M,slots=8,maxmem=1G", ",unit=4096");
    g_autoptr(HpbReq) in = hpb_inflate(h);
    unsigned max = HPB_CFG(h, max_ranges);

    g_assert_cmpint(max + 1 + 2, <=, HPB_QUEUE_MAX);
    for (unsigned i = 0; i < max + 1; i++) {
        hpb_range(in, at(h, 2 * i), h->unit);
    }
    hpb_ask(in);
    hpb_check_out(h, RAM, in->done);
    hpb_quit(h);
}

/* DEV-12 a: alignment of the address, at every distance that can be missed */
static void test_unaligned(void)
{
    Hpb *h = hpb_boot("");
    const uint64_t off[] = { 1, 512, 4096, 64 * KiB, MiB, h->unit - 1 };

    for (unsigned i = 0; i < ARRAY_SIZE(off); i++) {
        g_autoptr(HpbReq) in = hpb_inflate(h), mixed = hpb_inflate(h);

        hpb_range(in, at(h, 0) + off[i], 3 * h->unit);
        expect_refused(in, INVAL, "refused.inval");

        /* a run that is not aligned does not spoil those beside it */
        hpb_range(mixed, at(h, 0), 2 * h->unit);
        hpb_range(mixed, at(h, 9) + off[i], 2 * h->unit);
        hpb_range(mixed, at(h, 5), h->unit);
        hpb_expect(mixed, PARTIAL, 3 * h->unit, EXC({ 2, 2, INVAL }));
        hpb_give(h, at(h, 0), 2 * h->unit);
        hpb_give(h, at(h, 5), h->unit);
    }
    hpb_quit(h);
}

/* DEV-12 a: two halves of different units do not make one */
static void test_halves(void)
{
    Hpb *h = hpb_boot("");
    g_autoptr(HpbReq) in = hpb_inflate(h), swapped = hpb_inflate(h);
    uint64_t half = h->unit / 2;

    hpb_range(in, at(h, 0), h->unit);
    hpb_range(in, at(h, 4), half);
    hpb_range(in, at(h, 6) + half, half);
    hpb_range(in, at(h, 8), h->unit);
    hpb_expect(in, PARTIAL, 2 * h->unit, EXC({ 1, 1, INVAL }));
    hpb_check_out(h, RAM, 2 * h->unit);
    hpb_give(h, at(h, 0), h->unit);
    hpb_give(h, at(h, 8), h->unit);
    hpb_range(swapped, at(h, 0) + half, half);
    hpb_range(swapped, at(h, 0), half);
    hpb_expect(swapped, INVAL, 0, NULL);
    hpb_check_out(h, RAM, 0);
    hpb_quit(h);
}

/*
 * DEV-12 b: not ordinary RAM. The device may answer or ask for a reset; it
 * must not move anything, nor write to what is there.
 */
static void expect_not_ram(Hpb *h, uint64_t addr)
{
    for (unsigned q = 0; q <= VIRTIO_BALLOON_HP_VQ_DEFLATE; q++) {
        g_autoptr(HpbReq) r = q ? hpb_deflate(h) : hpb_inflate(h);

        hpb_range(r, addr, h->unit);
        hpb_submit(r);
        if (hpb_answered(h, r->vq)) {
            hpb_wait(r);
            g_assert_cmpint(r->status, ==, NOT_RAM);
            hpb_check_out(h, RAM, 0);
        } else {
            recover(h);
        }
        g_test_message("0x%" PRIx64 ": %s", addr,
                       r->answered ? "NOT_RAM" : "needs reset");
    }
}

static void test_not_ram(void)
{
    Hpb *h = hpb_boot(",unit=4096");
    uint8_t rom[16], after[16];
    uint8_t status = hpb_status(h);

    qtest_memread(h->qts, 0xfffffff0, rom, sizeof(rom));
    expect_not_ram(h, BIOS);                    /* ROM */
    expect_not_ram(h, 0xfffff000);
    expect_not_ram(h, 0xc0000);                 /* option ROM window */
    expect_not_ram(h, 0xfee00000);              /* local APIC */
    expect_not_ram(h, 0xfed00000);              /* HPET */
    expect_not_ram(h, h->common & ~0xfffULL);   /* our own registers */
    expect_not_ram(h, RAM);                     /* just behind */
    expect_not_ram(h, NOWHERE);
    expect_not_ram(h, UINT64_MAX - 4095);
    qtest_memread(h->qts, 0xfffffff0, after, sizeof(after));
    g_assert_cmpmem(rom, 16, after, 16);
    g_assert_cmphex(hpb_status(h), ==, status);
    hpb_quit(h);
}

/* DEV-12 b: a unit that is RAM only in part, beside units that are */
static void test_partly_ram(void)
{
    Hpb *h = hpb_boot("");
    g_autoptr(HpbReq) in = hpb_inflate(h);

    hpb_range(in, RAM - 2 * h->unit, 2 * h->unit);
    hpb_range(in, 0, h->unit);              /* holds 0xa0000..0xfffff */
    hpb_submit(in);
    if (hpb_answered(h, in->vq)) {
        hpb_wait(in);
        g_assert_cmpint(in->status, ==, PARTIAL);
        hpb_check_out(h, RAM, 2 * h->unit);
    } else {
        recover(h);
    }
    hpb_quit(h);
}

/* A range that wraps around the end of the address space */
static void test_wrap(void)
{
    Hpb *h = hpb_boot(",unit=4096");
    const HpbDesc d[] = {
        { 8 * MiB, 16, 0 }, { 9 * MiB, 1040, W }, { -8192ULL, 16384, W },
    };

    put_header(h, 8 * MiB, 1040, 16384);
    hpb_chain(h, VIRTIO_BALLOON_HP_VQ_INFLATE, d, 3, false);
    hpb_answered(h, VIRTIO_BALLOON_HP_VQ_INFLATE);
    hpb_check_out(h, RAM, 0);
    hpb_quit(h);
}

/* DEV-11: a broken device leaves requests alone until it is reset */
static void test_broken_stays_broken(void)
{
    Hpb *h = hpb_boot("");
    g_autoptr(HpbReq) bad = hpb_range(hpb_inflate(h), at(h, 0), h->unit);
    g_autoptr(HpbReq) good = hpb_range(hpb_inflate(h), at(h, 1), h->unit);
    g_autoptr(HpbReq) other = hpb_range(hpb_deflate(h), at(h, 1), h->unit);

    bad->hdr_len = 4;
    hpb_isr(h);
    hpb_ask_broken(bad);
    g_assert_true(hpb_isr(h) & HPB_ISR_CONFIG);
    hpb_submit(good);
    hpb_submit(other);
    hpb_qmp_balloon(h, RAM - 4 * h->unit);
    g_assert_cmpint(hpb_collect(h, good->vq), ==, 0);
    g_assert_cmpint(hpb_collect(h, other->vq), ==, 0);
    hpb_check_out(h, RAM, 0);
    recover(h);
    hpb_quit(h);
}

#define ADD(name, fn) qtest_add_func("virtio-balloon-hp/malformed/" name, fn)

void hpb_add_malformed_tests(void)
{
    ADD("DEV-10-flags", test_flags);
    ADD("DEV-10-sizes", test_sizes);
    ADD("DEV-10-resp-size-mismatch", test_resp_size_mismatch);
    ADD("DEV-10-more-than-ram", test_more_than_ram);
    ADD("DEV-10-types-and-queues", test_types);
    ADD("DEV-10-readable-range", test_readable_range);
    ADD("DEV-11-header", test_header);
    ADD("DEV-11-resp-size", test_resp_size);
    ADD("DEV-11-chains", test_chains);
    ADD("DEV-11-loops", test_loops);
    ADD("DEV-11-chain-too-long", test_chain_too_long);
    ADD("DEV-11-stays-broken", test_broken_stays_broken);
    ADD("DRV-10-beyond-max-ranges", test_beyond_max_ranges);
    ADD("DEV-12a-unaligned", test_unaligned);
    ADD("DEV-12a-halves", test_halves);
    ADD("DEV-12b-not-ram", test_not_ram);
    ADD("DEV-12b-partly-ram", test_partly_ram);
    ADD("DEV-12b-wrap-around", test_wrap);
}
