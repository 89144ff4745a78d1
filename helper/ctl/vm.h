/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: a VM, its balloon, and what both are like at a moment
 */
#ifndef HPBCTL_VM_H
#define HPBCTL_VM_H

#include "transport.h"

G_BEGIN_DECLS

typedef enum HpbctlBalloon {
    HPBCTL_BALLOON_NONE,
    HPBCTL_BALLOON_STOCK,       /* virtio-balloon: size and statistics only */
    HPBCTL_BALLOON_HP,
} HpbctlBalloon;

typedef enum HpbctlDriver {
    HPBCTL_DRIVER_UNKNOWN,
    HPBCTL_DRIVER_ABSENT,
    HPBCTL_DRIVER_RUNNING,
} HpbctlDriver;

typedef struct HpbctlVm {
    HpbctlTransport *transport;
    char *name;                 /* QEMU's -name, or the socket */
    char *version;              /* of QEMU */
    HpbctlBalloon balloon;
    char *device;               /* QOM path; NULL without balloon */
    char *backend;              /* QOM path of the virtio device behind it */
    char *type;                 /* QOM type of the device */
    guint64 unit;               /* sizes are rounded to it */
} HpbctlVm;

typedef struct HpbctlStatus {
    char *state;                /* "running", "paused", ... */
    guint64 ram;                /* bytes with an empty balloon */
    guint64 size;               /* bytes the guest has */
    gboolean has_target;
    guint64 target;             /* bytes it was asked to have */
    HpbctlDriver driver;
    JsonNode *nodes;            /* properties of the device, or NULL */
    JsonNode *memory;
    JsonNode *refused;
    JsonNode *counters;
} HpbctlStatus;

/*
 * Open @name: the path of a QMP socket (anything with a '/'), a name in
 * ctx->dir (NAME, NAME.sock, NAME.qmp, NAME/qmp.sock, NAME/monitor.sock), or a
 * domain of ctx->uri by name, UUID or id; ctx->place says which of these.
 */
HpbctlVm *hpbctl_vm_open(const HpbctlContext *ctx, const char *name,
                         GError **err);
/* What @t leads to, which is taken; @name, or its last part, if QEMU has none */
HpbctlVm *hpbctl_vm_new(HpbctlTransport *t, const char *name, GError **err);
void hpbctl_vm_free(HpbctlVm *vm);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HpbctlVm, hpbctl_vm_free)

/* How the balloon is called in output: "virtio-balloon-hp", ..., "none" */
const char *hpbctl_balloon_name(HpbctlBalloon balloon);

/* UNSUPPORTED with what to do if @vm has no balloon (or not ours, @hp). */
gboolean hpbctl_vm_need_balloon(const HpbctlVm *vm, gboolean hp,
                                const char *what, GError **err);

/* Ask for everything of HpbctlStatus. Clear it afterwards, also on failure. */
gboolean hpbctl_vm_status(HpbctlVm *vm, HpbctlStatus *status, GError **err);
void hpbctl_status_clear(HpbctlStatus *status);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(HpbctlStatus, hpbctl_status_clear)

/* A property of the balloon; NULL with an error, if not */
JsonNode *hpbctl_vm_get(HpbctlVm *vm, const char *property, GError **err);
/* Set one; consumes @value */
gboolean hpbctl_vm_set(HpbctlVm *vm, const char *property, JsonNode *value,
                       GError **err);

/* Bytes that the guest has, or its NUMA node @node if that is not -1 */
gboolean hpbctl_vm_size(HpbctlVm *vm, int node, guint64 *size, GError **err);

/* The entry of @nodes (property "nodes") for @node, or NULL */
JsonObject *hpbctl_node_entry(JsonNode *nodes, gint64 node);

G_END_DECLS

#endif /* HPBCTL_VM_H */
