/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp qtest: random requests against a model
 *
 * Theory of operation: the model is one byte a unit, "out", and a pure
 * function that says for each unit of a request what the specification wants
 * answered (plan_units()). Requests are random in every respect that the wire
 * format has: ranges, cuts, types, sizes, flags, room for exceptions, broken
 * chains, several at a time. After each the whole answer, the count of what is
 * out, and the contents of some units are compared. In between the device is
 * reset, paused, given targets.
 *
 * Random numbers come from a seed that is printed, so that a failure is
 * repeated by HPB_STRESS_SEED=seed; HPB_STRESS_ITERATIONS sets the length.
 * What a run finds becomes a test of its own in the other files.
 *
 * Rejected: random bytes as descriptors. Nearly all of them end in the first
 * check of QEMU's virtqueue code, which has fuzzers of its own.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "hpb-qtest.h"

#define OK          VIRTIO_BALLOON_HP_OK
#define AGAIN       VIRTIO_BALLOON_HP_AGAIN
#define ITERATIONS  1500
#define MAX_BATCH   4
#define STAMP       0x0123456789abcdefULL

typedef struct Setup {
    const char *name, *mem;
    uint64_t ram, unit;
} Setup;

static const Setup setups[] = {
    { "2m-anonymous", "-m 256M", 256 * MiB, 2 * MiB },
    { "4k-memfd", "-m 64M -machine memory-backend=m -object "
      "memory-backend-memfd,id=m,size=64M,share=on", 64 * MiB, 4 * KiB },
    { "64k-numa", "-m 64M -object memory-backend-ram,id=m0,size=32M "
      "-object memory-backend-memfd,id=m1,size=32M,share=on "
      "-numa node,memdev=m0 -numa node,memdev=m1", 64 * MiB, 64 * KiB },
};

/* What must come of a request */
typedef enum Fate {
    FATE_UNITS,         /* per unit, see Plan.fate */
    FATE_WHOLE,         /* refused with Plan.status */
    FATE_BROKEN,        /* the device asks for a reset */
} Fate;

typedef struct Plan {
    HpbReq *r;
    Fate kind;
    uint16_t status;
    unsigned room;      /* exceptions that fit */
    GArray *unit;       /* index of the unit in Stress.out, -1: none */
    GByteArray *fate;   /* status of the unit */
} Plan;

typedef struct Stress {
    Hpb *h;
    const Setup *setup;
    GRand *rand;
    unsigned first, units;  /* units that are played with: [first, units) */
    uint8_t *out;
    uint64_t *stamp;        /* contents of the first 8 bytes; 0: unknown */
    uint64_t nr_out;
    unsigned iteration;
    unsigned kinds[3], done_units, refused_units;
} Stress;

static uint32_t below(Stress *s, uint32_t n)
{
    return g_rand_int_range(s->rand, 0, n);
}

static bool one_in(Stress *s, uint32_t n)
{
    return below(s, n) == 0;
}

static uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *text = g_getenv(name);

    return text && *text ? g_ascii_strtoull(text, NULL, 0) : otherwise;
}

/* Which unit the @len bytes at @addr are part of, and how many of it */
static bool same_run(const HpbDesc *a, const HpbDesc *b)
{
    return a->addr + a->len == b->addr;
}

/*
 * The model of DEV-12: walk the bytes of all ranges, unit after unit. A unit
 * whose bytes are not one aligned piece of memory is INVAL; one that stood
 * earlier in this request is OVERLAP; then what is out decides.
 */
static void plan_units(Stress *s, Plan *p)
{
    g_autofree uint8_t *seen = g_malloc0(s->units);
    uint64_t unit = s->setup->unit, have = 0, start = 0;
    bool whole = true;

    for (unsigned i = 0; i < p->r->ranges->len; i++) {
        HpbDesc *d = &g_array_index(p->r->ranges, HpbDesc, i);
        uint64_t addr = d->addr, left = d->len;

        if (have && i && !same_run(d - 1, d)) {
            whole = false;
        }
        while (left) {
            uint64_t n = MIN(left, unit - have);
            uint16_t fate = OK;
            int index;

            if (!have) {
                start = addr;
                whole = start % unit == 0;
            }
            addr += n;
            left -= n;
            have += n;
            if (have < unit) {
                continue;
            }
            have = 0;
            index = whole ? start / unit : -1;
            if (index < 0) {
                fate = VIRTIO_BALLOON_HP_INVAL;
            } else if (seen[index]) {
                fate = VIRTIO_BALLOON_HP_OVERLAP;
            } else if (p->r->type == VIRTIO_BALLOON_HP_REQ_DEFLATE) {
                fate = s->out[index] ? OK : VIRTIO_BALLOON_HP_NOT_OUT;
            } else if (s->out[index]) {
                fate = VIRTIO_BALLOON_HP_ALREADY_OUT;
            }
            if (index >= 0) {
                seen[index] = 1;
            }
            g_array_append_val(p->unit, index);
            g_byte_array_append(p->fate, (uint8_t *)&fate, 1);
        }
    }
}

/* Ranges in units [lo, hi): mostly well-formed */
static void random_ranges(Stress *s, HpbReq *r, unsigned lo, unsigned hi)
{
    unsigned n = one_in(s, 10) ? 1 + below(s, 60) : 1 + below(s, 6);
    uint64_t unit = s->setup->unit;

    for (unsigned i = 0; i < n; i++) {
        unsigned first = lo + below(s, hi - lo);
        unsigned count = 1 + below(s, MIN(hi - first, one_in(s, 8) ? 64 : 6));
        uint64_t addr = first * unit, len = count * unit;

        if (one_in(s, 25) && first + count < hi) {
            addr += 1 + below(s, unit - 1);
        }
        while (len && one_in(s, 4)) {
            uint64_t cut = 1 + below(s, MIN(len, unit));

            hpb_range(r, addr, cut);
            addr += cut;
            len -= cut;
            if (one_in(s, 20)) {
                /* the rest goes somewhere else */
                first = lo + below(s, hi - lo);
                addr = first * unit;
                len = MIN(len, (hi - first) * unit);
            }
        }
        if (len) {
            hpb_range(r, addr, len);
        }
    }
    /* whole units in sum, unless it is to be refused */
    if (r->size % unit && !one_in(s, 5)) {
        hpb_range(r, lo * unit, unit - r->size % unit);
    }
}

/* What DEV-10 wants of the request as a whole, in the order of its checks */
static void plan_whole(Stress *s, Plan *p)
{
    HpbReq *r = p->r;
    uint64_t bytes = 0, writable;

    for (unsigned i = 0; i < r->ranges->len; i++) {
        bytes += g_array_index(r->ranges, HpbDesc, i).len;
    }
    writable = r->resp_len + bytes;
    p->kind = FATE_UNITS;
    if (r->hdr_len < 16 || r->resp_size < VIRTIO_BALLOON_HP_RESP_SIZE_MIN ||
        r->resp_size > writable) {
        p->kind = FATE_BROKEN;
    } else if (r->type != (r->vq == VIRTIO_BALLOON_HP_VQ_INFLATE ?
                           VIRTIO_BALLOON_HP_REQ_INFLATE :
                           r->vq == VIRTIO_BALLOON_HP_VQ_DEFLATE ?
                           VIRTIO_BALLOON_HP_REQ_DEFLATE :
                           VIRTIO_BALLOON_HP_REQ_REPORT)) {
        p->kind = FATE_WHOLE;
        p->status = VIRTIO_BALLOON_HP_UNSUPP;
    } else if (r->flags || !r->size || r->size % s->setup->unit ||
               r->size > s->setup->ram || r->size != writable - r->resp_size) {
        p->kind = FATE_WHOLE;
        p->status = VIRTIO_BALLOON_HP_INVAL;
    } else {
        p->room = (r->resp_size - 16) / 16;
        plan_units(s, p);
    }
}

/* Falsify something, rarely */
static void spoil(Stress *s, HpbReq *r)
{
    switch (below(s, 9)) {
    case 0:
        r->flags = 1 << below(s, 16);
        break;
    case 1:
        r->type = one_in(s, 2) ? below(s, 6) : g_rand_int(s->rand);
        break;
    case 2:
        r->size += (int32_t)g_rand_int(s->rand);
        break;
    case 3:
        r->size = (uint64_t)g_rand_int(s->rand) << 32 | g_rand_int(s->rand);
        break;
    case 4:
        r->resp_size = g_rand_int(s->rand);
        break;
    case 5:
        r->resp_size = below(s, 128);
        break;
    case 6:
        r->resp_len = r->resp_size = below(s, 64);
        break;
    case 7:
        r->hdr_len = below(s, 16);
        break;
    case 8:
        r->hdr_len = 16;
        r->size -= s->setup->unit;
        break;
    }
}

static Plan random_request(Stress *s, unsigned vq, unsigned lo, unsigned hi)
{
    static const uint16_t types[] = {
        [VIRTIO_BALLOON_HP_VQ_INFLATE] = VIRTIO_BALLOON_HP_REQ_INFLATE,
        [VIRTIO_BALLOON_HP_VQ_DEFLATE] = VIRTIO_BALLOON_HP_REQ_DEFLATE,
        [VIRTIO_BALLOON_HP_VQ_REPORTING] = VIRTIO_BALLOON_HP_REQ_REPORT,
    };
    Plan p = {
        .r = hpb_req(s->h, vq, types[vq]),
        .unit = g_array_new(false, false, sizeof(int)),
        .fate = g_byte_array_new(),
    };

    hpb_room(p.r, one_in(s, 3) ? 2 + below(s, 4) : 2 + below(s, 200));
    /* room for exceptions that is not a multiple of one */
    p.r->resp_len = p.r->resp_size += below(s, 16);
    p.r->indirect = one_in(s, 2);
    p.r->cut_hdr = one_in(s, 4) ? below(s, 16) : 0;
    p.r->cut_resp = one_in(s, 4) ? below(s, 64) : 0;
    random_ranges(s, p.r, lo, hi);
    if (one_in(s, 12)) {
        spoil(s, p.r);
    }
    plan_whole(s, &p);
    s->kinds[p.kind]++;
    return p;
}

static void plan_free(Plan *p)
{
    hpb_req_free(p->r);
    g_array_free(p->unit, true);
    g_byte_array_free(p->fate, true);
}

/* Take over what was done to unit @index */
static void unit_done(Stress *s, HpbReq *r, int index)
{
    s->done_units++;
    if (r->type == VIRTIO_BALLOON_HP_REQ_INFLATE) {
        g_assert_false(s->out[index]);
        s->out[index] = 1;
        s->nr_out++;
        s->stamp[index] = 0;
    } else if (r->type == VIRTIO_BALLOON_HP_REQ_DEFLATE) {
        g_assert_true(s->out[index]);
        s->out[index] = 0;
        s->nr_out--;
        if (r->resp_flags & VIRTIO_BALLOON_HP_RESP_F_ZEROED) {
            g_assert_cmphex(qtest_readq(s->h->qts,
                                        index * s->setup->unit), ==, 0);
        }
        s->stamp[index] = STAMP ^ index ^ ((uint64_t)s->iteration << 32);
        qtest_writeq(s->h->qts, index * s->setup->unit, s->stamp[index]);
    } else {
        s->stamp[index] = 0;
    }
}

/* Compare an answer with the plan, unit by unit */
static void check_units(Stress *s, Plan *p)
{
    HpbReq *r = p->r;
    g_autofree uint8_t *got = g_malloc0(p->fate->len);
    unsigned again = p->fate->len;

    if (r->status > VIRTIO_BALLOON_HP_PARTIAL && !r->exc->len) {
        memset(got, r->status, p->fate->len);
        g_assert_cmpint(r->status, !=, AGAIN);
    }
    for (unsigned i = 0; i < r->exc->len; i++) {
        HpbExc *e = &g_array_index(r->exc, HpbExc, i);

        memset(got + e->first, e->status, e->count);
        if (e->status == AGAIN) {
            /* only when the room is used up, and for all that follows */
            g_assert_cmpint(i, ==, p->room - 1);
            g_assert_cmpint(e->first + e->count, ==, p->fate->len);
            again = e->first;
        } else if (i) {
            HpbExc *before = e - 1;

            g_assert_false(before->status == e->status &&
                           before->first + before->count == e->first);
        }
    }
    for (unsigned i = 0; i < again; i++) {
        g_assert_cmpint(got[i], ==, p->fate->data[i]);
        if (got[i] == OK) {
            unit_done(s, r, g_array_index(p->unit, int, i));
        } else {
            s->refused_units++;
        }
    }
}

static void check_plan(Stress *s, Plan *p)
{
    switch (p->kind) {
    case FATE_UNITS:
        hpb_wait(p->r);
        check_units(s, p);
        break;
    case FATE_WHOLE:
        hpb_wait(p->r);
        g_assert_cmpint(p->r->status, ==, p->status);
        g_assert_cmpint(p->r->exc->len, ==, 0);
        break;
    case FATE_BROKEN:
        hpb_wait_broken(s->h);
        break;
    }
}

/* A reset gives everything back, with contents that nobody knows */
static void reset(Stress *s)
{
    hpb_driver_init(s->h, HPB_FEATURES);
    memset(s->out, 0, s->units);
    memset(s->stamp, 0, s->units * sizeof(s->stamp[0]));
    s->nr_out = 0;
}

/* Several requests of one queue, on parts of memory of their own, at a time */
static void random_batch(Stress *s)
{
    static const uint8_t queues[] = {
        VIRTIO_BALLOON_HP_VQ_INFLATE, VIRTIO_BALLOON_HP_VQ_INFLATE,
        VIRTIO_BALLOON_HP_VQ_DEFLATE, VIRTIO_BALLOON_HP_VQ_DEFLATE,
        VIRTIO_BALLOON_HP_VQ_REPORTING,
    };
    unsigned n = 1 + below(s, MAX_BATCH), part = (s->units - s->first) / n;
    unsigned vq = queues[below(s, ARRAY_SIZE(queues))];
    Plan plan[MAX_BATCH];
    bool broken = false;

    for (unsigned i = 0; i < n; i++) {
        plan[i] = random_request(s, vq, s->first + i * part,
                                 s->first + (i + 1) * part);
        hpb_add(plan[i].r);
    }
    hpb_kick(s->h, vq);
    for (unsigned i = 0; i < n && !broken; i++) {
        if (plan[i].kind == FATE_BROKEN) {
            hpb_wait_broken(s->h);
            broken = true;
        }
    }
    for (unsigned i = 0; i < n && !broken; i++) {
        check_plan(s, &plan[i]);
    }
    for (unsigned i = 0; i < n; i++) {
        plan_free(&plan[i]);
    }
    if (broken) {
        reset(s);
    }
}

/* Look whether some unit that is in still has the contents it had */
static void check_some(Stress *s)
{
    for (unsigned i = 0; i < 4; i++) {
        unsigned index = s->first + below(s, s->units - s->first);

        if (!s->out[index] && s->stamp[index]) {
            g_assert_cmphex(qtest_readq(s->h->qts, index * s->setup->unit),
                            ==, s->stamp[index]);
        }
    }
    g_assert_cmphex(HPB_CFG(s->h, actual), ==, s->nr_out * s->setup->unit);
    if (one_in(s, 16)) {
        hpb_check_out(s->h, s->setup->ram, s->nr_out * s->setup->unit);
    }
}

static void random_event(Stress *s)
{
    uint64_t ram = s->setup->ram, target;

    switch (below(s, 4)) {
    case 0:
        target = 1 + (uint64_t)below(s, ram / 512) * 1024;
        hpb_qmp_balloon(s->h, target);
        g_assert_cmphex(HPB_CFG(s->h, requested), ==,
                        QEMU_ALIGN_DOWN(ram - MIN(target, ram),
                                        s->setup->unit));
        break;
    case 1:
        qtest_qmp_assert_success(s->h->qts, "{ 'execute': 'stop' }");
        qtest_qmp_assert_success(s->h->qts, "{ 'execute': 'cont' }");
        break;
    case 2:
        qtest_clock_step(s->h->qts, 1000000000LL);
        break;
    case 3:
        if (one_in(s, 10)) {
            reset(s);
        }
        break;
    }
}

static Stress *running;

static void say_where(void *opaque)
{
    if (running) {
        fprintf(stderr, "# in iteration %u of %s\n", running->iteration,
                running->setup->name);
    }
}

static void test_stress(const void *data)
{
    Stress s = { .setup = data };
    uint64_t seed = env_number("HPB_STRESS_SEED", 1);
    uint64_t n = env_number("HPB_STRESS_ITERATIONS", ITERATIONS);
    g_autofree char *props = g_strdup_printf(
        ",free-page-reporting=on,unit=%" PRIu64, s.setup->unit);

    g_test_message("HPB_STRESS_SEED=%" PRIu64 " HPB_STRESS_ITERATIONS=%"
                   PRIu64, seed, n);
    s.rand = g_rand_new_with_seed(seed);
    s.first = HPB_RAM_START / s.setup->unit;
    s.units = s.setup->ram / s.setup->unit;
    s.out = g_malloc0(s.units);
    s.stamp = g_new0(uint64_t, s.units);
    s.h = hpb_boot_mem(s.setup->mem, props);
    running = &s;
    qtest_add_abrt_handler(say_where, &s);

    for (; s.iteration < n; s.iteration++) {
        /* low memory holds what requests have used, until the next reset */
        if (s.h->heap > HPB_LOW_END - 2 * MiB) {
            reset(&s);
        }
        random_batch(&s);
        check_some(&s);
        if (one_in(&s, 30)) {
            random_event(&s);
        }
    }
    g_test_message("answered by unit %u, refused whole %u, broken %u; "
                   "units done %u, refused %u", s.kinds[FATE_UNITS],
                   s.kinds[FATE_WHOLE], s.kinds[FATE_BROKEN], s.done_units,
                   s.refused_units);
    running = NULL;
    qtest_remove_abrt_handler(&s);
    hpb_quit(s.h);
    g_rand_free(s.rand);
    g_free(s.out);
    g_free(s.stamp);
}

void hpb_add_stress_tests(void)
{
    for (unsigned i = 0; i < ARRAY_SIZE(setups); i++) {
        g_autofree char *path = g_strdup_printf("virtio-balloon-hp/stress/%s",
                                                setups[i].name);

        qtest_add_data_func(path, &setups[i], test_stress);
    }
}
