/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp qtest: machines, plugging, and what may not be combined
 *
 * Theory of operation: the device is brought up on each kind of machine and
 * moves memory there; it comes and goes while the machine runs; and
 * configurations that cannot work are refused with a reason when they are made.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qobject/qdict.h"
#include "qobject/qlist.h"
#include "hpb-qtest.h"

#define RAM     (256 * MiB)

static void use(Hpb *h)
{
    hpb_driver_init(h, HPB_FEATURES);
    hpb_take(h, HPB_RAM_START, 20 * h->unit);
    hpb_check_out(h, RAM, 20 * h->unit);
    hpb_give(h, HPB_RAM_START + 5 * h->unit, 10 * h->unit);
    hpb_check_out(h, RAM, 10 * h->unit);
    hpb_qmp_balloon(h, RAM);
    hpb_isr(h);
    hpb_qmp_balloon(h, RAM - 4 * h->unit);
    g_assert_true(hpb_isr(h) & HPB_ISR_CONFIG);
}

static void test_machine_pci(const void *data)
{
    Hpb *h = hpb_start("%s -m 256M " HPB_DEV_PCI, (const char *)data);

    hpb_probe_pci(h);
    use(h);
    hpb_quit(h);
}

static void test_microvm(void)
{
    Hpb *h = hpb_start(HPB_MICROVM "-m 256M " HPB_DEV_MMIO);

    hpb_probe_mmio(h);
    use(h);
    hpb_reset(h);
    use(h);
    hpb_quit(h);
}

/* The short name of -device is the PCI device on a machine with PCI */
static void test_alias(void)
{
    Hpb *h = hpb_start(HPB_PC "-m 256M -device virtio-balloon-hp,id=" HPB_ID
                       ",addr=04.0");

    hpb_probe_pci(h);
    use(h);
    hpb_quit(h);
}

/* Properties of virtio that libvirt may set are accepted, and work */
static void test_virtio_properties(void)
{
    Hpb *h = hpb_boot(",packed=off,ats=off,page-per-vq=off,event_idx=on");

    use(h);
    hpb_quit(h);
    h = hpb_boot(",page-per-vq=on,indirect_desc=off");
    use(h);
    hpb_quit(h);
}

static QDict *query_error(QTestState *qts)
{
    return qtest_qmp_assert_failure_ref(qts, "{ 'execute': 'query-balloon' }");
}

static void wait_deleted(QTestState *qts, const char *id)
{
    for (;;) {
        QDict *ev = qtest_qmp_eventwait_ref(qts, "DEVICE_DELETED");
        QDict *data = qdict_get_qdict(ev, "data");
        bool ours = qdict_haskey(data, "device") &&
                    !strcmp(qdict_get_str(data, "device"), id);

        qobject_unref(ev);
        if (ours) {
            return;
        }
    }
}

/* Hot-plugged on pc, used, unplugged with memory out and requests in flight */
static void test_hotplug_pc(void)
{
    Hpb *h = hpb_start(HPB_PC "-m 256M -machine memory-backend=m -object "
                       "memory-backend-memfd,id=m,size=256M,share=on");
    HpbReq *in[40];

    hpb_use_ram_file(h);
    qobject_unref(query_error(h->qts));
    for (unsigned round = 0; round < 3; round++) {
        qtest_qmp_device_add(h->qts, "virtio-balloon-hp-pci", HPB_ID,
                             "{ 'addr': '04.0' }");
        g_assert_cmphex(hpb_qmp_query(h), ==, RAM);
        hpb_probe_pci(h);
        use(h);
        for (unsigned i = 0; i < ARRAY_SIZE(in); i++) {
            in[i] = hpb_range(hpb_inflate(h),
                              HPB_RAM_START + (40 + i) * h->unit, h->unit);
            hpb_add(in[i]);
        }
        hpb_kick(h, VIRTIO_BALLOON_HP_VQ_INFLATE);
        qtest_qmp_device_del_send(h->qts, HPB_ID);
        qtest_system_reset_nowait(h->qts);
        wait_deleted(h->qts, HPB_ID);
        qobject_unref(query_error(h->qts));
        for (unsigned i = 0; i < ARRAY_SIZE(in); i++) {
            hpb_req_free(in[i]);
        }
        /* the memory is the guest's: nobody frees it any more */
        hpb_fill(h, HPB_RAM_START, 100 * h->unit, 0x3c);
        g_assert_true(hpb_filled(h, HPB_RAM_START, 100 * h->unit, 0x3c));
    }
    hpb_quit(h);
}

/* Behind a PCIe port, as libvirt does it on q35 */
static void test_hotplug_q35(void)
{
    QTestState *qts = qtest_init(HPB_Q35 "-m 256M -device "
                                 "pcie-root-port,id=p1,chassis=1 -device "
                                 "pcie-pci-bridge,bus=p1,id=b1");

    for (unsigned round = 0; round < 2; round++) {
        QDict *info;

        qtest_qmp_device_add(qts, "virtio-balloon-hp-pci", HPB_ID,
                             "{ 'bus': 'b1', 'addr': '01.0' }");
        info = qtest_qmp_assert_success_ref(qts,
                                            "{ 'execute': 'query-balloon' }");
        g_assert_cmphex(qdict_get_int(info, "actual"), ==, RAM);
        qobject_unref(info);
        qtest_qmp_device_del_send(qts, HPB_ID);
        qtest_system_reset_nowait(qts);
        wait_deleted(qts, HPB_ID);
        qobject_unref(query_error(qts));
    }
    qtest_quit(qts);
}

/* A machine has one balloon, whichever kind comes first */
static void test_second_balloon(void)
{
    static const struct { const char *first, *second; } cases[] = {
        { "virtio-balloon-hp-pci", "virtio-balloon-hp-pci" },
        { "virtio-balloon-hp-pci", "virtio-balloon-pci" },
        { "virtio-balloon-pci", "virtio-balloon-hp-pci" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        QTestState *qts = qtest_initf(HPB_PC "-m 256M -device %s,id=one",
                                      cases[i].first);
        QDict *err, *info;

        err = qtest_qmp_assert_failure_ref(
            qts, "{ 'execute': 'device_add', 'arguments': "
            "{ 'driver': %s, 'id': 'two' } }", cases[i].second);
        g_test_message("%s, then %s: %s", cases[i].first, cases[i].second,
                       qdict_get_str(err, "desc"));
        g_assert_nonnull(strstr(qdict_get_str(err, "desc"), "balloon"));
        qobject_unref(err);
        /* the first one goes on */
        info = qtest_qmp_assert_success_ref(qts,
                                            "{ 'execute': 'query-balloon' }");
        g_assert_cmphex(qdict_get_int(info, "actual"), ==, RAM);
        qobject_unref(info);
        qtest_quit(qts);
    }
}

/* Run QEMU with @args, expect that it ends by itself; returns what it said */
static char *expect_exit(const char *args)
{
    g_autofree char *cmd = g_strdup_printf(
        "%s -display none -audio none -accel qtest -S -qmp stdio " HPB_PC
        "-m 256M %s", g_getenv("QTEST_QEMU_BINARY"), args);
    g_autoptr(GError) error = NULL;
    g_autofree char *out = NULL;
    char *err = NULL;
    int status;

    g_test_message("%s", cmd);
    g_assert_true(g_spawn_command_line_sync(cmd, &out, &err, &status, &error));
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 1);
    return err;
}

/* The same on the command line, where QEMU ends with the message */
static void test_second_balloon_cold(void)
{
    static const char *const args[] = {
        "-device virtio-balloon-hp-pci -device virtio-balloon-hp-pci",
        "-device virtio-balloon-pci -device virtio-balloon-hp-pci",
        "-device virtio-balloon-hp-pci -device virtio-balloon-pci",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(args); i++) {
        g_autofree char *err = expect_exit(args[i]);

        g_assert_nonnull(strstr(err, "one balloon device is supported"));
    }
}

static void test_bad_properties(void)
{
    static const struct { const char *props, *word; } cases[] = {
        { "unit=3M", "unit" },
        { "unit=2k", "unit" },
        { "unit=1G", "unit" },
        { "iommu_platform=on", "iommu_platform" },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        g_autofree char *args = g_strdup_printf(
            "-device virtio-balloon-hp-pci,%s", cases[i].props);
        g_autofree char *err = expect_exit(args);

        g_test_message("%s", err);
        g_assert_nonnull(strstr(err, cases[i].word));
    }
}

/* A failed realize leaves no handler behind: the next one can be the balloon */
static void test_failed_then_good(void)
{
    QTestState *qts = qtest_init(HPB_PC "-m 256M");

    for (unsigned i = 0; i < 3; i++) {
        QDict *err = qtest_qmp_assert_failure_ref(
            qts, "{ 'execute': 'device_add', 'arguments': "
            "{ 'driver': 'virtio-balloon-hp-pci', 'id': 'bad', "
            "'unit': 3145728 } }");

        qobject_unref(err);
    }
    qtest_qmp_device_add(qts, "virtio-balloon-hp-pci", HPB_ID, "{}");
    qtest_quit(qts);
}

/* Context switches of all threads of QEMU until now */
static uint64_t switches(pid_t pid)
{
    g_autofree char *dir = g_strdup_printf("/proc/%d/task", pid);
    GDir *d = g_dir_open(dir, 0, NULL);
    uint64_t sum = 0;
    const char *name;

    while ((name = g_dir_read_name(d))) {
        g_autofree char *path = g_strdup_printf("%s/%s/status", dir, name);
        g_autofree char *text = NULL;
        unsigned long n;
        char *line;

        g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
        line = strstr(text, "\nvoluntary_ctxt_switches:");
        g_assert_nonnull(line);
        g_assert_cmpint(sscanf(line, " voluntary_ctxt_switches: %lu", &n),
                        ==, 1);
        sum += n;
    }
    g_dir_close(d);
    return sum;
}

/*
 * An idle device has no timer and wakes no thread. There is nothing to be
 * waited for where nothing happens, so the test watches QEMU for half a second
 * on a machine without clocks of its own; again if something else of QEMU's
 * woke up.
 */
static void test_idle(void)
{
    Hpb *h = hpb_start("-machine microvm,rtc=off,pit=off,pic=off -nodefaults "
                       "-m 256M " HPB_DEV_MMIO);
    uint64_t before, best = UINT64_MAX;

    hpb_probe_mmio(h);
    use(h);
    for (unsigned i = 0; i < 5 && best; i++) {
        before = switches(qtest_pid(h->qts));
        g_usleep(G_USEC_PER_SEC / 2);
        best = MIN(best, switches(qtest_pid(h->qts)) - before);
    }
    g_assert_cmpint(best, ==, 0);
    hpb_quit(h);
}

/* dev-introspection, as management does before it uses a device */
static void test_introspection(void)
{
    QTestState *qts = qtest_init("-machine none -nodefaults");
    static const char *const types[] = {
        "virtio-balloon-hp-pci", "virtio-balloon-hp-device",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        QDict *rsp = qtest_qmp(qts, "{ 'execute': 'device-list-properties', "
                               "'arguments': { 'typename': %s } }", types[i]);
        QList *list = qdict_get_qlist(rsp, "return");
        bool unit = false;
        const QListEntry *e;

        QLIST_FOREACH_ENTRY(list, e) {
            QDict *prop = qobject_to(QDict, qlist_entry_obj(e));

            unit |= !strcmp(qdict_get_str(prop, "name"), "unit");
        }
        g_assert_true(unit);
        qobject_unref(rsp);
    }
    qtest_quit(qts);
}

#define ADD(name, fn) qtest_add_func("virtio-balloon-hp/machine/" name, fn)

void hpb_add_machine_tests(void)
{
    qtest_add_data_func("virtio-balloon-hp/machine/pc", HPB_PC,
                        test_machine_pci);
    qtest_add_data_func("virtio-balloon-hp/machine/q35", HPB_Q35,
                        test_machine_pci);
    ADD("microvm", test_microvm);
    ADD("alias", test_alias);
    ADD("virtio-properties", test_virtio_properties);
    ADD("hotplug-pc", test_hotplug_pc);
    ADD("hotplug-q35", test_hotplug_q35);
    ADD("second-balloon", test_second_balloon);
    ADD("second-balloon-cold", test_second_balloon_cold);
    ADD("bad-properties", test_bad_properties);
    ADD("failed-then-good", test_failed_then_good);
    ADD("idle", test_idle);
    ADD("introspection", test_introspection);
}
