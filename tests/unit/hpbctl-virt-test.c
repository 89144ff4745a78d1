/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of helper/ctl/virt*.c with libvirt's test driver, which lives in
 * this process: domains are found and end, calls are late, signals come.
 */
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include "virt.h"

#define URI "test:///default"
#define GIB ((guint64)1 << 30)
#define LATE_MS 200

static const HpbctlContext ctx = {
    .place = HPBCTL_PLACE_LIBVIRT, .uri = URI, .connect_ms = 20000,
    .command_ms = 20000,
};

static HpbctlVirt *open_virt(const HpbctlContext *how)
{
    g_autoptr(GError) err = NULL;
    HpbctlVirt *v = hpbctl_virt_open(how, &err);

    g_assert_no_error(err);
    g_assert_nonnull(v);
    return v;
}

/* The same state as the one under test has, by another connection */
static virDomainPtr own_domain(virConnectPtr *conn)
{
    virDomainPtr domain;

    *conn = virConnectOpen(URI);
    g_assert_nonnull(*conn);
    domain = virDomainLookupByName(*conn, "test");
    g_assert_nonnull(domain);
    return domain;
}

static void own_close(virConnectPtr conn, virDomainPtr domain)
{
    virDomainFree(domain);
    virConnectClose(conn);
}

static HpbctlTransport *connect_test(HpbctlVirt *v)
{
    g_autoptr(GError) err = NULL;
    HpbctlVirtDomain *d = hpbctl_virt_find(v, "test", &err);
    HpbctlTransport *t;

    g_assert_no_error(err);
    t = hpbctl_virt_connect(v, d, &err);
    g_assert_no_error(err);
    return t;
}

static void assert_message(const GError *err, const char *words)
{
    if (!strstr(err->message, words)) {
        g_test_message("'%s' is not in: %s", words, err->message);
        g_test_fail();
    }
}

static void test_find(void)
{
    g_autoptr(HpbctlVirt) v = open_virt(&ctx);
    g_autoptr(GError) err = NULL;
    g_autoptr(HpbctlVirtDomain) by_name = hpbctl_virt_find(v, "test", &err);
    g_autoptr(HpbctlVirtDomain) by_uuid = NULL;
    g_autoptr(HpbctlVirtDomain) by_id = NULL;
    g_autoptr(GPtrArray) all = NULL;
    g_autofree char *id = NULL;
    guint64 bytes = 0;

    g_assert_no_error(err);
    g_assert_cmpstr(hpbctl_virt_uri(v), ==, URI);
    id = g_strdup_printf("%d", by_name->id);
    by_uuid = hpbctl_virt_find(v, by_name->uuid, &err);
    g_assert_no_error(err);
    by_id = hpbctl_virt_find(v, id, &err);
    g_assert_no_error(err);
    g_assert_cmpstr(by_uuid->name, ==, "test");
    g_assert_cmpstr(by_id->uuid, ==, by_name->uuid);
    all = hpbctl_virt_list(v, &err);
    g_assert_no_error(err);
    g_assert_cmpuint(all->len, ==, 1);
    g_assert_true(hpbctl_virt_memory(v, by_id, &bytes, &err));
    g_assert_cmpuint(bytes, ==, 8 * GIB);
}

static void test_not_there(void)
{
    static const char *const names[] = {
        "nix", "", "99999", "99999999999999999999", "-1",
        "00000000-0000-0000-0000-000000000000",
    };
    g_autoptr(HpbctlVirt) v = open_virt(&ctx);
    HpbctlContext nowhere = ctx;
    g_autoptr(GError) no_file = NULL;

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autoptr(GError) err = NULL;

        g_assert_null(hpbctl_virt_find(v, names[i], &err));
        g_assert_error(err, HPBCTL_ERROR, HPBCTL_ERROR_CONNECT);
        assert_message(err, "list' shows");
    }
    nowhere.uri = "test:///nonexistent";
    g_assert_null(hpbctl_virt_open(&nowhere, &no_file));
    g_assert_error(no_file, HPBCTL_ERROR, HPBCTL_ERROR_CONNECT);
    assert_message(no_file, "test:///nonexistent: cannot connect");
}

/* A driver without QEMU */
static void test_no_qemu(void)
{
    g_autoptr(HpbctlVirt) v = open_virt(&ctx);
    g_autoptr(HpbctlTransport) t = connect_test(v);
    g_autoptr(GError) err = NULL;
    JsonObject *arguments = json_object_new();

    json_object_set_string_member(arguments, "path", "/");
    g_assert_null(hpbctl_execute(t, "qom-list", arguments, &err));
    g_assert_error(err, HPBCTL_ERROR, HPBCTL_ERROR_UNSUPPORTED);
}

static void expect_size(HpbctlTransport *t, guint64 asked, guint64 kib)
{
    g_autoptr(GError) err = NULL;
    virConnectPtr conn;
    virDomainPtr domain = own_domain(&conn);
    virDomainInfo info;

    g_assert_true(hpbctl_balloon(t, asked, &err));
    g_assert_no_error(err);
    g_assert_cmpint(virDomainGetInfo(domain, &info), ==, 0);
    g_assert_cmpuint(info.memory, ==, kib);
    own_close(conn, domain);
}

/* Never less than asked for, and all there is for more than that */
static void test_balloon(void)
{
    g_autoptr(HpbctlVirt) v = open_virt(&ctx);
    g_autoptr(HpbctlTransport) t = connect_test(v);

    expect_size(t, GIB, 1 << 20);
    expect_size(t, GIB + 1, (1 << 20) + 1);
    expect_size(t, 100 * GIB, 8 << 20);
    expect_size(t, 2 * GIB, 2 << 20);
}

static int block(virConnectPtr conn G_GNUC_UNUSED, HpbctlVirtJob *job)
{
    char c;

    return read(GPOINTER_TO_INT(job->data), &c, 1) == 1 ? 0 : -1;
}

/* Calls that hang are left to themselves; others are made meanwhile. */
static void test_late(void)
{
    HpbctlContext impatient = ctx;
    g_autoptr(HpbctlVirt) v = NULL;
    g_autoptr(HpbctlVirtDomain) d = NULL;
    g_autoptr(GError) err = NULL;
    int fds[2];

    g_assert_cmpint(pipe(fds), ==, 0);
    impatient.command_ms = LATE_MS;
    v = open_virt(&impatient);
    for (unsigned i = 0; i < 2; i++) {
        g_autoptr(HpbctlVirtJob) job = hpbctl_virt_job_new(block, NULL);
        g_autoptr(GError) late = NULL;

        job->data = GINT_TO_POINTER(fds[0]);
        g_assert_false(hpbctl_virt_call(v, job, "here", "hang", &late));
        g_assert_error(late, HPBCTL_ERROR, HPBCTL_ERROR_TIMEOUT);
        assert_message(late, "no answer to 'hang' within 0.2 s");
    }
    /* 200 ms can be short on a busy machine */
    for (unsigned i = 0; i < 100 && !d; i++) {
        g_clear_error(&err);
        d = hpbctl_virt_find(v, "test", &err);
    }
    g_assert_no_error(err);
    g_assert_cmpint(write(fds[1], "12", 2), ==, 2);
    close(fds[0]);
    close(fds[1]);
}

/* Closing does not wait for a call that hangs. */
static void test_close_while_late(void)
{
    HpbctlContext impatient = ctx;
    g_autoptr(HpbctlVirtJob) job = hpbctl_virt_job_new(block, NULL);
    g_autoptr(GError) err = NULL;
    HpbctlVirt *v;
    int fds[2];

    g_assert_cmpint(pipe(fds), ==, 0);
    v = open_virt(&impatient);
    hpbctl_virt_unref(v);
    impatient.command_ms = LATE_MS;
    v = open_virt(&impatient);
    job->data = GINT_TO_POINTER(fds[0]);
    g_assert_false(hpbctl_virt_call(v, job, "here", "hang", &err));
    hpbctl_virt_unref(v);
    g_assert_false(g_atomic_int_get(&job->done));
    /* Let its thread go on; it has what it needs, and waits for more calls */
    g_assert_cmpint(write(fds[1], "1", 1), ==, 1);
}

/* A signal is for the thread that waits, whatever threads there are. */
static void test_interrupted(void)
{
    g_autoptr(HpbctlVirt) v = open_virt(&ctx);
    g_autoptr(HpbctlTransport) t = connect_test(v);
    g_autoptr(GError) err = NULL;
    gint64 begin;

    /* Registers for events, which is then done */
    g_assert_true(hpbctl_wait(t, 1, &err));
    hpbctl_interrupt_arm();
    g_assert_cmpint(kill(getpid(), SIGINT), ==, 0);
    begin = g_get_monotonic_time();
    while (!err && hpbctl_wait(t, 60000, &err)) {
        g_assert_cmpint(g_get_monotonic_time() - begin, <,
                        (gint64)60 * G_USEC_PER_SEC);
    }
    g_assert_error(err, HPBCTL_ERROR, HPBCTL_ERROR_INTERRUPTED);
    g_assert_true(hpbctl_interrupt_taken());
}

/* Last: the driver's only domain is shut off afterwards. */
static void test_gone(void)
{
    g_autoptr(HpbctlVirt) v = open_virt(&ctx);
    g_autoptr(HpbctlVirt) other = open_virt(&ctx);
    g_autoptr(HpbctlTransport) t = connect_test(v);
    g_autoptr(HpbctlTransport) unwatched = connect_test(other);
    g_autoptr(GError) err = NULL;
    g_autoptr(GError) again = NULL;
    g_autoptr(GError) later = NULL;
    g_autoptr(GError) off = NULL;
    HpbctlVirtDomain *d;
    virConnectPtr conn;
    virDomainPtr domain = own_domain(&conn);

    g_assert_true(hpbctl_wait(t, 1, &err));
    g_assert_cmpint(virDomainDestroy(domain), ==, 0);
    while (!err) {
        hpbctl_wait(t, 60000, &err);
    }
    g_assert_error(err, HPBCTL_ERROR, HPBCTL_ERROR_GONE);
    assert_message(err, "domain 'test' was destroyed; the VM is gone");
    g_assert_false(hpbctl_balloon(t, GIB, &again));
    g_assert_error(again, HPBCTL_ERROR, HPBCTL_ERROR_GONE);
    /* One that had no reason to look before */
    g_assert_false(hpbctl_balloon(unwatched, GIB, &later));
    g_assert_error(later, HPBCTL_ERROR, HPBCTL_ERROR_GONE);
    d = hpbctl_virt_find(v, "test", &off);
    g_assert_no_error(off);
    g_assert_null(hpbctl_virt_connect(v, d, &off));
    g_assert_error(off, HPBCTL_ERROR, HPBCTL_ERROR_CONNECT);
    assert_message(off, "'virsh start test'");
    own_close(conn, domain);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/hpbctl/virt/find", test_find);
    g_test_add_func("/hpbctl/virt/not-there", test_not_there);
    g_test_add_func("/hpbctl/virt/no-qemu", test_no_qemu);
    g_test_add_func("/hpbctl/virt/balloon", test_balloon);
    g_test_add_func("/hpbctl/virt/late", test_late);
    g_test_add_func("/hpbctl/virt/close-while-late", test_close_while_late);
    g_test_add_func("/hpbctl/virt/interrupted", test_interrupted);
    g_test_add_func("/hpbctl/virt/gone", test_gone);
    return g_test_run();
}
