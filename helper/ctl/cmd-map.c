/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl map: which memory of a guest is what
 *
 * Asks the device what is out, then the host what it holds for QEMU. The
 * traditional balloon does not tell the first, and the map then says so. The two
 * looks are some milliseconds apart, so a guest that is being resized can show
 * ranges of both. Looking changes nothing: no page is touched.
 */
#include <sys/ioctl.h>
#include <unistd.h>
#include "map.h"

#define PIPE_COLUMNS 64
#define LABEL_COLUMNS 14        /* in front of each line of cells */
#define BLOCK_LINES 32

static HpbctlExit print_json(const HpbctlVm *vm, const HpbctlMap *map,
                             pid_t pid)
{
    JsonBuilder *b = json_builder_new();

    json_builder_begin_object(b);
    hpbctl_json_string(b, "name", vm->name);
    hpbctl_json_int(b, "pid", pid);
    hpbctl_json_int(b, "range", HPBCTL_MAP_RANGE);
    hpbctl_json_bool(b, "tells-huge", map->tells_huge);
    hpbctl_json_bool(b, "tells-ballooned", map->tells_out);
    if (map->tells_out) {
        hpbctl_json_int(b, "ballooned-but-held", (gint64)map->out_held);
    }
    json_builder_set_member_name(b, "ranges");
    json_builder_begin_object(b);
    for (unsigned kind = 0; kind < HPBCTL_KIND_MAX; kind++) {
        if (kind != HPBCTL_KIND_OUT || map->tells_out) {
            hpbctl_json_int(b, hpbctl_kind_name((HpbctlKind)kind),
                            (gint64)map->count[kind]);
        }
    }
    json_builder_end_object(b);
    json_builder_set_member_name(b, "blocks");
    json_builder_begin_array(b);
    for (guint i = 0; i < map->blocks->len; i++) {
        const HpbctlMapBlock *block = g_ptr_array_index(map->blocks, i);

        json_builder_begin_object(b);
        hpbctl_json_string(b, "block", block->name);
        if (block->node >= 0) {
            hpbctl_json_int(b, "node", block->node);
        }
        hpbctl_json_int(b, "size", (gint64)block->size);
        hpbctl_json_int(b, "page-size", (gint64)block->page);
        json_builder_set_member_name(b, "runs");
        json_builder_begin_array(b);
        for (gsize at = 0, end; at < block->n; at = end) {
            end = at + 1;
            while (end < block->n && block->kinds[end] == block->kinds[at]) {
                end++;
            }
            json_builder_begin_object(b);
            hpbctl_json_string(b, "kind",
                               hpbctl_kind_name((HpbctlKind)block->kinds[at]));
            hpbctl_json_int(b, "ranges", (gint64)(end - at));
            json_builder_end_object(b);
        }
        json_builder_end_array(b);
        json_builder_end_object(b);
    }
    json_builder_end_array(b);
    json_builder_end_object(b);
    return hpbctl_print_json(b);
}

static HpbctlExit print_text(const HpbctlMap *map, const char *title)
{
    struct winsize size = { 0 };
    gboolean tty = isatty(STDOUT_FILENO);
    HpbctlMapStyle style = {
        .unicode = g_get_charset(NULL),
        .colour = tty && !g_getenv("NO_COLOR"),
        .columns = PIPE_COLUMNS,
        .lines = BLOCK_LINES,
    };
    g_autofree char *text = NULL;

    if (tty && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) &&
        size.ws_col > LABEL_COLUMNS + 16) {
        style.columns = size.ws_col - LABEL_COLUMNS;
    }
    text = hpbctl_map_text(map, title, &style);
    fputs(text, stdout);
    return hpbctl_finish();
}

static HpbctlMap *look(HpbctlVm *vm, pid_t pid, GError **err)
{
    g_autoptr(JsonNode) answer = NULL;
    g_autoptr(HpbctlMap) map = NULL;

    if (!hpbctl_vm_need_balloon(vm, FALSE, "map of what is ballooned", err)) {
        return NULL;
    }
    answer = vm->balloon == HPBCTL_BALLOON_HP
             ? hpbctl_vm_get(vm, "out-ranges", err)
             : hpbctl_map_ask_blocks(vm, err);
    if (!answer && vm->balloon == HPBCTL_BALLOON_HP) {
        if (err && g_error_matches(*err, HPBCTL_ERROR, HPBCTL_ERROR_COMMAND)) {
            g_prefix_error(err, "the balloon does not tell what is out, a "
                           "newer QEMU is needed: ");
        }
    }
    map = answer ? hpbctl_map_new(answer, err) : NULL;
    if (!map) {
        return NULL;
    }
    map->tells_out = vm->balloon == HPBCTL_BALLOON_HP;
    if (!pid) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_UNSUPPORTED,
                    "%s: the process of QEMU is not known%s; give --pid",
                    vm->name, vm->transport->uri ? " on this host; run this on "
                    "the host of the VM, or if it is this one" : "");
        return NULL;
    }
    if (!hpbctl_host_view(map, pid, err)) {
        return NULL;
    }
    hpbctl_map_judge(map);
    return g_steal_pointer(&map);
}

HpbctlExit hpbctl_cmd_map(const HpbctlContext *ctx, int argc, char **argv)
{
    g_autofree char *svg = NULL;
    g_autofree char *png = NULL;
    int pid = 0;
    const GOptionEntry entries[] = {
        { "svg", 0, 0, G_OPTION_ARG_FILENAME, &svg,
          "Write a picture, instead of text", "FILE" },
        { "png", 0, 0, G_OPTION_ARG_FILENAME, &png,
          "Write a picture, instead of text", "FILE" },
        { "pid", 0, 0, G_OPTION_ARG_INT, &pid,
          "QEMU's process, if another one has made the socket", "PID" },
        G_OPTION_ENTRY_NULL
    };
    g_autoptr(GError) err = NULL;
    g_autoptr(HpbctlVm) vm = NULL;
    g_autoptr(HpbctlMap) map = NULL;
    g_autofree char *title = NULL;

    if (!hpbctl_parse(entries, "map VM", 1, &argc, &argv)) {
        return HPBCTL_EXIT_USAGE;
    }
    vm = hpbctl_vm_open(ctx, argv[1], &err);
    if (!vm) {
        return hpbctl_fail(err);
    }
    pid = pid ? pid : vm->transport->pid;
    map = look(vm, pid, &err);
    if (!map) {
        return hpbctl_fail(err);
    }
    title = g_strdup_printf("%s: guest memory by ranges of 2 MiB", vm->name);
    if ((svg && !hpbctl_map_svg(map, title, svg, &err)) ||
        (png && !hpbctl_map_png(map, title, png, &err))) {
        return hpbctl_fail(err);
    }
    if (ctx->json) {
        return print_json(vm, map, pid);
    }
    return svg || png ? HPBCTL_EXIT_OK : print_text(map, title);
}
