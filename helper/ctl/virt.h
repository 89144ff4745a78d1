/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: a connection to libvirt, its domains, and calls with a time limit
 */
#ifndef HPBCTL_VIRT_H
#define HPBCTL_VIRT_H

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include "transport.h"

G_BEGIN_DECLS

typedef struct HpbctlVirt HpbctlVirt;

/*
 * Connect to ctx->uri (NULL: what libvirt thinks is best). Errors name the
 * connection and say what to do; TIMEOUT after ctx->connect_ms.
 */
HpbctlVirt *hpbctl_virt_open(const HpbctlContext *ctx, GError **err);
HpbctlVirt *hpbctl_virt_ref(HpbctlVirt *v);
/* The last one closes; never waits for a daemon that is silent. */
void hpbctl_virt_unref(HpbctlVirt *v);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HpbctlVirt, hpbctl_virt_unref)

const char *hpbctl_virt_uri(const HpbctlVirt *v);

/*
 * One or more calls of libvirt that are made together, with what goes in and
 * comes out. Counted: the caller has one reference, the thread that makes the
 * calls another, so a call that is late finds its memory.
 */
typedef struct HpbctlVirtJob HpbctlVirtJob;

/* Returns 0, or -1 with libvirt's error set */
typedef int HpbctlVirtFunc(virConnectPtr conn, HpbctlVirtJob *job);

struct HpbctlVirtJob {
    int refs;
    int done;                   /* atomic; the rest is the caller's then */
    HpbctlVirtFunc *run;
    virDomainPtr domain;
    virDomainPtr *domains;      /* NULL-terminated */
    char *text;                 /* in */
    char *result;               /* out */
    guint64 number;
    gboolean flag;
    int events[2];              /* callbacks that are registered, -1: none */
    gpointer data;              /* in; freed by free_data, if that is set */
    GDestroyNotify free_data;
    virErrorPtr error;          /* out: NULL if it worked */
    gboolean lost;              /* out: the connection is */
};

HpbctlVirtJob *hpbctl_virt_job_new(HpbctlVirtFunc *run, virDomainPtr domain);
void hpbctl_virt_job_unref(HpbctlVirtJob *job);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HpbctlVirtJob, hpbctl_virt_job_unref)

/*
 * Have @job done. FALSE: TIMEOUT after ctx->command_ms or INTERRUPTED, and the
 * job may still be under way; LOST: the connection is; else what libvirt says,
 * with @where and @what in front: job->error has it.
 */
gboolean hpbctl_virt_call(HpbctlVirt *v, HpbctlVirtJob *job, const char *where,
                          const char *what, GError **err);

/* Have @job done some time before the connection is closed. */
void hpbctl_virt_later(HpbctlVirt *v, HpbctlVirtJob *job);

/*
 * Let @ms pass, or less if something happened. FALSE: LOST or INTERRUPTED.
 */
gboolean hpbctl_virt_wait(HpbctlVirt *v, unsigned ms, GError **err);

/*
 * What a callback of libvirt leaves for us to find. Counted: callbacks can
 * outlive what they were for.
 */
typedef struct HpbctlVirtWatch {
    int refs;
    int fd;                     /* written when something happened */
    int happened;               /* atomic: 0, or one more than libvirt's number */
} HpbctlVirtWatch;

HpbctlVirtWatch *hpbctl_virt_watch_new(const HpbctlVirt *v);
HpbctlVirtWatch *hpbctl_virt_watch_ref(HpbctlVirtWatch *watch);
/* A gpointer, for libvirt's callbacks */
void hpbctl_virt_watch_unref(gpointer data);
/* Wake who waits; with _tell() it also stays known that @number happened. */
void hpbctl_virt_watch_wake(HpbctlVirtWatch *watch);
void hpbctl_virt_watch_tell(HpbctlVirtWatch *watch, int number);

/* A domain; what is asked of libvirt once and stays */
typedef struct HpbctlVirtDomain {
    virDomainPtr domain;
    char *name;
    char *where;                /* names it in messages */
    char uuid[VIR_UUID_STRING_BUFLEN];
    int id;                     /* -1: shut off */
} HpbctlVirtDomain;

/* The domain of that name, UUID or id, in this order; CONNECT: there is none */
HpbctlVirtDomain *hpbctl_virt_find(HpbctlVirt *v, const char *name,
                                   GError **err);
/* All of them, by name; of HpbctlVirtDomain */
GPtrArray *hpbctl_virt_list(HpbctlVirt *v, GError **err);
void hpbctl_virt_domain_free(HpbctlVirtDomain *d);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HpbctlVirtDomain, hpbctl_virt_domain_free)

/*
 * The definition of @d: as it is for its next start, with everything that is
 * secret, or (@live) as it runs; to be freed.
 */
char *hpbctl_virt_definition(HpbctlVirt *v, const HpbctlVirtDomain *d,
                             gboolean live, GError **err);

/* Bytes that @d has by its definition */
gboolean hpbctl_virt_memory(HpbctlVirt *v, const HpbctlVirtDomain *d,
                            guint64 *bytes, GError **err);

/*
 * A transport to a running domain; takes @d. CONNECT with what to do if it is
 * shut off. A connection has at most one at a time to each domain, as libvirt
 * takes a callback for a domain once.
 */
HpbctlTransport *hpbctl_virt_connect(HpbctlVirt *v, HpbctlVirtDomain *d,
                                     GError **err);

G_END_DECLS

#endif /* HPBCTL_VIRT_H */
