/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp qtest: features and configuration space (DEV-1 to DEV-7)
 *
 * Theory of operation: what a driver sees before it sends its first request,
 * and that none of it can be changed by writing to it.
 */

#include "qemu/osdep.h"
#include "qemu/host-utils.h"
#include "qemu/units.h"
#include "hpb-qtest.h"

#define RAM     (256 * MiB)
#define ALL_ONE 0xffffffffU

/* DEV-1: VERSION_1 is offered, and nothing that would be in its way */
static void test_version_1(void)
{
    Hpb *h = hpb_start(HPB_PC "-m 256M " HPB_DEV_PCI);
    uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
    uint64_t offered;

    hpb_probe_pci(h);
    offered = hpb_offered(h);
    g_assert_true(offered & (1ULL << VIRTIO_F_VERSION_1));
    /* ranges are physical: translation by an IOMMU must not be on by default */
    g_assert_false(offered & (1ULL << VIRTIO_F_ACCESS_PLATFORM));
    /* bits of the traditional balloon that mean nothing here */
    g_assert_cmphex(offered & (1 << 0 | 1 << 3 | 1 << 4), ==, 0);
    g_assert_true(offered & (1ULL << VIRTIO_BALLOON_HP_F_STATS));

    /* a driver that goes on without it spoils nothing for the next one */
    hpb_set_status(h, status);
    status |= VIRTIO_CONFIG_S_FEATURES_OK;
    hpb_set_status(h, status);
    hpb_set_status(h, status | VIRTIO_CONFIG_S_DRIVER_OK);
    hpb_driver_init(h, HPB_FEATURES);
    hpb_take(h, HPB_RAM_START, h->unit);
    hpb_check_out(h, RAM, h->unit);
    hpb_quit(h);
}

/* Features follow the properties that libvirt also sets for virtio-balloon */
static void test_feature_properties(void)
{
    uint64_t oom = 1ULL << VIRTIO_BALLOON_HP_F_DEFLATE_ON_OOM;
    uint64_t report = 1ULL << VIRTIO_BALLOON_HP_F_REPORTING;
    Hpb *h = hpb_boot("");

    g_assert_cmphex(hpb_offered(h) & (oom | report), ==, 0);
    hpb_quit(h);
    h = hpb_boot(",deflate-on-oom=on,free-page-reporting=on");
    g_assert_cmphex(hpb_offered(h) & (oom | report), ==, oom | report);
    hpb_quit(h);
}

/* DEV-2: a driver that accepts none of the bits of the device's section */
static void test_no_features(void)
{
    Hpb *h = hpb_boot(",deflate-on-oom=on,free-page-reporting=on");

    hpb_driver_init(h, 0);
    g_assert_cmphex(h->features, ==, 1ULL << VIRTIO_F_VERSION_1);
    hpb_take(h, HPB_RAM_START, 8 * h->unit);
    hpb_check_out(h, RAM, 8 * h->unit);
    hpb_give(h, HPB_RAM_START, 8 * h->unit);
    hpb_check_out(h, RAM, 0);
    hpb_quit(h);
}

static void check_sizes(Hpb *h)
{
    uint64_t preferred = HPB_CFG(h, preferred);

    g_assert_cmphex(h->unit, >=, 4096);
    g_assert_true(is_power_of_2(h->unit));
    g_assert_true(is_power_of_2(preferred));
    g_assert_cmphex(preferred, >=, h->unit);
    g_assert_cmpint(HPB_CFG(h, max_ranges), >=, 1);
    for (unsigned i = 0; i <= VIRTIO_BALLOON_HP_VQ_DEFLATE; i++) {
        g_assert_cmpint(HPB_CFG(h, max_ranges) + 2, <=, h->vq[i].size);
    }
    g_assert_cmpint(HPB_CFG(h, nr_nodes), ==, 0);
    g_assert_cmphex(HPB_CFG(h, requested), ==, 0);
    g_assert_cmphex(HPB_CFG(h, actual), ==, 0);
}

/* DEV-3, DEV-6: unit, preferred, max_ranges */
static void test_sizes(void)
{
    static const uint64_t units[] = { 4 * KiB, 64 * KiB, 2 * MiB, 16 * MiB };
    Hpb *h = hpb_boot("");

    check_sizes(h);
    g_assert_cmphex(h->unit, ==, 2 * MiB);
    hpb_quit(h);
    for (unsigned i = 0; i < ARRAY_SIZE(units); i++) {
        g_autofree char *props = g_strdup_printf(",unit=%" PRIu64, units[i]);

        h = hpb_boot(props);
        check_sizes(h);
        g_assert_cmphex(h->unit, ==, units[i]);
        hpb_quit(h);
    }
}

/* DEV-3: a unit that it forbids is refused when the device is created */
static void test_bad_units(void)
{
    static const uint64_t units[] = { 1, 2048, 6144, 3 * MiB, 512 * MiB };
    QTestState *qts = qtest_init(HPB_PC "-m 256M");

    for (unsigned i = 0; i < ARRAY_SIZE(units); i++) {
        QDict *rsp = qtest_qmp(qts, "{ 'execute': 'device_add', 'arguments': "
                               "{ 'driver': 'virtio-balloon-hp-pci', "
                               "'id': 'bad', 'unit': %" PRIu64 " } }",
                               units[i]);
        const char *desc = qdict_get_str(qdict_get_qdict(rsp, "error"),
                                         "desc");

        g_test_message("unit=%" PRIu64 ": %s", units[i], desc);
        g_assert_nonnull(strstr(desc, "unit"));
        qobject_unref(rsp);
    }
    qtest_quit(qts);
}

/* DEV-4: requested and actual are multiples of the unit, actual is a count */
static void test_multiples(void)
{
    Hpb *h = hpb_boot("");
    uint64_t out = 0;

    for (unsigned i = 1; i < 5; i++) {
        hpb_qmp_balloon(h, RAM - i * (h->unit + 4097));
        g_assert_cmphex(HPB_CFG(h, requested) % h->unit, ==, 0);
        hpb_take(h, HPB_RAM_START + out, i * h->unit);
        out += i * h->unit;
        hpb_check_out(h, RAM, out);
    }
    hpb_quit(h);
}

/* DEV-5: a notification for requested, none for actual */
static void test_notification(void)
{
    Hpb *h = hpb_boot("");

    hpb_qmp_balloon(h, RAM - 8 * h->unit);
    g_assert_true(hpb_isr(h) & HPB_ISR_CONFIG);
    g_assert_cmphex(HPB_CFG(h, requested), ==, 8 * h->unit);

    hpb_take(h, HPB_RAM_START, 8 * h->unit);
    g_assert_cmphex(hpb_isr(h), ==, HPB_ISR_QUEUE);
    hpb_give(h, HPB_RAM_START, 4 * h->unit);
    g_assert_cmphex(hpb_isr(h), ==, HPB_ISR_QUEUE);
    g_assert_cmphex(HPB_CFG(h, actual), ==, 4 * h->unit);

    hpb_qmp_balloon(h, RAM);
    g_assert_true(hpb_isr(h) & HPB_ISR_CONFIG);
    g_assert_cmphex(HPB_CFG(h, requested), ==, 0);
    hpb_quit(h);
}

/* DEV-7: writes of every width to every field change nothing */
static void test_read_only(void)
{
    unsigned size = sizeof(struct virtio_balloon_hp_config);
    g_autofree uint8_t *before = g_malloc(size), *after = g_malloc(size);
    Hpb *h = hpb_boot("");

    hpb_qmp_balloon(h, RAM - 8 * h->unit);
    hpb_take(h, HPB_RAM_START, 4 * h->unit);
    for (unsigned i = 0; i < size; i++) {
        before[i] = qtest_readb(h->qts, h->cfg + i);
    }
    for (unsigned i = 0; i < size; i++) {
        qtest_writeb(h->qts, h->cfg + i, 0xff);
    }
    for (unsigned i = 0; i < size; i += 2) {
        qtest_writew(h->qts, h->cfg + i, 0);
    }
    for (unsigned i = 0; i < size; i += 4) {
        qtest_writel(h->qts, h->cfg + i, ALL_ONE);
    }
    /* behind the last field too */
    qtest_writel(h->qts, h->cfg + size, ALL_ONE);
    for (unsigned i = 0; i < size; i++) {
        after[i] = qtest_readb(h->qts, h->cfg + i);
    }
    g_assert_cmpmem(before, size, after, size);
    hpb_check_out(h, RAM, 4 * h->unit);
    g_assert_cmphex(hpb_status(h) & VIRTIO_CONFIG_S_NEEDS_RESET, ==, 0);
    hpb_give(h, HPB_RAM_START, 4 * h->unit);
    hpb_quit(h);
}

/* After initialization nothing is out, and queues have the index of the text */
static void test_initial_state(void)
{
    Hpb *h = hpb_boot(",free-page-reporting=on");

    hpb_check_out(h, RAM, 0);
    for (unsigned i = 0; i < VIRTIO_BALLOON_HP_VQ_MAX; i++) {
        g_assert_cmpint(h->vq[i].size, >, 0);
    }
    hpb_quit(h);
}

void hpb_add_config_tests(void)
{
    qtest_add_func("virtio-balloon-hp/config/DEV-1-version-1",
                   test_version_1);
    qtest_add_func("virtio-balloon-hp/config/feature-properties",
                   test_feature_properties);
    qtest_add_func("virtio-balloon-hp/config/DEV-2-no-features",
                   test_no_features);
    qtest_add_func("virtio-balloon-hp/config/DEV-3-DEV-6-sizes", test_sizes);
    qtest_add_func("virtio-balloon-hp/config/DEV-3-bad-units", test_bad_units);
    qtest_add_func("virtio-balloon-hp/config/DEV-4-multiples", test_multiples);
    qtest_add_func("virtio-balloon-hp/config/DEV-5-notification",
                   test_notification);
    qtest_add_func("virtio-balloon-hp/config/DEV-7-read-only", test_read_only);
    qtest_add_func("virtio-balloon-hp/config/initial-state",
                   test_initial_state);
}
