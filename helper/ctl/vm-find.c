/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: which VM is meant, the way to it, and its process
 *
 * Not a step of the data path. A path is a socket, for a domain's name has no
 * '/'. Of a plain name the socket wins, because it is there for hpbctl; what
 * the command line says of a place is final.
 *
 * libvirt does not tell QEMU's process. QEMU itself tells its threads, and the
 * kernel whose they are; on another host these numbers are somebody else's, so
 * the process must have the domain's UUID in its command line, where libvirt
 * puts it. Rejected: libvirt's pid files, which are private and elsewhere in
 * each kind of session, and a search through all of /proc for a name.
 */
#include <string.h>
#include "virt.h"
#include "vm.h"

/* The socket of that name, or NULL */
static char *find_socket(const HpbctlContext *ctx, const char *name)
{
    static const char *const endings[] = {
        "", ".sock", ".qmp", "/qmp.sock", "/monitor.sock",
    };

    if (strchr(name, '/')) {
        return g_strdup(name);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(endings); i++) {
        g_autofree char *path = g_strconcat(ctx->dir, "/", name, endings[i],
                                            NULL);

        if (g_file_test(path, G_FILE_TEST_EXISTS) &&
            !g_file_test(path, G_FILE_TEST_IS_DIR)) {
            return g_steal_pointer(&path);
        }
    }
    return NULL;
}

static HpbctlTransport *connect_domain(const HpbctlContext *ctx,
                                       const char *name, GError **err)
{
    g_autoptr(HpbctlVirt) v = hpbctl_virt_open(ctx, err);
    HpbctlVirtDomain *d = v ? hpbctl_virt_find(v, name, err) : NULL;

    return d ? hpbctl_virt_connect(v, d, err) : NULL;
}

static HpbctlTransport *open_transport(const HpbctlContext *ctx,
                                       const char *name, GError **err)
{
    g_autofree char *path = NULL;
    HpbctlTransport *t;

    if (ctx->place != HPBCTL_PLACE_LIBVIRT || strchr(name, '/')) {
        path = find_socket(ctx, name);
    }
    if (path) {
        return hpbctl_qmp_connect(ctx, path, err);
    }
    if (ctx->place == HPBCTL_PLACE_DIR) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_CONNECT,
                    "no VM '%s' in %s; 'hpbctl list' shows which there are, "
                    "--dir or HPBCTL_DIR says where, or give the path of a QMP "
                    "socket", name, ctx->dir);
        return NULL;
    }
    t = connect_domain(ctx, name, err);
    if (!t && ctx->place == HPBCTL_PLACE_ANY) {
        g_prefix_error(err, "no socket of a VM '%s' in %s, and with libvirt: ",
                       name, ctx->dir);
    }
    return t;
}

/* Has @pid an argument that is @word? */
static gboolean has_argument(pid_t pid, const char *word)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/cmdline", (int)pid);
    g_autofree char *line = NULL;
    gsize length = 0;

    if (!g_file_get_contents(path, &line, &length, NULL)) {
        return FALSE;
    }
    for (const char *at = line; at < line + length; at += strlen(at) + 1) {
        if (!strcmp(at, word)) {
            return TRUE;
        }
    }
    return FALSE;
}

/* The process that thread @tid is of; 0: no such thread */
static pid_t process_of(gint64 tid)
{
    g_autofree char *path = g_strdup_printf("/proc/%" G_GINT64_FORMAT "/status",
                                            tid);
    g_autofree char *text = NULL;
    const char *line;

    if (tid <= 0 || !g_file_get_contents(path, &text, NULL, NULL)) {
        return 0;
    }
    line = strstr(text, "\nTgid:");
    return line ? (pid_t)g_ascii_strtoll(line + strlen("\nTgid:"), NULL, 10)
                : 0;
}

static gboolean find_process(HpbctlTransport *t, GError **err)
{
    g_autoptr(JsonNode) node = hpbctl_execute(t, "query-cpus-fast", NULL, err);
    JsonNode *first;
    pid_t pid;

    if (!node) {
        return FALSE;
    }
    if (!JSON_NODE_HOLDS_ARRAY(node) ||
        !json_array_get_length(json_node_get_array(node))) {
        return TRUE;
    }
    first = json_array_get_element(json_node_get_array(node), 0);
    pid = JSON_NODE_HOLDS_OBJECT(first)
          ? process_of(hpbctl_get_int(json_node_get_object(first), "thread-id",
                                      0)) : 0;
    if (pid && has_argument(pid, t->uuid)) {
        t->pid = pid;
    }
    return TRUE;
}

HpbctlVm *hpbctl_vm_open(const HpbctlContext *ctx, const char *name,
                         GError **err)
{
    HpbctlTransport *t = open_transport(ctx, name, err);

    if (t && t->uuid && !find_process(t, err)) {
        hpbctl_transport_free(t);
        return NULL;
    }
    return t ? hpbctl_vm_new(t, name, err) : NULL;
}
