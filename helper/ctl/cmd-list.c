/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl list: the VMs that have a QMP socket in the directory, and the domains
 * of libvirt
 *
 * Every socket is tried, in name order; one that is busy, dead or not QMP is
 * listed with the reason, because a VM that is missing in a list is looked for
 * in the wrong place. The search goes one level deep. A domain that is shut off
 * is listed with what its definition says.
 *
 * Where nobody has said what to list, a directory or a libvirt that is not
 * there is no failure as long as the other one is. libvirt's daemon of a user
 * is then not started either: what it could tell is not running.
 */
#include <string.h>
#include <sys/stat.h>
#include "domain.h"
#include "virt.h"
#include "vm.h"

typedef struct Listing {
    const HpbctlContext *ctx;
    JsonBuilder *b;             /* NULL: text */
    gboolean names;             /* nothing else is asked for */
    unsigned rows;
    HpbctlExit result;
} Listing;

/* What is known of a VM; strings may be NULL */
typedef struct Row {
    const char *name;
    const char *state;
    const char *balloon;
    const char *socket;
    const char *uri;
    const char *uuid;
    gboolean off;               /* has no size */
    guint64 ram;
    guint64 size;
    const GError *err;          /* instead of all that */
} Row;

static void add_json(Listing *l, const Row *row)
{
    json_builder_begin_object(l->b);
    if (row->socket) {
        hpbctl_json_string(l->b, "socket", row->socket);
    } else {
        hpbctl_json_string(l->b, "connection", row->uri);
        hpbctl_json_string(l->b, "uuid", row->uuid);
    }
    if (row->err) {
        if (row->name) {
            hpbctl_json_string(l->b, "name", row->name);
        }
        hpbctl_json_string(l->b, "error", row->err->message);
    } else {
        hpbctl_json_string(l->b, "name", row->name);
        hpbctl_json_string(l->b, "state", row->state);
        hpbctl_json_string(l->b, "balloon", row->balloon);
        hpbctl_json_int(l->b, "ram", (gint64)row->ram);
        if (!row->off) {
            hpbctl_json_int(l->b, "size", (gint64)row->size);
        }
    }
    json_builder_end_object(l->b);
}

static void add_text(const Listing *l, const Row *row)
{
    g_autofree char *size = hpbctl_size_format(row->size);
    g_autofree char *ram = hpbctl_size_format(row->ram);

    if (row->err) {
        fprintf(stderr, "hpbctl: %s\n", row->err->message);
        return;
    }
    if (!l->rows) {
        printf("%-20s %-10s %12s %12s  %-18s %s\n", "NAME", "STATE", "SIZE",
               "RAM", "BALLOON", "WHERE");
    }
    printf("%-20s %-10s %12s %12s  %-18s %s\n", row->name, row->state,
           row->off ? "-" : size, ram, row->balloon,
           row->socket ? row->socket : row->uri);
}

static void add(Listing *l, const Row *row)
{
    if (l->b) {
        add_json(l, row);
    } else {
        add_text(l, row);
    }
    if (row->err) {
        l->result = HPBCTL_EXIT_FAILED;
    } else {
        l->rows++;
    }
}

/* Takes @t, which may be NULL with @err set. */
static void add_running(Listing *l, HpbctlTransport *t, Row *row, GError *err)
{
    g_autoptr(HpbctlVm) vm = t ? hpbctl_vm_new(t, row->name, &err) : NULL;
    g_auto(HpbctlStatus) status = { 0 };

    if (vm && hpbctl_vm_status(vm, &status, &err)) {
        row->name = vm->name;
        row->state = status.state;
        row->balloon = hpbctl_balloon_name(vm->balloon);
        row->ram = status.ram;
        row->size = status.size;
    }
    row->err = err;
    add(l, row);
    g_clear_error(&err);
}

static gboolean is_socket(const char *path)
{
    struct stat st;

    return !stat(path, &st) && S_ISSOCK(st.st_mode);
}

static gboolean collect(GPtrArray *paths, const char *dir, gboolean deeper,
                        GError **err)
{
    g_autoptr(GDir) open = g_dir_open(dir, 0, err);
    const char *name;

    while (open && (name = g_dir_read_name(open))) {
        g_autofree char *path = g_build_filename(dir, name, NULL);

        if (is_socket(path)) {
            g_ptr_array_add(paths, g_steal_pointer(&path));
        } else if (deeper && g_file_test(path, G_FILE_TEST_IS_DIR)) {
            collect(paths, path, FALSE, NULL);
        }
    }
    return open != NULL;
}

static gint by_name(gconstpointer a, gconstpointer b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* What a command takes for the socket at @path in @dir */
static void print_socket_name(const char *dir, const char *path)
{
    static const char *const endings[] = {
        "/qmp.sock", "/monitor.sock", ".sock", ".qmp",
    };
    const char *start = path + strlen(dir);
    g_autofree char *name = NULL;

    start += strspn(start, "/");
    for (unsigned i = 0; !name && i < G_N_ELEMENTS(endings); i++) {
        if (g_str_has_suffix(start, endings[i])) {
            name = g_strndup(start, strlen(start) - strlen(endings[i]));
        }
    }
    if (!name) {
        name = g_strdup(start);
    }
    /* Deeper, under a name that is not looked for: only by its path */
    puts(strchr(name, '/') ? path : name);
}

static gboolean list_sockets(Listing *l, GError **err)
{
    g_autoptr(GPtrArray) paths = g_ptr_array_new_with_free_func(g_free);

    if (!collect(paths, l->ctx->dir, TRUE, err)) {
        return FALSE;
    }
    g_ptr_array_sort(paths, by_name);
    for (guint i = 0; i < paths->len; i++) {
        const char *path = g_ptr_array_index(paths, i);
        GError *local = NULL;
        Row row = { .name = path, .socket = path };
        HpbctlTransport *t;

        if (l->names) {
            print_socket_name(l->ctx->dir, path);
            continue;
        }
        t = hpbctl_qmp_connect(l->ctx, path, &local);
        row.name = t ? path : NULL;
        add_running(l, t, &row, local);
    }
    return TRUE;
}

static void add_shut_off(Listing *l, HpbctlVirt *v, const HpbctlVirtDomain *d,
                         Row *row)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *xml = hpbctl_virt_definition(v, d, FALSE, &err);
    gboolean uses = FALSE;

    if (xml && hpbctl_virt_memory(v, d, &row->ram, &err)) {
        /* A definition that is none of QEMU's has none of its balloons */
        row->balloon = !hpbctl_domain_check(xml, &uses, NULL) ? "none" :
                       hpbctl_balloon_name(uses ? HPBCTL_BALLOON_HP
                                                : HPBCTL_BALLOON_STOCK);
        row->state = "shut off";
        row->off = TRUE;
    }
    row->err = err;
    add(l, row);
}

static gboolean list_domains(Listing *l, GError **err)
{
    g_autoptr(HpbctlVirt) v = hpbctl_virt_open(l->ctx, err);
    g_autoptr(GPtrArray) all = v ? hpbctl_virt_list(v, err) : NULL;

    for (guint i = 0; all && i < all->len; i++) {
        HpbctlVirtDomain *d = g_ptr_array_index(all, i);
        g_autofree char *name = g_strdup(d->name);
        g_autofree char *uuid = g_strdup(d->uuid);
        Row row = { .name = name, .uri = hpbctl_virt_uri(v), .uuid = uuid };

        if (l->names) {
            puts(name);
        } else if (d->id < 0) {
            add_shut_off(l, v, d, &row);
        } else {
            g_ptr_array_index(all, i) = NULL; /* the transport's */
            add_running(l, hpbctl_virt_connect(v, d, NULL), &row, NULL);
        }
    }
    return all != NULL;
}

static HpbctlExit list_all(Listing *l)
{
    gboolean named = g_getenv("LIBVIRT_DEFAULT_URI") != NULL;
    g_autoptr(GError) no_dir = NULL;
    g_autoptr(GError) no_libvirt = NULL;

    if (l->ctx->place != HPBCTL_PLACE_LIBVIRT) {
        list_sockets(l, &no_dir);
    }
    if (l->ctx->place == HPBCTL_PLACE_ANY && !named) {
        g_setenv("LIBVIRT_AUTOSTART", "0", FALSE);
    }
    if (l->ctx->place != HPBCTL_PLACE_DIR) {
        list_domains(l, &no_libvirt);
    }
    if (no_dir && (l->ctx->place == HPBCTL_PLACE_DIR || no_libvirt)) {
        fprintf(stderr, "hpbctl: %s; --dir or HPBCTL_DIR says where the QMP "
                "sockets of VMs are\n", no_dir->message);
        l->result = HPBCTL_EXIT_FAILED;
    }
    if (no_libvirt && (l->ctx->place == HPBCTL_PLACE_LIBVIRT || named ||
                       no_dir)) {
        l->result = hpbctl_worse(hpbctl_fail(no_libvirt), l->result);
    }
    return l->result;
}

HpbctlExit hpbctl_cmd_list(const HpbctlContext *ctx, int argc, char **argv)
{
    Listing l = { .ctx = ctx };
    const GOptionEntry entries[] = {
        { "names", 0, 0, G_OPTION_ARG_NONE, &l.names,
          "Only names that commands take; no VM is asked", NULL },
        G_OPTION_ENTRY_NULL
    };
    HpbctlExit result;

    if (!hpbctl_parse(entries, "list", 0, &argc, &argv)) {
        return HPBCTL_EXIT_USAGE;
    }
    if (ctx->json && !l.names) {
        l.b = json_builder_new();
        json_builder_begin_array(l.b);
    }
    result = list_all(&l);
    if (l.b) {
        json_builder_end_array(l.b);
        return hpbctl_worse(hpbctl_print_json(l.b), result);
    }
    return hpbctl_worse(hpbctl_finish(), result);
}
