/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Driver side of virtio-balloon-hp for qtest: machine, transport, QMP
 *
 * Theory of operation: hpb-qtest.h. This file brings a driver up on virtio-pci
 * and on modern virtio-mmio, and reads what device and monitor say about
 * themselves. Both transports are used by plain accesses to guest-physical
 * addresses, so that a driver survives the migration of its machine by
 * changing the QTestState. Interrupts are read from the interrupt status
 * register, which both transports have; reading it clears it, hence the bits
 * are collected in Hpb.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qnum.h"
#include "hpb-qtest.h"
#include "hw/pci/pci_regs.h"
#include "libqos/pci-pc.h"
#include "libqos/virtio-pci.h"
#include "standard-headers/linux/virtio_mmio.h"
#include "standard-headers/linux/virtio_pci.h"

#define RING_STRIDE     (64 * KiB)
#define COMMON(field)   offsetof(struct virtio_pci_modern_common_cfg, cfg.field)

QEMU_BUILD_BUG_ON(sizeof(struct virtio_balloon_hp_config) != 56);
QEMU_BUILD_BUG_ON(sizeof(struct virtio_balloon_hp_req) != 16);
QEMU_BUILD_BUG_ON(sizeof(struct virtio_balloon_hp_resp) != 16);
QEMU_BUILD_BUG_ON(sizeof(struct virtio_balloon_hp_exception) != 16);
QEMU_BUILD_BUG_ON(sizeof(struct virtio_balloon_hp_stat) != 16);

Hpb *hpb_attach(QTestState *qts)
{
    Hpb *h = g_new0(Hpb, 1);

    h->qts = qts;
    h->refs = 1;
    h->ram_fd = -1;
    return h;
}

Hpb *hpb_start(const char *fmt, ...)
{
    QTestState *qts;
    va_list ap;

    va_start(ap, fmt);
    qts = qtest_vinitf(fmt, ap);
    va_end(ap);
    return hpb_attach(qts);
}

void hpb_put(Hpb *h)
{
    if (--h->refs == 0) {
        if (h->ram_fd >= 0) {
            close(h->ram_fd);
        }
        g_free(h);
    }
}

void hpb_quit(Hpb *h)
{
    qtest_quit(h->qts);
    h->qts = NULL;
    hpb_put(h);
}

void hpb_probe_pci(Hpb *h)
{
    QPCIBus *bus = qpci_new_pc(h->qts, NULL);
    QPCIAddress addr = { .devfn = QPCI_DEVFN(HPB_SLOT, 0) };
    QVirtioPCIDevice *dev = virtio_pci_new(bus, &addr);

    g_assert_nonnull(dev);
    g_assert_cmpint(dev->vdev.device_type, ==, VIRTIO_BALLOON_HP_DEVICE_ID);
    /* DEV-1: a modern device only, not the transitional 0x1000 + n */
    g_assert_cmphex(qpci_config_readw(dev->pdev, PCI_DEVICE_ID), ==,
                    0x1040 + VIRTIO_BALLOON_HP_DEVICE_ID);
    qvirtio_pci_device_enable(dev);
    h->mmio = false;
    h->common = dev->bar.addr + dev->common_cfg_offset;
    h->isr = dev->bar.addr + dev->isr_cfg_offset;
    h->cfg = dev->bar.addr + dev->device_cfg_offset;
    h->notify = dev->bar.addr + dev->notify_cfg_offset;
    h->notify_mult = dev->notify_off_multiplier;
    g_free(dev->pdev);
    g_free(dev);
    qpci_free_pc(bus);
}

void hpb_probe_mmio(Hpb *h)
{
    h->mmio = true;
    h->common = HPB_MMIO_BASE;
    h->cfg = HPB_MMIO_BASE + VIRTIO_MMIO_CONFIG;
    h->notify = HPB_MMIO_BASE + VIRTIO_MMIO_QUEUE_NOTIFY;
    g_assert_cmphex(qtest_readl(h->qts, h->common + VIRTIO_MMIO_VERSION),
                    ==, 2);
    g_assert_cmpint(qtest_readl(h->qts, h->common + VIRTIO_MMIO_DEVICE_ID),
                    ==, VIRTIO_BALLOON_HP_DEVICE_ID);
}

uint64_t hpb_offered(Hpb *h)
{
    unsigned sel = h->mmio ? VIRTIO_MMIO_DEVICE_FEATURES_SEL :
                             COMMON(device_feature_select);
    unsigned reg = h->mmio ? VIRTIO_MMIO_DEVICE_FEATURES :
                             COMMON(device_feature);
    uint64_t features;

    qtest_writel(h->qts, h->common + sel, 1);
    features = (uint64_t)qtest_readl(h->qts, h->common + reg) << 32;
    qtest_writel(h->qts, h->common + sel, 0);
    return features | qtest_readl(h->qts, h->common + reg);
}

static void accept_features(Hpb *h, uint64_t features)
{
    unsigned sel = h->mmio ? VIRTIO_MMIO_DRIVER_FEATURES_SEL :
                             COMMON(guest_feature_select);
    unsigned reg = h->mmio ? VIRTIO_MMIO_DRIVER_FEATURES :
                             COMMON(guest_feature);

    for (unsigned i = 0; i < 2; i++) {
        qtest_writel(h->qts, h->common + sel, i);
        qtest_writel(h->qts, h->common + reg, features >> (32 * i));
    }
    h->features = features;
}

uint8_t hpb_status(Hpb *h)
{
    return h->mmio ? qtest_readl(h->qts, h->common + VIRTIO_MMIO_STATUS) :
                     qtest_readb(h->qts, h->common + COMMON(device_status));
}

void hpb_set_status(Hpb *h, uint8_t status)
{
    if (h->mmio) {
        qtest_writel(h->qts, h->common + VIRTIO_MMIO_STATUS, status);
    } else {
        qtest_writeb(h->qts, h->common + COMMON(device_status), status);
    }
}

uint8_t hpb_isr(Hpb *h)
{
    uint8_t seen;

    if (h->mmio) {
        seen = qtest_readl(h->qts, h->common + VIRTIO_MMIO_INTERRUPT_STATUS);
        qtest_writel(h->qts, h->common + VIRTIO_MMIO_INTERRUPT_ACK, seen);
    } else {
        seen = qtest_readb(h->qts, h->isr);
    }
    seen |= h->isr_seen;
    h->isr_seen = 0;
    return seen;
}

/* Forget the requests of a queue, and lay it out anew in low memory */
static void ring_init(Hpb *h, unsigned index, uint16_t size)
{
    HpbQueue *q = &h->vq[index];

    g_assert_cmpint(size, >=, 4);
    g_assert_cmpint(size, <=, HPB_QUEUE_MAX);
    memset(q, 0, sizeof(*q));
    q->size = size;
    q->desc = HPB_LOW_START + index * RING_STRIDE;
    q->avail = q->desc + size * sizeof(struct vring_desc);
    q->used = q->desc + RING_STRIDE / 2;
    q->nfree = size;
    for (unsigned i = 0; i < size; i++) {
        q->free[i] = size - 1 - i;
    }
    qtest_memset(h->qts, q->desc, 0, RING_STRIDE);
}

static void writeq_split(Hpb *h, unsigned reg, uint64_t value)
{
    qtest_writel(h->qts, h->common + reg, value);
    qtest_writel(h->qts, h->common + reg + 4, value >> 32);
}

static void queue_setup_pci(Hpb *h, unsigned index)
{
    HpbQueue *q = &h->vq[index];
    uint16_t off;

    qtest_writew(h->qts, h->common + COMMON(queue_select), index);
    ring_init(h, index, qtest_readw(h->qts, h->common + COMMON(queue_size)));
    writeq_split(h, COMMON(queue_desc_lo), q->desc);
    writeq_split(h, COMMON(queue_avail_lo), q->avail);
    writeq_split(h, COMMON(queue_used_lo), q->used);
    off = qtest_readw(h->qts, h->common + COMMON(queue_notify_off));
    q->notify = h->notify + off * h->notify_mult;
    qtest_writew(h->qts, h->common + COMMON(queue_enable), 1);
}

static void queue_setup_mmio(Hpb *h, unsigned index)
{
    HpbQueue *q = &h->vq[index];

    qtest_writel(h->qts, h->common + VIRTIO_MMIO_QUEUE_SEL, index);
    ring_init(h, index, qtest_readl(h->qts,
                                    h->common + VIRTIO_MMIO_QUEUE_NUM_MAX));
    qtest_writel(h->qts, h->common + VIRTIO_MMIO_QUEUE_NUM, q->size);
    writeq_split(h, VIRTIO_MMIO_QUEUE_DESC_LOW, q->desc);
    writeq_split(h, VIRTIO_MMIO_QUEUE_AVAIL_LOW, q->avail);
    writeq_split(h, VIRTIO_MMIO_QUEUE_USED_LOW, q->used);
    q->notify = h->notify;
    qtest_writel(h->qts, h->common + VIRTIO_MMIO_QUEUE_READY, 1);
}

void hpb_queue_setup(Hpb *h, unsigned vq)
{
    if (h->mmio) {
        queue_setup_mmio(h, vq);
    } else {
        queue_setup_pci(h, vq);
    }
}

void hpb_queue_reset(Hpb *h, unsigned vq)
{
    unsigned reg = offsetof(struct virtio_pci_modern_common_cfg, queue_reset);

    g_assert_false(h->mmio);
    qtest_writew(h->qts, h->common + COMMON(queue_select), vq);
    qtest_writew(h->qts, h->common + reg, 1);
    while (qtest_readw(h->qts, h->common + reg)) {
        /* the standard lets a device take its time, QEMU does not */
    }
    g_assert_cmpint(qtest_readw(h->qts, h->common + COMMON(queue_enable)),
                    ==, 0);
}

void hpb_reset(Hpb *h)
{
    hpb_set_status(h, 0);
    g_assert_cmphex(hpb_status(h), ==, 0);
    for (unsigned i = 0; i < VIRTIO_BALLOON_HP_VQ_MAX; i++) {
        memset(&h->vq[i], 0, sizeof(h->vq[i]));
    }
    h->isr_seen = 0;
    h->heap = HPB_LOW_START + VIRTIO_BALLOON_HP_VQ_MAX * RING_STRIDE;
}

void hpb_driver_init(Hpb *h, uint64_t mask)
{
    uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
    uint64_t offered;

    hpb_reset(h);
    hpb_set_status(h, status);
    offered = hpb_offered(h);
    g_assert_true(offered & (1ULL << VIRTIO_F_VERSION_1));
    accept_features(h, offered & (mask | (1ULL << VIRTIO_F_VERSION_1)));
    status |= VIRTIO_CONFIG_S_FEATURES_OK;
    hpb_set_status(h, status);
    g_assert_cmphex(hpb_status(h), ==, status);
    for (unsigned i = 0; i < VIRTIO_BALLOON_HP_VQ_MAX; i++) {
        bool stats = h->features & (1ULL << VIRTIO_BALLOON_HP_F_STATS);
        bool report = h->features & (1ULL << VIRTIO_BALLOON_HP_F_REPORTING);

        if ((i == VIRTIO_BALLOON_HP_VQ_STATS && !stats) ||
            (i == VIRTIO_BALLOON_HP_VQ_REPORTING && !report)) {
            continue;
        }
        hpb_queue_setup(h, i);
    }
    status |= VIRTIO_CONFIG_S_DRIVER_OK;
    hpb_set_status(h, status);
    g_assert_cmphex(hpb_status(h), ==, status);
    h->unit = HPB_CFG(h, unit);
    hpb_isr(h);
}

Hpb *hpb_boot_mem(const char *mem, const char *props)
{
    Hpb *h = hpb_start(HPB_PC "%s " HPB_DEV_PCI "%s", mem, props);

    hpb_probe_pci(h);
    hpb_driver_init(h, HPB_FEATURES);
    return h;
}

Hpb *hpb_boot(const char *props)
{
    return hpb_boot_mem("-m 256M", props);
}

void hpb_migrated(Hpb *h, QTestState *qts)
{
    qtest_quit(h->qts);
    h->qts = qts;
    if (h->ram_fd >= 0) {
        close(h->ram_fd);
        h->ram_fd = -1;
    }
}

uint32_t hpb_cfg32(Hpb *h, unsigned offset)
{
    return qtest_readl(h->qts, h->cfg + offset);
}

uint64_t hpb_cfg64(Hpb *h, unsigned offset)
{
    return hpb_cfg32(h, offset) | (uint64_t)hpb_cfg32(h, offset + 4) << 32;
}

uint64_t hpb_alloc(Hpb *h, size_t len)
{
    uint64_t addr = h->heap;

    h->heap = ROUND_UP(addr + len, 16);
    g_assert_cmphex(h->heap, <=, HPB_LOW_END);
    return addr;
}

void hpb_use_ram_file(Hpb *h)
{
    g_autofree char *dir = g_strdup_printf("/proc/%d/fd", qtest_pid(h->qts));
    GDir *d = g_dir_open(dir, 0, NULL);
    const char *name;

    g_assert_nonnull(d);
    while ((name = g_dir_read_name(d))) {
        g_autofree char *path = g_build_filename(dir, name, NULL);
        g_autofree char *target = g_file_read_link(path, NULL);

        if (target && g_str_has_prefix(target, "/memfd:memory-backend")) {
            g_assert_cmpint(h->ram_fd, <, 0);
            h->ram_fd = open(path, O_RDWR | O_CLOEXEC);
            g_assert_cmpint(h->ram_fd, >=, 0);
        }
    }
    g_dir_close(d);
    g_assert_cmpint(h->ram_fd, >=, 0);
}

void hpb_fill(Hpb *h, uint64_t addr, uint64_t len, uint8_t value)
{
    g_autofree uint8_t *buf = NULL;

    if (h->ram_fd < 0) {
        qtest_memset(h->qts, addr, value, len);
        return;
    }
    buf = g_malloc(MIN(len, MiB));
    memset(buf, value, MIN(len, MiB));
    while (len) {
        ssize_t n = pwrite(h->ram_fd, buf, MIN(len, MiB), addr);

        g_assert_cmpint(n, >, 0);
        addr += n;
        len -= n;
    }
}

bool hpb_filled(Hpb *h, uint64_t addr, uint64_t len, uint8_t value)
{
    g_autofree uint8_t *buf = g_malloc(MIN(len, MiB));

    while (len) {
        ssize_t n = MIN(len, MiB);

        if (h->ram_fd < 0) {
            qtest_bufread(h->qts, addr, buf, n);
        } else {
            n = pread(h->ram_fd, buf, n, addr);
            g_assert_cmpint(n, >, 0);
        }
        if (buf[0] != value || memcmp(buf, buf + 1, n - 1)) {
            return false;
        }
        addr += n;
        len -= n;
    }
    return true;
}

void hpb_qmp_balloon(Hpb *h, int64_t bytes)
{
    qtest_qmp_assert_success(h->qts, "{ 'execute': 'balloon', 'arguments': "
                             "{ 'value': %" PRId64 " } }", bytes);
}

uint64_t hpb_qmp_query(Hpb *h)
{
    QDict *info = qtest_qmp_assert_success_ref(
        h->qts, "{ 'execute': 'query-balloon' }");
    uint64_t actual = qdict_get_int(info, "actual");

    qobject_unref(info);
    return actual;
}

uint64_t hpb_counter(Hpb *h, const char *path)
{
    g_auto(GStrv) names = g_strsplit(path, ".", 0);
    QDict *rsp = qtest_qmp_assert_success_ref(
        h->qts, "{ 'execute': 'qom-get', 'arguments': "
        "{ 'path': %s, 'property': 'counters' } }", HPB_PATH);
    QDict *dict = rsp;
    uint64_t value;
    unsigned i;

    for (i = 0; names[i + 1]; i++) {
        dict = qdict_get_qdict(dict, names[i]);
        g_assert_nonnull(dict);
    }
    g_assert_true(qdict_haskey(dict, names[i]));
    value = qdict_get_int(dict, names[i]);
    qobject_unref(rsp);
    return value;
}

void hpb_check_out(Hpb *h, uint64_t ram, uint64_t out)
{
    g_assert_cmphex(HPB_CFG(h, actual), ==, out);
    g_assert_cmphex(hpb_qmp_query(h), ==, ram - out);
}
