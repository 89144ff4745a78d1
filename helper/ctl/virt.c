/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: a connection to libvirt
 *
 * Not a step of the data path. libvirt's calls block, for as long as a daemon,
 * a QEMU behind it or a network is silent. So they are made by a thread of the
 * connection, one after the other, and the main thread waits for each with a
 * limit and for signals. A call that is late is left to its thread, and what it
 * returns is dropped, as a late answer on a QMP socket is; another thread makes
 * the next calls, which may be about a domain that is well. One more thread
 * runs libvirt's event loop: with it keepalive finds a dead daemon, and events
 * tell of a domain that ended. Signals are blocked in all of them, they are for
 * the main thread (interrupt.c).
 *
 * Rejected: calls from the main thread and a signal to get out of them, since
 * libvirt goes on after EINTR; ending the event loop, which nobody needs in a
 * program that does one thing.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "virt.h"

/* Of the time that an answer may take, until a silent daemon counts as dead */
#define KEEPALIVE_PARTS 5
#define KEEPALIVE_TRIES 3

struct HpbctlVirt {
    int refs;                   /* main thread */
    char *uri;
    unsigned command_ms;
    int fd;                     /* eventfd: look again */
    gboolean late;              /* a job was not waited for to the end */
    GAsyncQueue *jobs;
    GThread *worker;
    virConnectPtr conn;         /* the worker's, once it runs */
    HpbctlVirtWatch *closed;    /* reason why the connection ended */
};

/*
 * All watches for the end of connections, for ever: drivers that have no such
 * callback forget it without a word, and with it when to free what it is given.
 */
static GSList *all_closed;

static gint64 now_ms(void)
{
    return g_get_monotonic_time() / 1000;
}

static void tell(int fd)
{
    const guint64 one = 1;

    /* Cannot fail but by 2^64 of them, and then somebody has been told */
    if (write(fd, &one, sizeof(one)) < 0) {
        g_assert(errno == EAGAIN);
    }
}

static void forget(int fd)
{
    guint64 count;

    if (read(fd, &count, sizeof(count)) < 0) {
        g_assert(errno == EAGAIN);
    }
}

HpbctlVirtWatch *hpbctl_virt_watch_new(const HpbctlVirt *v)
{
    HpbctlVirtWatch *watch = g_new0(HpbctlVirtWatch, 1);

    watch->refs = 1;
    watch->fd = dup(v->fd);
    g_assert(watch->fd >= 0);
    return watch;
}

HpbctlVirtWatch *hpbctl_virt_watch_ref(HpbctlVirtWatch *watch)
{
    g_atomic_int_inc(&watch->refs);
    return watch;
}

void hpbctl_virt_watch_unref(gpointer data)
{
    HpbctlVirtWatch *watch = data;

    if (watch && g_atomic_int_dec_and_test(&watch->refs)) {
        close(watch->fd);
        g_free(watch);
    }
}

void hpbctl_virt_watch_wake(HpbctlVirtWatch *watch)
{
    tell(watch->fd);
}

void hpbctl_virt_watch_tell(HpbctlVirtWatch *watch, int number)
{
    g_atomic_int_set(&watch->happened, number + 1);
    tell(watch->fd);
}

HpbctlVirtJob *hpbctl_virt_job_new(HpbctlVirtFunc *run, virDomainPtr domain)
{
    HpbctlVirtJob *job = g_new0(HpbctlVirtJob, 1);

    job->refs = 1;
    job->run = run;
    if (domain && !virDomainRef(domain)) {
        job->domain = domain;
    }
    return job;
}

void hpbctl_virt_job_unref(HpbctlVirtJob *job)
{
    if (!job || !g_atomic_int_dec_and_test(&job->refs)) {
        return;
    }
    if (job->domain) {
        virDomainFree(job->domain);
    }
    for (virDomainPtr *d = job->domains; d && *d; d++) {
        virDomainFree(*d);
    }
    free(job->domains);
    free(job->result);
    g_free(job->text);
    if (job->free_data) {
        job->free_data(job->data);
    }
    virFreeError(job->error);
    g_free(job);
}

static gpointer run_events(gpointer data G_GNUC_UNUSED)
{
    for (;;) {
        virEventRunDefaultImpl();
    }
    return NULL;
}

static int close_connection(virConnectPtr conn,
                            HpbctlVirtJob *job G_GNUC_UNUSED);

static gpointer run_jobs(gpointer data)
{
    HpbctlVirt *v = data;
    gboolean last;

    do {
        HpbctlVirtJob *job = g_async_queue_pop(v->jobs);

        last = job->run == close_connection;
        virResetLastError();
        if (job->run(v->conn, job) < 0) {
            job->error = virSaveLastError();
            job->lost = v->conn && virConnectIsAlive(v->conn) == 0;
        }
        g_atomic_int_set(&job->done, 1);
        tell(v->fd);
        hpbctl_virt_job_unref(job);
    } while (!last);
    return NULL;
}

/* A thread that no signal goes to */
static GThread *start_thread(const char *name, GThreadFunc function,
                             gpointer data)
{
    sigset_t all, before;
    GThread *thread;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread = g_thread_new(name, function, data);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return thread;
}

static void push(HpbctlVirt *v, HpbctlVirtJob *job)
{
    g_atomic_int_inc(&job->refs);
    g_async_queue_push(v->jobs, job);
}

/* 1: @job is done, 0: not in time, -1: interrupted */
static int wait_job(HpbctlVirt *v, HpbctlVirtJob *job, unsigned ms)
{
    gint64 end = now_ms() + ms;
    int ready = 1;

    for (;;) {
        forget(v->fd);
        if (g_atomic_int_get(&job->done) || ready <= 0) {
            break;
        }
        ready = hpbctl_interrupt_poll(v->fd, POLLIN, MAX(end - now_ms(), 0));
    }
    if (g_atomic_int_get(&job->done)) {
        return 1;
    }
    /* Its thread may never come back: the next jobs get another one */
    v->late = TRUE;
    g_thread_unref(start_thread("libvirt", run_jobs, v));
    return ready;
}

static void set_lost(const HpbctlVirt *v, GError **err)
{
    const char *why = "";

    switch (g_atomic_int_get(&v->closed->happened) - 1) {
    case VIR_CONNECT_CLOSE_REASON_KEEPALIVE:
        why = ", its daemon no longer answers";
        break;
    case VIR_CONNECT_CLOSE_REASON_EOF:
        why = ", its daemon has ended";
        break;
    default:
        break;
    }
    g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_LOST,
                "%s: the connection to libvirt is lost%s; its VMs go on: look "
                "after libvirt's daemon, then try again", v->uri, why);
}

static gboolean is_lost(const HpbctlVirt *v)
{
    return g_atomic_int_get(&v->closed->happened) != 0;
}

static gboolean is_denied(const virError *e)
{
    return e->code == VIR_ERR_ACCESS_DENIED ||
           e->code == VIR_ERR_OPERATION_DENIED ||
           e->code == VIR_ERR_AUTH_FAILED ||
           e->code == VIR_ERR_AUTH_CANCELLED ||
           e->code == VIR_ERR_AUTH_UNAVAILABLE ||
           (e->code == VIR_ERR_SYSTEM_ERROR && e->int1 == EACCES);
}

static void set_virt_error(const HpbctlVirt *v, const HpbctlVirtJob *job,
                           const char *where, const char *what, GError **err)
{
    const virError *e = job->error;

    if (job->lost || is_lost(v)) {
        set_lost(v, err);
    } else if (!e) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_COMMAND, "%s: %s failed, "
                    "and libvirt says no reason", where, what);
    } else if (is_denied(e)) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_CONNECT,
                    "%s: %s: %s; run this as a user who may manage domains "
                    "(root, or a member of the group libvirt)", where, what,
                    e->message);
    } else if (e->code == VIR_ERR_RPC) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_UNSUPPORTED,
                    "%s: %s: %s; libvirt passes no answer of more than 4 MiB: "
                    "for those give QEMU a QMP socket of its own", where, what,
                    e->message);
    } else if (e->code == VIR_ERR_NO_SUPPORT) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_UNSUPPORTED,
                    "%s: %s: not with the connection %s; give --connect a "
                    "connection to QEMU (qemu:///system)", where, what, v->uri);
    } else {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_COMMAND, "%s: %s: %s",
                    where, what, e->message);
    }
}

gboolean hpbctl_virt_call(HpbctlVirt *v, HpbctlVirtJob *job, const char *where,
                          const char *what, GError **err)
{
    int ret;

    push(v, job);
    ret = wait_job(v, job, v->command_ms);
    if (ret < 0) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_INTERRUPTED,
                    "%s: interrupted", where);
        return FALSE;
    }
    if (!ret && is_lost(v)) {
        set_lost(v, err);
        return FALSE;
    }
    if (!ret) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_TIMEOUT,
                    "%s: no answer to '%s' within %g s; QEMU or libvirt's "
                    "daemon hangs, or libvirt does something else with the "
                    "domain ('virsh domjobinfo'); --answer waits longer",
                    where, what, v->command_ms / 1000.0);
        return FALSE;
    }
    if (job->error || job->lost) {
        set_virt_error(v, job, where, what, err);
        return FALSE;
    }
    return TRUE;
}

void hpbctl_virt_later(HpbctlVirt *v, HpbctlVirtJob *job)
{
    push(v, job);
}

gboolean hpbctl_virt_wait(HpbctlVirt *v, unsigned ms, GError **err)
{
    int ready = 0;

    if (!is_lost(v)) {
        ready = hpbctl_interrupt_poll(v->fd, POLLIN, ms);
        forget(v->fd);
    }
    if (is_lost(v)) {
        set_lost(v, err);
        return FALSE;
    }
    if (ready < 0) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_INTERRUPTED,
                    "%s: interrupted", v->uri);
        return FALSE;
    }
    return TRUE;
}

static void on_close(virConnectPtr conn G_GNUC_UNUSED, int reason, void *watch)
{
    hpbctl_virt_watch_tell(watch, reason);
}

/* text: the URI; data: the connection; number: seconds between keepalives */
static int open_connection(virConnectPtr conn G_GNUC_UNUSED, HpbctlVirtJob *job)
{
    HpbctlVirt *v = job->data;

    v->conn = virConnectOpen(job->text);
    if (!v->conn) {
        return -1;
    }
    /* Drivers without a daemon can do neither, and need neither */
    virConnectRegisterCloseCallback(v->conn, on_close, v->closed, NULL);
    virConnectSetKeepAlive(v->conn, (int)job->number, KEEPALIVE_TRIES);
    job->result = virConnectGetURI(v->conn);
    return 0;
}

static int close_connection(virConnectPtr conn,
                            HpbctlVirtJob *job G_GNUC_UNUSED)
{
    if (conn) {
        virConnectUnregisterCloseCallback(conn, on_close);
        virConnectClose(conn);
    }
    return 0;
}

static void be_quiet(void *data G_GNUC_UNUSED, virErrorPtr e G_GNUC_UNUSED)
{
}

/* Once, before the first connection */
static gpointer start_libvirt(gpointer data G_GNUC_UNUSED)
{
    /* Else it prints each error itself */
    virSetErrorFunc(NULL, be_quiet);
    if (virInitialize() < 0 || virEventRegisterDefaultImpl() < 0) {
        return NULL;
    }
    return start_thread("events", run_events, NULL);
}

static void set_open_error(const char *uri, const virError *e, GError **err)
{
    const char *hint =
        !e ? "libvirt says no reason" :
        is_denied(e) ? "run this as root or a member of the group libvirt" :
        e->code == VIR_ERR_SYSTEM_ERROR ?
        "is the host right, and libvirt's daemon running there?" :
        "give --connect a connection of libvirt, as qemu:///system";

    g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_CONNECT,
                "%s: cannot connect: %s; %s", uri, e ? e->message : "failed",
                hint);
}

static gboolean connect_in_time(HpbctlVirt *v, const HpbctlContext *ctx,
                                GError **err)
{
    g_autoptr(HpbctlVirtJob) job = hpbctl_virt_job_new(open_connection, NULL);
    int ret;

    job->text = g_strdup(ctx->uri);
    job->data = v;
    job->number = MAX(ctx->command_ms / 1000 / KEEPALIVE_PARTS, 1);
    push(v, job);
    ret = wait_job(v, job, ctx->connect_ms);
    if (ret < 0) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_INTERRUPTED,
                    "%s: interrupted", v->uri);
    } else if (!ret) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_TIMEOUT,
                    "%s: no connection within %g s; libvirt's daemon hangs, or "
                    "the way to it is slow: --answer waits longer", v->uri,
                    ctx->connect_ms / 1000.0);
    } else if (job->error) {
        set_open_error(v->uri, job->error, err);
    } else {
        if (job->result) {
            g_free(v->uri);
            v->uri = g_strdup(job->result);
        }
        return TRUE;
    }
    return FALSE;
}

HpbctlVirt *hpbctl_virt_open(const HpbctlContext *ctx, GError **err)
{
    static GOnce started = G_ONCE_INIT;
    HpbctlVirt *v;

    if (!g_once(&started, start_libvirt, NULL)) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_CONNECT,
                    "libvirt's library cannot be used: %s",
                    virGetLastErrorMessage());
        return NULL;
    }
    v = g_new0(HpbctlVirt, 1);
    v->refs = 1;
    v->uri = g_strdup(ctx->uri && *ctx->uri ? ctx->uri : "libvirt");
    v->command_ms = ctx->command_ms;
    v->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g_assert(v->fd >= 0);
    v->closed = hpbctl_virt_watch_new(v);
    all_closed = g_slist_prepend(all_closed, v->closed);
    v->jobs = g_async_queue_new();
    v->worker = start_thread("libvirt", run_jobs, v);
    if (!connect_in_time(v, ctx, err)) {
        hpbctl_virt_unref(v);
        return NULL;
    }
    return v;
}

HpbctlVirt *hpbctl_virt_ref(HpbctlVirt *v)
{
    v->refs++;
    return v;
}

void hpbctl_virt_unref(HpbctlVirt *v)
{
    g_autoptr(HpbctlVirtJob) job = NULL;

    if (!v || --v->refs) {
        return;
    }
    /* Threads that hang in a call keep what they use; the program ends soon */
    if (v->late) {
        return;
    }
    job = hpbctl_virt_job_new(close_connection, NULL);
    push(v, job);
    if (wait_job(v, job, v->command_ms) <= 0) {
        return;
    }
    g_thread_join(v->worker);
    g_async_queue_unref(v->jobs);
    close(v->fd);
    g_free(v->uri);
    g_free(v);
}

const char *hpbctl_virt_uri(const HpbctlVirt *v)
{
    return v->uri;
}
