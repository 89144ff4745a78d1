/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: one change of size, from the request to where the guest stops
 */
#ifndef HPBCTL_RESIZE_H
#define HPBCTL_RESIZE_H

#include "vm.h"

G_BEGIN_DECLS

typedef struct HpbctlResize {
    int node;                   /* -1: the whole guest */
    guint64 asked;              /* bytes */
    guint64 goal;               /* what the device made of it */
    guint64 start;              /* size at the request */
    guint64 size;               /* size now */
    gboolean reached;
} HpbctlResize;

/*
 * Send the request and look once. @r has node and asked; the rest is written.
 * INTERRUPTED, TIMEOUT or LOST leave open whether QEMU has taken it.
 */
gboolean hpbctl_resize_start(HpbctlVm *vm, HpbctlResize *r, GError **err);

/* Look how far it is. */
gboolean hpbctl_resize_look(HpbctlVm *vm, HpbctlResize *r, GError **err);

/*
 * Why it is not there, as a sentence with what to do; to be freed. NULL with an
 * error if QEMU does not answer.
 */
char *hpbctl_resize_reason(HpbctlVm *vm, const HpbctlResize *r, GError **err);

/*
 * One line of progress: bar of @columns (0: no bar), both sizes, GiB/s. Pure.
 */
char *hpbctl_resize_line(const HpbctlResize *r, double seconds,
                         unsigned columns);

/* @size as an argument that hpbctl_size_parse() makes the same number of */
char *hpbctl_size_argument(guint64 size);

G_END_DECLS

#endif /* HPBCTL_RESIZE_H */
