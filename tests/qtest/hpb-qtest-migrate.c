/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Driver side of virtio-balloon-hp for qtest: moving the machine
 *
 * Theory of operation: hpb-qtest.h. Two QEMUs and a unix socket, or a file in
 * between; each QEMU is asked for the state of its migration until that ends.
 */

#include "qemu/osdep.h"
#include "qemu/units.h"
#include "qapi/error.h"
#include "qobject/qdict.h"
#include "qobject/qjson.h"
#include "hpb-qtest-migrate.h"

void hpb_dir_init(HpbDir *d)
{
    d->path = g_dir_make_tmp("hpb-qtest-XXXXXX", NULL);
    g_assert_nonnull(d->path);
    d->sock = g_build_filename(d->path, "sock", NULL);
    d->file = g_build_filename(d->path, "state", NULL);
    d->log = g_build_filename(d->path, "log", NULL);
    d->uri = g_strdup_printf("unix:%s", d->sock);
    d->file_uri = g_strdup_printf("file:%s", d->file);
}

void hpb_dir_done(HpbDir *d)
{
    unlink(d->sock);
    unlink(d->file);
    unlink(d->log);
    rmdir(d->path);
    g_free(d->path);
    g_free(d->sock);
    g_free(d->file);
    g_free(d->log);
    g_free(d->uri);
    g_free(d->file_uri);
}

QTestState *hpb_start_incoming(const char *args, HpbDir *d)
{
    return qtest_initf("%s -incoming defer 2>%s", args, d->log);
}

void hpb_incoming(QTestState *to, const char *uri)
{
    qtest_qmp_assert_success(to, "{ 'execute': 'migrate-incoming', "
                             "'arguments': { 'uri': %s, "
                             "'exit-on-error': false } }", uri);
}

char *hpb_migration_status(QTestState *qts)
{
    QDict *rsp = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'query-migrate' }");
    char *status = g_strdup(qdict_get_try_str(rsp, "status") ?: "none");

    qobject_unref(rsp);
    return status;
}

/* Wait until the migration of @qts has ended; true if it worked */
bool hpb_migration_ended(QTestState *qts)
{
    gint64 start = g_get_monotonic_time();

    for (;;) {
        g_autofree char *status = hpb_migration_status(qts);

        if (!strcmp(status, "completed")) {
            return true;
        }
        if (!strcmp(status, "failed")) {
            return false;
        }
        g_assert_cmpint(g_get_monotonic_time() - start, <, HPB_TIMEOUT_US);
    }
}

void hpb_migrate(QTestState *from, const char *uri)
{
    qtest_qmp_assert_success(from, "{ 'execute': 'migrate', 'arguments': "
                             "{ 'uri': %s } }", uri);
}

void hpb_wait_running(QTestState *qts, bool running)
{
    gint64 start = g_get_monotonic_time();
    bool is;

    do {
        QDict *rsp = qtest_qmp_assert_success_ref(
            qts, "{ 'execute': 'query-status' }");

        is = qdict_get_bool(rsp, "running");
        qobject_unref(rsp);
        g_assert_cmpint(g_get_monotonic_time() - start, <, HPB_TIMEOUT_US);
    } while (is != running);
}

void hpb_migrate_parameter(QTestState *qts, const char *name, uint64_t value)
{
    g_autofree char *cmd = g_strdup_printf(
        "{ 'execute': 'migrate-set-parameters', "
        "'arguments': { '%s': %" PRIu64 " } }", name, value);
    QDict *rsp = qtest_qmp(qts, "%p", qobject_from_json(cmd, &error_abort));

    g_assert_true(qdict_haskey(rsp, "return"));
    qobject_unref(rsp);
}

void hpb_migrate_capability(QTestState *qts, const char *name)
{
    qtest_qmp_assert_success(qts, "{ 'execute': 'migrate-set-capabilities', "
                             "'arguments': { 'capabilities': [ "
                             "{ 'capability': %s, 'state': true } ] } }",
                             name);
}

uint64_t hpb_migrate_stat(QTestState *qts, const char *name)
{
    QDict *rsp = qtest_qmp_assert_success_ref(
        qts, "{ 'execute': 'query-migrate' }");
    uint64_t value = 0;

    if (qdict_haskey(rsp, "ram")) {
        QDict *ram = qdict_get_qdict(rsp, "ram");

        g_assert_true(qdict_haskey(ram, name));
        value = qdict_get_int(ram, name);
    }
    qobject_unref(rsp);
    return value;
}

void hpb_move_start(Hpb *h, QTestState *to, HpbDir *d, uint64_t bandwidth)
{
    hpb_incoming(to, d->uri);
    hpb_migrate_parameter(h->qts, "max-bandwidth", bandwidth);
    hpb_migrate(h->qts, d->uri);
}

void hpb_wait_sent(Hpb *h, uint64_t bytes)
{
    while (hpb_migrate_stat(h->qts, "transferred") < bytes) {
        g_autofree char *status = hpb_migration_status(h->qts);

        g_assert_cmpstr(status, !=, "completed");
        g_assert_cmpstr(status, !=, "failed");
    }
}

void hpb_move_finish(Hpb *h, QTestState *to)
{
    hpb_migrate_parameter(h->qts, "max-bandwidth", 10 * GiB);
    g_assert_true(hpb_migration_ended(h->qts));
    g_assert_true(hpb_migration_ended(to));
    hpb_migrated(h, to);
}

void hpb_move(Hpb *h, QTestState *to, HpbDir *d)
{
    hpb_move_start(h, to, d, 10 * GiB);
    hpb_move_finish(h, to);
}
