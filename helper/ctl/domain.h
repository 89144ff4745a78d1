/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: libvirt domain definitions that use our balloon
 */
#ifndef HPBCTL_DOMAIN_H
#define HPBCTL_DOMAIN_H

#include "ctl.h"

G_BEGIN_DECLS

/* Whether @xml uses our device. An error if it is no domain with a balloon. */
gboolean hpbctl_domain_check(const char *xml, gboolean *uses, GError **err);

/*
 * @xml with our device (@enable) or the traditional one, and with this
 * @emulator, unless it is NULL; to be freed. All else stays, and a definition
 * that is so already comes back as it was.
 */
char *hpbctl_domain_change(const char *xml, gboolean enable,
                           const char *emulator, GError **err);

G_END_DECLS

#endif /* HPBCTL_DOMAIN_H */
