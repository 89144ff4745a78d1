/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl resize: ask for a size, and on request wait until the guest has it
 *
 * The request is QEMU's from the moment it was sent: nothing that happens to
 * this program afterwards takes it back, and each way out says so. It gives up
 * waiting when the size has not changed for a while, not only when the time is
 * over: a guest that has no more to give is found in seconds.
 */
#include <unistd.h>
#include "resize.h"

#define LOOK_MS 20
#define LINE_SECONDS 1.0        /* between lines, when it is no terminal */
#define STALL_SECONDS 10.0      /* a busy guest under memory pressure pauses */
#define BAR_COLUMNS 30

typedef struct Wait {
    gint64 begin;               /* monotonic, µs */
    gint64 changed;             /* when the size was last another one */
    double shown;               /* seconds at which something was printed */
    double seconds;
    gboolean tty;
    gboolean quiet;
} Wait;

static double since(gint64 moment)
{
    return (double)(g_get_monotonic_time() - moment) / G_USEC_PER_SEC;
}

static void show(Wait *w, const HpbctlResize *r, gboolean last)
{
    g_autofree char *line = NULL;

    w->seconds = since(w->begin);
    if (w->quiet || (!last && !w->tty && w->seconds - w->shown < LINE_SECONDS)) {
        return;
    }
    w->shown = w->seconds;
    line = hpbctl_resize_line(r, w->seconds, w->tty ? BAR_COLUMNS : 0);
    fprintf(stderr, w->tty ? last ? "\r%s\033[K\n" : "\r%s\033[K" : "%s\n",
            line);
}

/* Until it is reached, stalls, or @timeout (seconds; 0: none) is over */
static gboolean wait_for_it(HpbctlVm *vm, HpbctlResize *r, int timeout, Wait *w,
                            GError **err)
{
    gboolean ok = TRUE;

    w->changed = g_get_monotonic_time();
    while (!r->reached && (!timeout || since(w->begin) < timeout) &&
           since(w->changed) < STALL_SECONDS) {
        guint64 before = r->size;

        show(w, r, FALSE);
        ok = hpbctl_wait(vm->transport, LOOK_MS, err) &&
             hpbctl_resize_look(vm, r, err);
        if (!ok) {
            break;
        }
        if (r->size != before) {
            w->changed = g_get_monotonic_time();
        }
    }
    show(w, r, TRUE);
    return ok;
}

static HpbctlExit print_json(const HpbctlVm *vm, const HpbctlResize *r,
                             const Wait *w, const char *reason)
{
    JsonBuilder *b = json_builder_new();
    guint64 moved = r->size > r->start ? r->size - r->start
                                       : r->start - r->size;

    json_builder_begin_object(b);
    hpbctl_json_string(b, "name", vm->name);
    if (r->node >= 0) {
        hpbctl_json_int(b, "node", r->node);
    }
    hpbctl_json_int(b, "from", (gint64)r->start);
    hpbctl_json_int(b, "asked", (gint64)r->asked);
    hpbctl_json_int(b, "target", (gint64)r->goal);
    hpbctl_json_int(b, "size", (gint64)r->size);
    hpbctl_json_bool(b, "reached", r->reached);
    json_builder_set_member_name(b, "seconds");
    json_builder_add_double_value(b, w->seconds);
    json_builder_set_member_name(b, "bytes-per-second");
    json_builder_add_double_value(b, w->seconds > 0
                                  ? (double)moved / w->seconds : 0);
    hpbctl_json_string(b, "reason", reason);
    json_builder_end_object(b);
    return hpbctl_print_json(b);
}

static HpbctlExit print_text(const HpbctlVm *vm, const HpbctlResize *r,
                             const Wait *w, gboolean waited)
{
    g_autofree char *size = hpbctl_size_format(r->size);
    g_autofree char *goal = hpbctl_size_format(r->goal);

    if (r->reached) {
        printf("%s has %s, after %.3f s\n", vm->name, size, w->seconds);
    } else if (waited) {
        printf("%s has %s of %s, after %.3f s\n", vm->name, size, goal,
               w->seconds);
    } else {
        printf("%s has %s and was asked for %s\n", vm->name, size, goal);
    }
    return hpbctl_finish();
}

/* Say what state an interrupted or failed wait has left. */
static void say_state(const HpbctlContext *ctx, const char *name,
                      const HpbctlResize *r)
{
    g_autofree char *call = ctx->uri ? g_strdup_printf("hpbctl --connect %s",
                                                       ctx->uri)
                                     : g_strdup("hpbctl");
    g_autofree char *goal = hpbctl_size_format(r->goal);
    g_autofree char *size = hpbctl_size_format(r->size);
    g_autofree char *now = hpbctl_size_argument(r->size);
    g_autofree char *start = hpbctl_size_argument(r->start);
    g_autofree char *node = r->node < 0 ? g_strdup("")
                                        : g_strdup_printf(" --node %d", r->node);

    fprintf(stderr, "hpbctl: the request stays: the guest goes on from %s to "
            "%s. '%s resize%s %s %s' stops it there, '%s resize%s %s %s' takes "
            "it back\n", size, goal, call, node, name, now, call, node, name,
            start);
}

static HpbctlExit run(const HpbctlContext *ctx, const char *name,
                      HpbctlResize *r, gboolean wait, int timeout)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(HpbctlVm) vm = hpbctl_vm_open(ctx, name, &err);
    g_autofree char *reason = NULL;
    Wait w = { .tty = isatty(STDERR_FILENO), .quiet = ctx->json };
    HpbctlExit result;

    if (!vm) {
        return hpbctl_fail(err);
    }
    hpbctl_interrupt_arm();
    w.begin = g_get_monotonic_time();
    if (!hpbctl_resize_start(vm, r, &err)) {
        result = hpbctl_fail(err);
        if (g_error_matches(err, HPBCTL_ERROR, HPBCTL_ERROR_INTERRUPTED) ||
            g_error_matches(err, HPBCTL_ERROR, HPBCTL_ERROR_TIMEOUT) ||
            g_error_matches(err, HPBCTL_ERROR, HPBCTL_ERROR_LOST)) {
            fprintf(stderr, "hpbctl: QEMU may have taken the request already; "
                    "'hpbctl status %s' shows the target\n", name);
        }
        return result;
    }
    w.seconds = since(w.begin);
    if (wait && !wait_for_it(vm, r, timeout, &w, &err)) {
        result = hpbctl_fail(err);
        if (!g_error_matches(err, HPBCTL_ERROR, HPBCTL_ERROR_GONE)) {
            say_state(ctx, name, r);
        }
        return result;
    }
    if (wait && !r->reached) {
        reason = hpbctl_resize_reason(vm, r, &err);
        if (!reason) {
            return hpbctl_fail(err);
        }
    }
    result = ctx->json ? print_json(vm, r, &w, reason)
                       : print_text(vm, r, &w, wait);
    if (reason) {
        fprintf(stderr, "hpbctl: stopped short: %s\n", reason);
        say_state(ctx, name, r);
        return hpbctl_worse(result, HPBCTL_EXIT_SHORT);
    }
    return result;
}

HpbctlExit hpbctl_cmd_resize(const HpbctlContext *ctx, int argc, char **argv)
{
    HpbctlResize r = { .node = -1 };
    gboolean wait = FALSE;
    int timeout = 0;
    const GOptionEntry entries[] = {
        { "node", 'n', 0, G_OPTION_ARG_INT, &r.node,
          "Resize this NUMA node of the guest; the others keep their size",
          "N" },
        { "wait", 'w', 0, G_OPTION_ARG_NONE, &wait,
          "Wait until the guest has the size, or gets no further", NULL },
        { "timeout", 't', 0, G_OPTION_ARG_INT, &timeout,
          "With --wait: wait no longer than that", "SECONDS" },
        G_OPTION_ENTRY_NULL
    };
    g_autoptr(GError) err = NULL;

    if (!hpbctl_parse(entries, "resize VM SIZE", 2, &argc, &argv)) {
        return HPBCTL_EXIT_USAGE;
    }
    if (!hpbctl_size_parse(argv[2], &r.asked, &err)) {
        return hpbctl_fail(err);
    }
    if (r.node < -1 || timeout < 0 || (timeout && !wait)) {
        fprintf(stderr, "hpbctl: resize: --node and --timeout are positive "
                "numbers, and --timeout needs --wait\n");
        return HPBCTL_EXIT_USAGE;
    }
    return run(ctx, argv[1], &r, wait, timeout);
}
