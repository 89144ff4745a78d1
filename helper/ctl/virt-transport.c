/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: QMP commands to a domain of libvirt
 *
 * Steps [1] and [7] of the data path are asked for and looked at from outside,
 * as on a QMP socket. libvirt keeps QEMU's monitor and passes commands on; it
 * marks the domain as tainted once, which changes nothing for the guest. The
 * size of the whole guest is set by libvirt's own call, so that what libvirt
 * knows stays right.
 *
 * That a domain ended is told by an event; a call that fails because of it may
 * be answered before, so the event is then waited for.
 */
#include <string.h>
#include <libvirt/libvirt-qemu.h>
#include "virt.h"

#define GONE_MS 2000            /* from a monitor that is closed to the event */
#define HOW_UNKNOWN 999         /* no detail of libvirt's: it was not seen */

typedef struct VirtTransport {
    HpbctlTransport parent;     /* first */
    HpbctlVirt *virt;
    HpbctlVirtDomain *domain;
    HpbctlVirtWatch *stopped;   /* libvirt's detail of the event; NULL: not yet */
    int events[2];              /* callbacks, -1: none */
} VirtTransport;

/* What a callback needs: the watch, and how to tell an end from other events */
static int on_lifecycle(virConnectPtr conn G_GNUC_UNUSED,
                        virDomainPtr domain G_GNUC_UNUSED, int event,
                        int detail, void *watch)
{
    if (event == VIR_DOMAIN_EVENT_STOPPED) {
        hpbctl_virt_watch_tell(watch, detail);
    }
    return 0;
}

/* The size changed: wake up, nothing else */
static void on_balloon(virConnectPtr conn G_GNUC_UNUSED,
                       virDomainPtr domain G_GNUC_UNUSED,
                       unsigned long long actual G_GNUC_UNUSED, void *watch)
{
    hpbctl_virt_watch_wake(watch);
}

static int add_event(virConnectPtr conn, HpbctlVirtJob *job, int event,
                     virConnectDomainEventGenericCallback callback)
{
    HpbctlVirtWatch *watch = hpbctl_virt_watch_ref(job->data);
    int id = virConnectDomainEventRegisterAny(conn, job->domain, event,
                                              callback, watch,
                                              hpbctl_virt_watch_unref);

    if (id < 0) {
        hpbctl_virt_watch_unref(watch);
    }
    return id;
}

/* data: the watch; events: callbacks. An end that was before counts too. */
static int add_events(virConnectPtr conn, HpbctlVirtJob *job)
{
    job->events[0] = add_event(conn, job, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                               VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle));
    if (job->events[0] < 0) {
        return -1;
    }
    job->events[1] = add_event(conn, job, VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE,
                               VIR_DOMAIN_EVENT_CALLBACK(on_balloon));
    job->flag = virDomainIsActive(job->domain) == 1;
    return 0;
}

static int remove_events(virConnectPtr conn, HpbctlVirtJob *job)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(job->events); i++) {
        if (job->events[i] >= 0) {
            virConnectDomainEventDeregisterAny(conn, job->events[i]);
        }
    }
    return 0;
}

static gboolean is_gone(const VirtTransport *t)
{
    return t->stopped && g_atomic_int_get(&t->stopped->happened);
}

/* Start to look for the end of the domain. FALSE with an error: cannot. */
static gboolean watch_domain(VirtTransport *t, GError **err)
{
    g_autoptr(HpbctlVirtJob) job = NULL;

    if (t->stopped) {
        return TRUE;
    }
    job = hpbctl_virt_job_new(add_events, t->domain->domain);
    job->data = hpbctl_virt_watch_new(t->virt);
    job->free_data = hpbctl_virt_watch_unref;
    if (!hpbctl_virt_call(t->virt, job, t->parent.where, "watch it", err)) {
        return FALSE;
    }
    t->stopped = hpbctl_virt_watch_ref(job->data);
    memcpy(t->events, job->events, sizeof(t->events));
    if (!job->flag && !is_gone(t)) {
        hpbctl_virt_watch_tell(t->stopped, HOW_UNKNOWN);
    }
    return TRUE;
}

static void set_gone(const VirtTransport *t, GError **err)
{
    static const char *const how[] = {
        [VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN] = "has shut down",
        [VIR_DOMAIN_EVENT_STOPPED_DESTROYED] = "was destroyed",
        [VIR_DOMAIN_EVENT_STOPPED_CRASHED] = "crashed",
        [VIR_DOMAIN_EVENT_STOPPED_MIGRATED] = "was migrated to another host",
        [VIR_DOMAIN_EVENT_STOPPED_SAVED] = "was saved",
        [VIR_DOMAIN_EVENT_STOPPED_FAILED] = "ended, because QEMU failed",
        [VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT] = "was reverted to a snapshot",
    };
    int detail = g_atomic_int_get(&t->stopped->happened) - 1;
    gboolean moved = detail == VIR_DOMAIN_EVENT_STOPPED_MIGRATED;

    g_clear_error(err);
    g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_GONE, "%s %s; %s",
                t->parent.where,
                detail >= 0 && detail < (int)G_N_ELEMENTS(how) && how[detail]
                ? how[detail] : "has ended",
                moved ? "resize it there: libvirt keeps the size that it had"
                      : "the VM is gone, start it again if that was not wanted");
}

/*
 * @err is set because libvirt could not do what it was asked. What QEMU refuses
 * is an answer and comes another way, so most likely the domain has ended, or
 * does so now: then say that instead.
 */
static void judge_failure(VirtTransport *t, const HpbctlVirtJob *job,
                          GError **err)
{
    gint64 end = g_get_monotonic_time() / 1000 + GONE_MS;

    while (watch_domain(t, NULL) && !is_gone(t) &&
           g_get_monotonic_time() / 1000 < end) {
        if (!hpbctl_virt_wait(t->virt, GONE_MS, NULL)) {
            break;
        }
    }
    if (!is_gone(t) && job->error && job->error->code == VIR_ERR_NO_DOMAIN) {
        /* A transient one that ended before it was watched */
        if (!t->stopped) {
            t->stopped = hpbctl_virt_watch_new(t->virt);
        }
        hpbctl_virt_watch_tell(t->stopped, HOW_UNKNOWN);
    }
    if (is_gone(t)) {
        set_gone(t, err);
    }
}

/* One call of libvirt about the domain; says so if that has ended. */
static gboolean call(VirtTransport *t, HpbctlVirtJob *job, const char *what,
                     GError **err)
{
    GError *local = NULL;

    if (is_gone(t)) {
        set_gone(t, err);
        return FALSE;
    }
    if (hpbctl_virt_call(t->virt, job, t->parent.where, what, &local)) {
        return TRUE;
    }
    if (g_error_matches(local, HPBCTL_ERROR, HPBCTL_ERROR_COMMAND)) {
        judge_failure(t, job, &local);
    }
    g_propagate_error(err, local);
    return FALSE;
}

static int run_command(virConnectPtr conn G_GNUC_UNUSED, HpbctlVirtJob *job)
{
    return virDomainQemuMonitorCommand(job->domain, job->text, &job->result,
                                       VIR_DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT);
}

static JsonNode *virt_execute(HpbctlTransport *parent, const char *command,
                              JsonObject *arguments, GError **err)
{
    VirtTransport *t = (VirtTransport *)parent;
    g_autoptr(HpbctlVirtJob) job = hpbctl_virt_job_new(run_command,
                                                       t->domain->domain);
    g_autoptr(JsonNode) node = NULL;

    job->text = hpbctl_command_text(command, arguments, 0);
    if (!call(t, job, command, err)) {
        return NULL;
    }
    node = json_from_string(job->result, NULL);
    if (!node || !JSON_NODE_HOLDS_OBJECT(node)) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_PROTOCOL,
                    "%s: libvirt's answer to '%s' is no JSON", parent->where,
                    command);
        return NULL;
    }
    return hpbctl_answer_result(parent, command, json_node_get_object(node),
                                err);
}

/* number: bytes. libvirt takes KiB, and no more than there is. */
static int set_memory(virConnectPtr conn G_GNUC_UNUSED, HpbctlVirtJob *job)
{
    unsigned long most = virDomainGetMaxMemory(job->domain);
    guint64 wanted = (job->number >> 10) + ((job->number & 1023) != 0);

    if (!most) {
        return -1;
    }
    return virDomainSetMemoryFlags(job->domain,
                                   (unsigned long)MIN(wanted, most),
                                   VIR_DOMAIN_AFFECT_LIVE);
}

static gboolean virt_balloon(HpbctlTransport *parent, guint64 size,
                             GError **err)
{
    VirtTransport *t = (VirtTransport *)parent;
    g_autoptr(HpbctlVirtJob) job = hpbctl_virt_job_new(set_memory,
                                                       t->domain->domain);

    job->number = size;
    return call(t, job, "set its memory", err);
}

static gboolean virt_wait(HpbctlTransport *parent, unsigned ms, GError **err)
{
    VirtTransport *t = (VirtTransport *)parent;

    if (!watch_domain(t, err) || !hpbctl_virt_wait(t->virt, ms, err)) {
        return FALSE;
    }
    if (is_gone(t)) {
        set_gone(t, err);
        return FALSE;
    }
    return TRUE;
}

static void virt_free(HpbctlTransport *parent)
{
    VirtTransport *t = (VirtTransport *)parent;

    if (t->events[0] >= 0) {
        g_autoptr(HpbctlVirtJob) job = hpbctl_virt_job_new(remove_events, NULL);

        memcpy(job->events, t->events, sizeof(t->events));
        hpbctl_virt_later(t->virt, job);
    }
    hpbctl_virt_watch_unref(t->stopped);
    hpbctl_virt_domain_free(t->domain);
    hpbctl_virt_unref(t->virt);
    g_free(parent->where);
    g_free(t);
}

HpbctlTransport *hpbctl_virt_connect(HpbctlVirt *v, HpbctlVirtDomain *d,
                                     GError **err)
{
    static const HpbctlTransportOps ops = {
        .execute = virt_execute,
        .balloon = virt_balloon,
        .wait = virt_wait,
        .free = virt_free,
    };
    VirtTransport *t;

    if (d->id < 0) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_CONNECT,
                    "%s is shut off; 'virsh start %s' starts it", d->where,
                    d->name);
        hpbctl_virt_domain_free(d);
        return NULL;
    }
    t = g_new0(VirtTransport, 1);
    t->parent.ops = &ops;
    t->parent.where = g_strdup(d->where);
    t->parent.uri = hpbctl_virt_uri(v);
    t->parent.uuid = d->uuid;
    t->virt = hpbctl_virt_ref(v);
    t->domain = d;
    t->events[0] = t->events[1] = -1;
    return &t->parent;
}
