/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: a way to send QMP commands to one VM
 *
 * Two calls are all that a VM needs: run a command, and wait while looking
 * whether QEMU is still there. A QMP socket does both itself; with libvirt the
 * first is virDomainQemuMonitorCommand(), the second its events. One transport
 * is used by one thread.
 */
#ifndef HPBCTL_TRANSPORT_H
#define HPBCTL_TRANSPORT_H

#include <sys/types.h>
#include "ctl.h"

G_BEGIN_DECLS

typedef struct HpbctlTransport HpbctlTransport;

typedef struct HpbctlTransportOps {
    JsonNode *(*execute)(HpbctlTransport *t, const char *command,
                         JsonObject *arguments, GError **err);
    /* Ask for a guest of that many bytes; NULL: by the QMP command */
    gboolean (*balloon)(HpbctlTransport *t, guint64 size, GError **err);
    gboolean (*wait)(HpbctlTransport *t, unsigned ms, GError **err);
    void (*free)(HpbctlTransport *t);
} HpbctlTransportOps;

struct HpbctlTransport {
    const HpbctlTransportOps *ops;
    char *where;        /* names the VM in messages */
    const char *uri;    /* libvirt's connection; NULL: @where is a socket */
    const char *uuid;   /* of the domain */
    pid_t pid;          /* who answers, probably QEMU; 0: not known */
};

/*
 * Connect to the QMP socket at @path and negotiate. Errors name the socket and
 * say what to do; BUSY after ctx->connect_ms without a greeting.
 */
HpbctlTransport *hpbctl_qmp_connect(const HpbctlContext *ctx, const char *path,
                                    GError **err);

/*
 * Run @command; @arguments may be NULL and is consumed. The result, or NULL:
 * COMMAND with QEMU's words, TIMEOUT after ctx->command_ms, GONE, INTERRUPTED.
 * The transport can be used after all but GONE and LOST: a late answer is
 * dropped.
 */
JsonNode *hpbctl_execute(HpbctlTransport *t, const char *command,
                         JsonObject *arguments, GError **err);

/* Ask for a guest of @size bytes. */
gboolean hpbctl_balloon(HpbctlTransport *t, guint64 size, GError **err);

/*
 * For transports: a command as JSON text, @id 0: without one; @arguments is
 * consumed. And the result in an answer, or NULL with COMMAND or PROTOCOL.
 */
char *hpbctl_command_text(const char *command, JsonObject *arguments,
                          gint64 id);
JsonNode *hpbctl_answer_result(const HpbctlTransport *t, const char *command,
                               JsonObject *answer, GError **err);

/*
 * Let @ms pass, or less if the VM reported something. FALSE: GONE,
 * LOST or INTERRUPTED.
 */
gboolean hpbctl_wait(HpbctlTransport *t, unsigned ms, GError **err);

void hpbctl_transport_free(HpbctlTransport *t);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(HpbctlTransport, hpbctl_transport_free)

G_END_DECLS

#endif /* HPBCTL_TRANSPORT_H */
