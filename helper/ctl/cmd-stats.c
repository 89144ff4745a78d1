/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl stats: what the guest says of its memory
 *
 * Beside the data path. QEMU asks the guest only while the polling interval is
 * set, so it is set for as long as we look, and afterwards put back to what it
 * was: libvirt or somebody else may rely on it. What a guest does not tell is
 * left out, never shown as 0.
 */
#include "vm.h"

#define LOOK_MS 50
#define PATIENCE_MS 5000        /* beyond the interval, for a busy guest */

typedef struct Stats {
    gint64 updated;             /* seconds since 1970 */
    JsonNode *node;             /* holds @values */
    JsonObject *values;
} Stats;

static void stats_clear(Stats *s)
{
    if (s->node) {
        json_node_unref(s->node);
    }
    *s = (Stats) { 0 };
}

static gboolean stats_read(HpbctlVm *vm, Stats *s, GError **err)
{
    JsonObject *object;

    stats_clear(s);
    s->node = hpbctl_vm_get(vm, "guest-stats", err);
    if (!s->node) {
        return FALSE;
    }
    object = JSON_NODE_HOLDS_OBJECT(s->node) ? json_node_get_object(s->node)
                                             : NULL;
    s->updated = hpbctl_get_int(object, "last-update", 0);
    s->values = hpbctl_get_object(object, "stats");
    return TRUE;
}

static gboolean set_interval(HpbctlVm *vm, gint64 seconds, GError **err)
{
    JsonNode *value = json_node_new(JSON_NODE_VALUE);

    json_node_set_int(value, seconds);
    return hpbctl_vm_set(vm, "guest-stats-polling-interval", value, err);
}

/* Wait for numbers that are newer than @than. */
static gboolean stats_wait(HpbctlVm *vm, Stats *s, gint64 than, int seconds,
                           GError **err)
{
    gint64 end = g_get_monotonic_time() / 1000 + (gint64)seconds * 1000 +
                 PATIENCE_MS;

    do {
        if (!stats_read(vm, s, err)) {
            return FALSE;
        }
        if (s->updated > than) {
            return TRUE;
        }
        if (!hpbctl_wait(vm->transport, LOOK_MS, err)) {
            return FALSE;
        }
    } while (g_get_monotonic_time() / 1000 < end);
    g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_TIMEOUT,
                "%s: the guest gives no statistics; is it running, and its "
                "balloon driver loaded? ('hpbctl status')", vm->name);
    return FALSE;
}

static gboolean is_told(gint64 value)
{
    return value >= 0 && value != G_MAXINT64;
}

static HpbctlExit print_stats(const HpbctlContext *ctx, const HpbctlVm *vm,
                              const Stats *s)
{
    g_autoptr(GList) names = s->values ? json_object_get_members(s->values)
                                       : NULL;
    JsonBuilder *b = ctx->json ? json_builder_new() : NULL;
    g_autoptr(GDateTime) time = g_date_time_new_from_unix_local(s->updated);
    g_autofree char *when = time ? g_date_time_format(time, "%F %T")
                                 : g_strdup("?");

    if (b) {
        json_builder_begin_object(b);
        hpbctl_json_string(b, "name", vm->name);
        hpbctl_json_int(b, "last-update", s->updated);
    } else {
        hpbctl_row(vm->name, "%s", when);
    }
    for (GList *l = names; l; l = l->next) {
        const char *name = l->data;
        gint64 value = hpbctl_get_int(s->values, name, -1);

        if (b && is_told(value)) {
            hpbctl_json_int(b, name, value);
        } else if (is_told(value)) {
            hpbctl_row(name, "%" G_GINT64_FORMAT, value);
        }
    }
    if (b) {
        json_builder_end_object(b);
        return hpbctl_print_json(b);
    }
    return hpbctl_finish();
}

static HpbctlExit show(const HpbctlContext *ctx, HpbctlVm *vm, int watch,
                       GError **err)
{
    HpbctlExit result = HPBCTL_EXIT_OK;
    Stats s = { 0 };
    gint64 last;

    if (stats_read(vm, &s, err)) {
        do {
            last = s.updated;
            if (!stats_wait(vm, &s, last, watch, err)) {
                break;
            }
            result = print_stats(ctx, vm, &s);
        } while (watch && result == HPBCTL_EXIT_OK);
    }
    stats_clear(&s);
    return result;
}

static HpbctlExit run(const HpbctlContext *ctx, const char *name, int watch)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(GError) restore = NULL;
    g_autoptr(HpbctlVm) vm = hpbctl_vm_open(ctx, name, &err);
    g_autoptr(JsonNode) before = NULL;
    HpbctlExit result;

    if (!vm || !hpbctl_vm_need_balloon(vm, FALSE, "statistics", &err)) {
        return hpbctl_fail(err);
    }
    before = hpbctl_vm_get(vm, "guest-stats-polling-interval", &err);
    if (!before) {
        return hpbctl_fail(err);
    }
    hpbctl_interrupt_arm();
    if (!set_interval(vm, watch ? watch : 1, &err)) {
        return hpbctl_fail(err);
    }
    result = show(ctx, vm, watch, &err);
    /* Also after Ctrl-C, whose flag would end this command too */
    hpbctl_interrupt_taken();
    if (!g_error_matches(err, HPBCTL_ERROR, HPBCTL_ERROR_GONE) &&
        !set_interval(vm, JSON_NODE_HOLDS_VALUE(before)
                      ? json_node_get_int(before) : 0, &restore)) {
        fprintf(stderr, "hpbctl: the polling interval of %s stays changed: "
                "%s\n", vm->name, restore->message);
        result = HPBCTL_EXIT_FAILED;
    }
    return err ? hpbctl_fail(err) : result;
}

HpbctlExit hpbctl_cmd_stats(const HpbctlContext *ctx, int argc, char **argv)
{
    int watch = 0;
    const GOptionEntry entries[] = {
        { "watch", 'w', 0, G_OPTION_ARG_INT, &watch,
          "Again and again, until Ctrl-C", "SECONDS" },
        G_OPTION_ENTRY_NULL
    };

    if (!hpbctl_parse(entries, "stats VM", 1, &argc, &argv)) {
        return HPBCTL_EXIT_USAGE;
    }
    if (watch < 0 || watch > 86400) {
        fprintf(stderr, "hpbctl: stats: --watch takes 1 to 86400 seconds\n");
        return HPBCTL_EXIT_USAGE;
    }
    return run(ctx, argv[1], watch);
}
