/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio-balloon-hp qtest: targets of NUMA nodes (DEV-28, DEV-29, DEV-30)
 *
 * Theory of operation: a machine of two nodes with 128 MiB each, so that the
 * border is where the model says. What each node has out is counted here, by
 * address, and compared with configuration space and QOM after each step.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "qobject/qlist.h"
#include "hpb-qtest.h"
#include "hpb-qtest-migrate.h"

#define RAM     (256 * MiB)
#define NODE    (128 * MiB)
#define ANY     VIRTIO_BALLOON_HP_NODE_ANY
#define F_NODES (1ULL << VIRTIO_BALLOON_HP_F_NODES)
#define FEATURES (HPB_FEATURES | F_NODES)
#define BACKENDS "-object memory-backend-ram,id=m0,size=128M " \
                 "-object memory-backend-ram,id=m1,size=128M "
#define NODES    "-numa node,memdev=m0 -numa node,memdev=m1 "
#define TWO      "-m 256M " BACKENDS NODES
#define SECOND   (128 * MiB)    /* address of the second node */

static Hpb *boot(const char *mem, const char *props)
{
    Hpb *h = hpb_boot_mem(mem, props);

    hpb_driver_init(h, FEATURES);
    return h;
}

static uint64_t cfg_node(Hpb *h, unsigned node, unsigned field)
{
    return hpb_cfg64(h, sizeof(struct virtio_balloon_hp_config) +
                     node * sizeof(struct virtio_balloon_hp_node) + field);
}

#define CFG_NODE(h, node, field) \
    cfg_node(h, node, offsetof(struct virtio_balloon_hp_node, field))

/* The entry of the property "nodes" */
static QDict *qom_node(Hpb *h, unsigned node)
{
    QDict *rsp = qtest_qmp(h->qts, "{ 'execute': 'qom-get', 'arguments': "
                           "{ 'path': %s, 'property': 'nodes' } }", HPB_PATH);
    QDict *found = NULL;
    const QListEntry *e;

    QLIST_FOREACH_ENTRY(qdict_get_qlist(rsp, "return"), e) {
        QDict *entry = qobject_to(QDict, qlist_entry_obj(e));

        if (qdict_get_int(entry, "node") == node) {
            found = qobject_ref(entry);
        }
    }
    qobject_unref(rsp);
    g_assert_nonnull(found);
    return found;
}

/* Node @node has @ram bytes, @out of them out, @asked asked for (ANY: none) */
static void check_node(Hpb *h, unsigned node, uint64_t ram, uint64_t out,
                       uint64_t asked)
{
    QDict *entry = qom_node(h, node);

    g_assert_cmphex(CFG_NODE(h, node, actual), ==, out);
    g_assert_cmphex(CFG_NODE(h, node, requested), ==, asked);
    g_assert_cmphex(qdict_get_int(entry, "ram-size"), ==, ram);
    g_assert_cmphex(qdict_get_int(entry, "actual-size"), ==, ram - out);
    if (asked == ANY) {
        g_assert_false(qdict_haskey(entry, "requested-size"));
    } else {
        g_assert_cmphex(qdict_get_int(entry, "requested-size"), ==,
                        ram - asked);
    }
    qobject_unref(entry);
}

static QDict *set_sizes(QTestState *qts, const char *sizes)
{
    g_autofree char *cmd = g_strdup_printf(
        "{ 'execute': 'qom-set', 'arguments': { 'path': '%s', "
        "'property': 'node-sizes', 'value': [ %s ] } }", HPB_PATH, sizes);

    return qtest_qmp(qts, "%p", qobject_from_json(cmd, &error_abort));
}

static void set_two(QTestState *qts, uint64_t first, uint64_t second)
{
    g_autofree char *sizes = g_strdup_printf("%" PRIu64 ", %" PRIu64, first,
                                             second);
    QDict *rsp = set_sizes(qts, sizes);

    g_assert_true(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
}

static void expect_error(Hpb *h, const char *sizes, const char *word)
{
    QDict *rsp = set_sizes(h->qts, sizes);
    const char *desc;

    g_assert_true(qdict_haskey(rsp, "error"));
    desc = qdict_get_str(qdict_get_qdict(rsp, "error"), "desc");
    g_test_message("[%s]: %s", sizes, desc);
    g_assert_nonnull(strstr(desc, word));
    qobject_unref(rsp);
}

/* DEV-28: which machines have nodes, and that the count says so */
static void test_offered(void)
{
    static const struct { const char *mem, *props; unsigned nodes; } cases[] = {
        { "-m 256M", "", 0 },
        { "-m 256M -object memory-backend-ram,id=m0,size=256M "
          "-numa node,memdev=m0", "", 0 },
        { TWO, "", 2 },
        { TWO, ",node-targets=off", 0 },
        { "-machine pc-i440fx-5.0 -m 256M -numa node,mem=128M "
          "-numa node,mem=128M", "", 0 },
        { TWO "-numa node", "", 3 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        Hpb *h = hpb_boot_mem(cases[i].mem, cases[i].props);

        /* the driver has not accepted the feature yet: the same */
        g_assert_cmpint(HPB_CFG(h, nr_nodes), ==, cases[i].nodes);
        g_assert_cmpint(!!(hpb_offered(h) & F_NODES), ==, cases[i].nodes > 0);
        if (cases[i].nodes) {
            hpb_take(h, SECOND, 2 * h->unit);
            check_node(h, 1, NODE, 2 * h->unit, ANY);
            hpb_driver_init(h, FEATURES);
            g_assert_true(h->features & F_NODES);
            g_assert_cmpint(HPB_CFG(h, nr_nodes), ==, cases[i].nodes);
        } else {
            expect_error(h, "134217728, 134217728", "balloon");
        }
        hpb_quit(h);
    }
}

/* DEV-29, DEV-5: what is asked, and that the driver is told */
static void test_targets(void)
{
    Hpb *h = boot(TWO, "");
    uint64_t u = h->unit;

    check_node(h, 0, NODE, 0, ANY);
    check_node(h, 1, NODE, 0, ANY);
    set_two(h->qts, NODE - 4 * u, NODE - 7 * u);
    g_assert_true(hpb_isr(h) & HPB_ISR_CONFIG);
    g_assert_cmphex(HPB_CFG(h, requested), ==, 11 * u);
    check_node(h, 0, NODE, 0, 4 * u);
    check_node(h, 1, NODE, 0, 7 * u);
    /* the same again is no change; another split of the same sum is one */
    set_two(h->qts, NODE - 4 * u, NODE - 7 * u);
    g_assert_cmphex(hpb_isr(h) & HPB_ISR_CONFIG, ==, 0);
    set_two(h->qts, NODE - 5 * u, NODE - 6 * u);
    g_assert_true(hpb_isr(h) & HPB_ISR_CONFIG);
    check_node(h, 0, NODE, 0, 5 * u);
    /* the size of the guest as a whole ends it, even if it is the sum */
    hpb_qmp_balloon(h, RAM - 11 * u);
    g_assert_true(hpb_isr(h) & HPB_ISR_CONFIG);
    g_assert_cmphex(HPB_CFG(h, requested), ==, 11 * u);
    check_node(h, 0, NODE, 0, ANY);
    check_node(h, 1, NODE, 0, ANY);
    /* kept over a reset, like the target of the guest */
    set_two(h->qts, NODE, NODE - 3 * u);
    hpb_take(h, SECOND, 3 * u);
    hpb_driver_init(h, FEATURES);
    check_node(h, 0, NODE, 0, 0);
    check_node(h, 1, NODE, 0, 3 * u);
    hpb_quit(h);
}

/* Rounding is that of the command balloon */
static void test_rounding(void)
{
    Hpb *h = boot(TWO, "");
    uint64_t u = h->unit;
    const struct { uint64_t size, requested; } cases[] = {
        { NODE, 0 }, { NODE - 1, 0 }, { NODE - u + 1, 0 }, { NODE - u, u },
        { NODE - u - 1, u }, { 1, NODE - u }, { 0, NODE }, { NODE + 1, 0 },
        { INT64_MAX, 0 },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        set_two(h->qts, NODE - u, cases[i].size);
        g_assert_cmphex(HPB_CFG(h, requested), ==, cases[i].requested + u);
        check_node(h, 0, NODE, 0, u);
        check_node(h, 1, NODE, 0, cases[i].requested);
    }
    hpb_quit(h);
}

/* What cannot be asked is an error that says why, and changes nothing */
static void test_errors(void)
{
    Hpb *h = boot(TWO, "");

    set_two(h->qts, NODE - h->unit, NODE);
    expect_error(h, "", "2 NUMA nodes");
    expect_error(h, "1048576", "2 NUMA nodes");
    expect_error(h, "1048576, 1048576, 1048576", "3 sizes");
    expect_error(h, "0, 0", "nothing");
    expect_error(h, "1048576, -1", "-1 is not a size");
    expect_error(h, "1048576, 'much'", "node-sizes");
    check_node(h, 0, NODE, 0, h->unit);
    check_node(h, 1, NODE, 0, 0);
    /* a driver that knows nothing of nodes */
    hpb_driver_init(h, HPB_FEATURES);
    expect_error(h, "1048576, 1048576", "did not accept");
    hpb_qmp_balloon(h, RAM - h->unit);
    g_assert_cmphex(HPB_CFG(h, requested), ==, h->unit);
    /* no driver yet: it will see */
    hpb_reset(h);
    set_two(h->qts, NODE - h->unit, NODE);
    check_node(h, 0, NODE, 0, h->unit);
    hpb_quit(h);
}

/* DEV-30, DEV-28: any node gives and gets, whatever was asked of it */
static void test_any_node(void)
{
    Hpb *h = boot(TWO, "");
    uint64_t u = h->unit;

    set_two(h->qts, NODE, NODE - 8 * u);
    hpb_take(h, HPB_RAM_START, 5 * u);
    check_node(h, 0, NODE, 5 * u, 0);
    check_node(h, 1, NODE, 0, 8 * u);
    /* across the border */
    hpb_take(h, SECOND - 2 * u, 5 * u);
    check_node(h, 0, NODE, 7 * u, 0);
    check_node(h, 1, NODE, 3 * u, 8 * u);
    hpb_give(h, SECOND - u, 2 * u);
    check_node(h, 0, NODE, 6 * u, 0);
    check_node(h, 1, NODE, 2 * u, 8 * u);
    hpb_check_out(h, RAM, 8 * u);
    hpb_quit(h);
}

/* DEV-7: the entries of nodes are as read-only as the rest */
static void test_read_only(void)
{
    unsigned first = sizeof(struct virtio_balloon_hp_config);
    unsigned size = first + 2 * sizeof(struct virtio_balloon_hp_node);
    g_autofree uint8_t *before = g_malloc(size), *after = g_malloc(size);
    Hpb *h = boot(TWO, "");

    set_two(h->qts, NODE - 4 * h->unit, NODE);
    hpb_take(h, SECOND, h->unit);
    for (unsigned i = 0; i < size; i++) {
        before[i] = qtest_readb(h->qts, h->cfg + i);
    }
    for (unsigned i = first; i < size + 8; i += 4) {
        qtest_writel(h->qts, h->cfg + i, 0xffffffff);
        qtest_writeb(h->qts, h->cfg + i, 0);
    }
    for (unsigned i = 0; i < size; i++) {
        after[i] = qtest_readb(h->qts, h->cfg + i);
    }
    g_assert_cmpmem(before, size, after, size);
    hpb_quit(h);
}

/* DEV-28: random requests; the count by node is that of a model */
static void test_accounting(void)
{
    Hpb *h = boot(TWO, ",unit=65536");
    unsigned units = RAM / h->unit, first = HPB_RAM_START / h->unit;
    g_autofree uint8_t *out = g_malloc0(units);
    g_autoptr(GRand) rand = g_rand_new_with_seed(28);

    for (unsigned i = 0; i < 400; i++) {
        bool inflate = g_rand_boolean(rand);
        g_autoptr(HpbReq) r = inflate ? hpb_inflate(h) : hpb_deflate(h);
        unsigned at = g_rand_int_range(rand, first, units - 1);
        unsigned n = g_rand_int_range(rand, 1, MIN(units - at, 600) + 1);
        uint64_t sum[2] = { 0 }, done = 0;

        hpb_ask(hpb_range(hpb_room(r, 1000), at * h->unit, n * h->unit));
        for (unsigned j = at; j < at + n; j++) {
            done += out[j] != inflate;
            out[j] = inflate;
        }
        g_assert_cmphex(r->done, ==, done * h->unit);
        for (unsigned j = 0; j < units; j++) {
            sum[j >= units / 2] += out[j];
        }
        g_assert_cmphex(CFG_NODE(h, 0, actual), ==, sum[0] * h->unit);
        g_assert_cmphex(CFG_NODE(h, 1, actual), ==, sum[1] * h->unit);
        g_assert_cmphex(HPB_CFG(h, actual), ==, (sum[0] + sum[1]) * h->unit);
        h->heap = HPB_LOW_START + MiB;
        if (i % 100 == 99) {
            hpb_driver_init(h, FEATURES);
            memset(out, 0, units);
            check_node(h, 0, NODE, 0, ANY);
            check_node(h, 1, NODE, 0, ANY);
        }
    }
    hpb_quit(h);
}

/* A DIMM is memory of the node it says, as long as it is plugged */
static void test_dimm(void)
{
    Hpb *h = boot("-m 256M,slots=2,maxmem=1G " BACKENDS NODES
                  "-object memory-backend-ram,id=d0,size=64M", "");
    uint64_t dimm = 4 * GiB, more = NODE + 64 * MiB;

    set_two(h->qts, NODE, NODE - 8 * h->unit);
    qtest_qmp_device_add(h->qts, "pc-dimm", "dimm0",
                         "{ 'memdev': 'd0', 'node': 1 }");
    /* as with the guest as a whole: what shall be out stays, the node grows */
    check_node(h, 0, NODE, 0, 0);
    check_node(h, 1, more, 0, 8 * h->unit);
    hpb_take(h, dimm, 4 * h->unit);
    hpb_take(h, SECOND, h->unit);
    check_node(h, 1, more, 5 * h->unit, 8 * h->unit);
    /* more than the node has without it */
    set_two(h->qts, NODE, 16 * MiB);
    check_node(h, 1, more, 5 * h->unit, more - 16 * MiB);
    hpb_isr(h);

    qtest_qmp_device_del_send(h->qts, "dimm0");
    qtest_outl(h->qts, 0xa00, 0);
    qtest_outb(h->qts, 0xa14, 8);
    qtest_qmp_eventwait(h->qts, "DEVICE_DELETED");
    check_node(h, 0, NODE, 0, 0);
    check_node(h, 1, NODE, h->unit, NODE);
    g_assert_cmphex(HPB_CFG(h, requested), ==, NODE);
    g_assert_true(hpb_isr(h) & HPB_ISR_CONFIG);
    hpb_quit(h);
}

/* DEV-27: targets by node go with the guest; and a state without them loads */
static void test_migrate(void)
{
    static const struct { const char *from, *to; bool target; } trips[] = {
        { "", "", true }, { "", "", false },
        { ",node-targets=off", "", false }, { "", ",node-targets=off", false },
    };

    for (unsigned i = 0; i < ARRAY_SIZE(trips); i++) {
        g_autofree char *args = g_strdup_printf(HPB_PC TWO HPB_DEV_PCI "%s",
                                                trips[i].to);
        Hpb *h = hpb_boot_mem(TWO, trips[i].from);
        bool target = trips[i].target;
        uint64_t asked = target ? 9 * h->unit : ANY;
        HpbDir d;

        /* a driver that has the feature cannot go where it is not */
        hpb_driver_init(h, *trips[i].to ? HPB_FEATURES : FEATURES);
        hpb_qmp_balloon(h, RAM - 9 * h->unit);
        if (target) {
            set_two(h->qts, NODE, NODE - 9 * h->unit);
        }
        hpb_take(h, SECOND - h->unit, 4 * h->unit);
        hpb_dir_init(&d);
        hpb_move(h, hpb_start_incoming(args, &d), &d);
        hpb_check_out(h, RAM, 4 * h->unit);
        g_assert_cmphex(HPB_CFG(h, requested), ==, 9 * h->unit);
        if (!*trips[i].to) {
            check_node(h, 0, NODE, h->unit, target ? 0 : ANY);
            check_node(h, 1, NODE, 3 * h->unit, asked);
        }
        hpb_quit(h);
        hpb_dir_done(&d);
    }
}

/* A target that is set before the state comes is newer, of either kind */
static void test_target_before_state(void)
{
    for (unsigned nodes = 0; nodes < 2; nodes++) {
        Hpb *h = boot(TWO, "");
        QTestState *to;
        HpbDir d;

        hpb_dir_init(&d);
        if (nodes) {
            hpb_qmp_balloon(h, RAM - 9 * h->unit);
        } else {
            set_two(h->qts, NODE, NODE - 9 * h->unit);
        }
        to = hpb_start_incoming(HPB_PC TWO HPB_DEV_PCI, &d);
        if (nodes) {
            set_two(to, NODE - 2 * h->unit, NODE - 3 * h->unit);
        } else {
            qtest_qmp_assert_success(to, "{ 'execute': 'balloon', 'arguments':"
                                     " { 'value': %" PRIu64 " } }",
                                     RAM - 5 * h->unit);
        }
        hpb_move(h, to, &d);
        g_assert_cmphex(HPB_CFG(h, requested), ==, 5 * h->unit);
        check_node(h, 0, NODE, 0, nodes ? 2 * h->unit : ANY);
        check_node(h, 1, NODE, 0, nodes ? 3 * h->unit : ANY);
        hpb_quit(h);
        hpb_dir_done(&d);
    }
}

/* DEV-27: targets of nodes that this machine does not have */
static void test_misfit(void)
{
    static const char *const others[] = {
        HPB_PC TWO "-numa node " HPB_DEV_PCI,
        HPB_PC TWO HPB_DEV_PCI ",node-targets=off",
    };

    for (unsigned i = 0; i < ARRAY_SIZE(others); i++) {
        Hpb *h = hpb_boot_mem(TWO, "");
        g_autofree char *said = NULL;
        QTestState *to;
        HpbDir d;

        /* no driver: else its features would not fit first */
        hpb_reset(h);
        set_two(h->qts, NODE, NODE - 9 * h->unit);
        hpb_dir_init(&d);
        qtest_qmp_assert_success(h->qts, "{ 'execute': 'stop' }");
        hpb_migrate(h->qts, d.file_uri);
        g_assert_true(hpb_migration_ended(h->qts));
        to = hpb_start_incoming(others[i], &d);
        hpb_incoming(to, d.file_uri);
        g_assert_false(hpb_migration_ended(to));
        qtest_quit(to);
        g_assert_true(g_file_get_contents(d.log, &said, NULL, NULL));
        g_test_message("%s", said);
        g_assert_nonnull(strstr(said, "targets of 2 NUMA nodes"));
        hpb_quit(h);
        hpb_dir_done(&d);
    }
}

#define ADD(name, fn) qtest_add_func("virtio-balloon-hp/nodes/" name, fn)

void hpb_add_nodes_tests(void)
{
    ADD("DEV-28-offered", test_offered);
    ADD("DEV-29-targets", test_targets);
    ADD("DEV-29-rounding", test_rounding);
    ADD("errors", test_errors);
    ADD("DEV-30-any-node", test_any_node);
    ADD("DEV-7-read-only", test_read_only);
    ADD("DEV-28-accounting", test_accounting);
    ADD("dimm", test_dimm);
    ADD("DEV-27-migrate", test_migrate);
    ADD("target-before-state", test_target_before_state);
    ADD("DEV-27-misfit", test_misfit);
}
