/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Driver side of virtio-balloon-hp for qtest: rings, requests, answers
 *
 * Theory of operation: hpb-qtest.h. A request is turned into a list of
 * descriptors when it is submitted, so that a test can falsify any field
 * before. Descriptors are put in the ring, or in an indirect table if the
 * request says so or the ring is too full. The response is filled with GUARD
 * before, and must still hold it behind what the device says it has written.
 *
 * Waiting is polling of the used ring with a limit (HPB_TIMEOUT_US): the
 * device works on its own thread, and each poll is a round trip through
 * QEMU's main loop, so that nothing is slept through.
 */

#include "qemu/osdep.h"
#include "qemu/bswap.h"
#include "qemu/units.h"
#include "hpb-qtest.h"

#define GUARD       0xa5
#define GUARD_LEN   16
#define DESC_MAX    (1 * GiB)

HpbReq *hpb_req(Hpb *h, unsigned vq, uint16_t type)
{
    HpbReq *r = g_new0(HpbReq, 1);

    r->h = h;
    h->refs++;
    r->vq = vq;
    r->type = type;
    r->hdr_len = sizeof(struct virtio_balloon_hp_req);
    r->ranges = g_array_new(false, false, sizeof(HpbDesc));
    r->exc = g_array_new(false, false, sizeof(HpbExc));
    return hpb_room(r, HPB_ROOM);
}

void hpb_req_free(HpbReq *r)
{
    HpbQueue *q = &r->h->vq[r->vq];

    for (unsigned i = 0; i < q->size; i++) {
        if (q->owner[i] == r) {
            q->owner[i] = NULL;
        }
    }
    g_array_free(r->ranges, true);
    g_array_free(r->exc, true);
    hpb_put(r->h);
    g_free(r);
}

HpbReq *hpb_range(HpbReq *r, uint64_t addr, uint64_t len)
{
    r->size += len;
    while (len) {
        HpbDesc d = { addr, MIN(len, DESC_MAX), VRING_DESC_F_WRITE };

        g_array_append_val(r->ranges, d);
        addr += d.len;
        len -= d.len;
    }
    return r;
}

HpbReq *hpb_room(HpbReq *r, unsigned n)
{
    r->resp_size = sizeof(struct virtio_balloon_hp_resp) +
                   n * sizeof(struct virtio_balloon_hp_exception);
    r->resp_len = r->resp_size;
    return r;
}

void hpb_desc_write(Hpb *h, uint64_t table, unsigned i, uint64_t addr,
                    uint32_t len, uint16_t flags, uint16_t next)
{
    struct vring_desc d = {
        .addr = cpu_to_le64(addr),
        .len = cpu_to_le32(len),
        .flags = cpu_to_le16(flags),
        .next = cpu_to_le16(next),
    };

    qtest_memwrite(h->qts, table + i * sizeof(d), &d, sizeof(d));
}

void hpb_avail_push(Hpb *h, unsigned vq, uint16_t head)
{
    HpbQueue *q = &h->vq[vq];

    qtest_writew(h->qts, q->avail + 4 + 2 * (q->avail_idx % q->size), head);
    q->avail_idx++;
    qtest_writew(h->qts, q->avail + 2, q->avail_idx);
}

void hpb_kick(Hpb *h, unsigned vq)
{
    if (h->mmio) {
        qtest_writel(h->qts, h->vq[vq].notify, vq);
    } else {
        qtest_writew(h->qts, h->vq[vq].notify, vq);
    }
}

/*
 * Write @n descriptors to the ring, or as an indirect table, and return the
 * head. One write for a table, as a thousand would take long.
 */
static uint16_t write_chain(Hpb *h, unsigned vq, const HpbDesc *desc,
                            unsigned n, bool indirect)
{
    HpbQueue *q = &h->vq[vq];
    uint16_t head, id;

    if (!indirect && n > q->nfree) {
        g_error("queue %u has no room for %u descriptors", vq, n);
    }
    if (indirect) {
        g_autofree struct vring_desc *table = g_new0(struct vring_desc, n);
        uint64_t at = hpb_alloc(h, n * sizeof(*table));

        for (unsigned i = 0; i < n; i++) {
            bool more = i + 1 < n;

            table[i].addr = cpu_to_le64(desc[i].addr);
            table[i].len = cpu_to_le32(desc[i].len);
            table[i].flags = cpu_to_le16(desc[i].flags |
                                         (more ? VRING_DESC_F_NEXT : 0));
            table[i].next = cpu_to_le16(more ? i + 1 : 0);
        }
        qtest_bufwrite(h->qts, at, table, n * sizeof(*table));
        g_assert_cmpint(q->nfree, >, 0);
        head = q->free[--q->nfree];
        q->next[head] = head;
        hpb_desc_write(h, q->desc, head, at, n * sizeof(*table),
                       VRING_DESC_F_INDIRECT, 0);
        return head;
    }
    head = id = q->free[--q->nfree];
    for (unsigned i = 0; i < n; i++) {
        bool more = i + 1 < n;

        q->next[id] = more ? q->free[--q->nfree] : id;
        hpb_desc_write(h, q->desc, id, desc[i].addr, desc[i].len,
                       desc[i].flags | (more ? VRING_DESC_F_NEXT : 0),
                       more ? q->next[id] : 0);
        id = q->next[id];
    }
    return head;
}

void hpb_chain(Hpb *h, unsigned vq, const HpbDesc *desc, unsigned n,
               bool indirect)
{
    hpb_avail_push(h, vq, write_chain(h, vq, desc, n, indirect));
    hpb_kick(h, vq);
}

static void push_cut(GArray *chain, uint64_t addr, uint32_t len, uint32_t cut,
                     uint16_t flags)
{
    HpbDesc d = { addr, cut && cut < len ? cut : len, flags };

    if (!len) {
        return;
    }
    g_array_append_val(chain, d);
    if (d.len < len) {
        push_cut(chain, addr + d.len, len - d.len, 0, flags);
    }
}

static void write_header(HpbReq *r)
{
    struct virtio_balloon_hp_req hdr = {
        .type = cpu_to_le16(r->type),
        .flags = cpu_to_le16(r->flags),
        .resp_size = cpu_to_le32(r->resp_size),
        .size = cpu_to_le64(r->size),
    };

    if (!r->hdr) {
        r->hdr = hpb_alloc(r->h, MAX(r->hdr_len, sizeof(hdr)));
        qtest_memset(r->h->qts, r->hdr, 0, MAX(r->hdr_len, sizeof(hdr)));
    }
    qtest_memwrite(r->h->qts, r->hdr, &hdr, sizeof(hdr));
}

void hpb_add(HpbReq *r)
{
    g_autoptr(GArray) chain = g_array_new(false, false, sizeof(HpbDesc));
    Hpb *h = r->h;
    HpbQueue *q = &h->vq[r->vq];

    write_header(r);
    if (!r->resp) {
        r->resp = hpb_alloc(h, r->resp_len + GUARD_LEN);
        qtest_memset(h->qts, r->resp, GUARD, r->resp_len + GUARD_LEN);
    }
    push_cut(chain, r->hdr, r->hdr_len, r->cut_hdr, 0);
    push_cut(chain, r->resp, r->resp_len, r->cut_resp, VRING_DESC_F_WRITE);
    for (unsigned i = 0; i < r->ranges->len; i++) {
        HpbDesc *d = &g_array_index(r->ranges, HpbDesc, i);

        if (i == 0 && r->join) {
            g_assert_cmphex(r->resp + r->resp_len, ==, d->addr);
            g_array_index(chain, HpbDesc, chain->len - 1).len += d->len;
        } else {
            g_array_append_vals(chain, d, 1);
        }
    }
    r->head = write_chain(h, r->vq, (HpbDesc *)chain->data, chain->len,
                          r->indirect || chain->len > q->nfree);
    r->answered = false;
    q->owner[r->head] = r;
    hpb_avail_push(h, r->vq, r->head);
}

void hpb_submit(HpbReq *r)
{
    hpb_add(r);
    hpb_kick(r->h, r->vq);
}

static void release_chain(HpbQueue *q, uint16_t head)
{
    uint16_t id = head;

    for (;;) {
        q->free[q->nfree++] = id;
        if (q->next[id] == id) {
            return;
        }
        id = q->next[id];
    }
}

unsigned hpb_collect(Hpb *h, unsigned vq)
{
    HpbQueue *q = &h->vq[vq];
    uint16_t idx = qtest_readw(h->qts, q->used + 2);
    unsigned n = 0;

    for (; q->used_idx != idx; q->used_idx++, n++) {
        uint64_t at = q->used + 4 + 8 * (q->used_idx % q->size);
        uint32_t head = qtest_readl(h->qts, at);
        HpbReq *r;

        g_assert_cmpint(head, <, q->size);
        r = q->owner[head];
        q->owner[head] = NULL;
        release_chain(q, head);
        q->used_len = qtest_readl(h->qts, at + 4);
        if (r) {
            g_assert_false(r->answered);
            r->answered = true;
            r->used_len = q->used_len;
        }
    }
    return n;
}

/* DEV-16, DEV-17: what the list of exceptions must look like */
static void check_exceptions(HpbReq *r, const uint8_t *buf, uint32_t nr)
{
    uint64_t end = 0, bytes = 0;
    bool reason = false;

    for (uint32_t i = 0; i < nr; i++) {
        struct virtio_balloon_hp_exception e;
        HpbExc exc;

        memcpy(&e, buf + (i + 1) * sizeof(e), sizeof(e));
        exc = (HpbExc) { le32_to_cpu(e.first), le32_to_cpu(e.count),
                         le16_to_cpu(e.status) };
        g_assert_cmpint(exc.count, >=, 1);
        g_assert_cmpint(exc.first, >=, end);
        g_assert_cmpint(exc.status, >=, VIRTIO_BALLOON_HP_INVAL);
        g_assert_cmpint(exc.status, <=, VIRTIO_BALLOON_HP_UNSUPP);
        g_assert_cmpint(e.reserved[0] | e.reserved[1] | e.reserved[2], ==, 0);
        if (exc.status == VIRTIO_BALLOON_HP_AGAIN) {
            g_assert_cmpint(i, ==, nr - 1);
        }
        reason |= exc.status == r->status;
        end = (uint64_t)exc.first + exc.count;
        bytes += exc.count * r->h->unit;
        g_array_append_val(r->exc, exc);
    }
    g_assert_cmphex(end * r->h->unit, <=, r->size);
    if (nr || r->status <= VIRTIO_BALLOON_HP_PARTIAL) {
        g_assert_cmphex(r->done + bytes, ==, r->size);
    }
    if (nr && r->status > VIRTIO_BALLOON_HP_PARTIAL) {
        g_assert_true(reason);
    }
}

/* What holds for every answer: DEV-8, DEV-16, DEV-17 */
static void check_answer(HpbReq *r)
{
    struct virtio_balloon_hp_resp resp;
    uint32_t len = r->resp_len + GUARD_LEN, nr;
    g_autofree uint8_t *buf = g_malloc(len);

    qtest_bufread(r->h->qts, r->resp, buf, len);
    memcpy(&resp, buf, sizeof(resp));
    nr = le32_to_cpu(resp.nr_exceptions);
    r->status = le16_to_cpu(resp.status);
    r->resp_flags = le16_to_cpu(resp.flags);
    r->done = le64_to_cpu(resp.done);
    g_assert_cmpint(r->used_len, ==, sizeof(resp) + 16ULL * nr);
    g_assert_cmpint(r->used_len, <=, r->resp_len);
    if (!r->join) {
        for (uint32_t i = r->used_len; i < len; i++) {
            g_assert_cmphex(buf[i], ==, GUARD);
        }
    }
    g_assert_cmpint(r->resp_flags & ~VIRTIO_BALLOON_HP_RESP_F_ZEROED, ==, 0);
    g_array_set_size(r->exc, 0);
    check_exceptions(r, buf, nr);
    switch (r->status) {
    case VIRTIO_BALLOON_HP_OK:
        g_assert_cmpint(nr, ==, 0);
        g_assert_cmphex(r->done, ==, r->size);
        break;
    case VIRTIO_BALLOON_HP_PARTIAL:
        g_assert_cmpint(nr, >, 0);
        g_assert_cmphex(r->done, >, 0);
        break;
    default:
        g_assert_cmpint(r->status, <=, VIRTIO_BALLOON_HP_UNSUPP);
        g_assert_cmphex(r->done, ==, 0);
    }
}

static void not_too_late(gint64 start, const char *what)
{
    if (g_get_monotonic_time() - start > HPB_TIMEOUT_US) {
        g_error("waited %d s for %s", (int)(HPB_TIMEOUT_US / G_USEC_PER_SEC),
                what);
    }
}

bool hpb_answered(Hpb *h, unsigned vq)
{
    gint64 start = g_get_monotonic_time();

    while (!hpb_collect(h, vq)) {
        if (hpb_status(h) & VIRTIO_CONFIG_S_NEEDS_RESET) {
            return false;
        }
        not_too_late(start, "an answer");
    }
    return true;
}

void hpb_wait(HpbReq *r)
{
    while (!r->answered) {
        if (!hpb_answered(r->h, r->vq)) {
            g_error("the device asks for a reset instead of an answer");
        }
    }
    check_answer(r);
}

uint16_t hpb_ask(HpbReq *r)
{
    hpb_submit(r);
    hpb_wait(r);
    return r->status;
}

void hpb_wait_broken(Hpb *h)
{
    gint64 start = g_get_monotonic_time();

    while (!(hpb_status(h) & VIRTIO_CONFIG_S_NEEDS_RESET)) {
        not_too_late(start, "the device to ask for a reset");
    }
}

void hpb_ask_broken(HpbReq *r)
{
    hpb_submit(r);
    hpb_wait_broken(r->h);
    hpb_collect(r->h, r->vq);
    g_assert_false(r->answered);
}

void hpb_expect(HpbReq *r, uint16_t status, uint64_t done, const HpbExc *exc)
{
    unsigned n = 0;

    hpb_ask(r);
    g_assert_cmpint(r->status, ==, status);
    g_assert_cmphex(r->done, ==, done);
    for (; exc && exc[n].count; n++) {
        HpbExc *got;

        g_assert_cmpint(n, <, r->exc->len);
        got = &g_array_index(r->exc, HpbExc, n);
        g_assert_cmpint(got->first, ==, exc[n].first);
        g_assert_cmpint(got->count, ==, exc[n].count);
        g_assert_cmpint(got->status, ==, exc[n].status);
    }
    if (exc) {
        g_assert_cmpint(n, ==, r->exc->len);
    }
}

static void move(HpbReq *r, uint64_t addr, uint64_t len)
{
    hpb_range(r, addr, len);
    hpb_expect(r, VIRTIO_BALLOON_HP_OK, len, NULL);
    hpb_req_free(r);
}

HpbReq *hpb_state_req(Hpb *h, const struct virtio_balloon_hp_state *state,
                      size_t len)
{
    HpbReq *r = hpb_req(h, VIRTIO_BALLOON_HP_VQ_INFLATE,
                        VIRTIO_BALLOON_HP_REQ_STATE);

    r->hdr_len += len;
    r->hdr = hpb_alloc(h, r->hdr_len);
    qtest_memwrite(h->qts, r->hdr + sizeof(struct virtio_balloon_hp_req),
                   state, len);
    return r;
}

void hpb_tell(Hpb *h, uint16_t stop, uint64_t requested, uint64_t available,
              uint64_t wanted)
{
    struct virtio_balloon_hp_state state = {
        .stop = cpu_to_le16(stop),
        .requested = cpu_to_le64(requested),
        .available = cpu_to_le64(available),
        .wanted = cpu_to_le64(wanted),
    };
    g_autoptr(HpbReq) r = hpb_state_req(h, &state, sizeof(state));

    /* however the header and what follows are cut */
    r->cut_hdr = 20;
    hpb_expect(r, VIRTIO_BALLOON_HP_OK, 0, NULL);
}

void hpb_take(Hpb *h, uint64_t addr, uint64_t len)
{
    move(hpb_inflate(h), addr, len);
}

void hpb_give(Hpb *h, uint64_t addr, uint64_t len)
{
    move(hpb_deflate(h), addr, len);
}
