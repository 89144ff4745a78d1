/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl libvirt: turn a domain's definition into one with our balloon, or back
 *
 * Of a domain that libvirt has, the definition is read and the changed one is
 * defined, after libvirt has validated it; the running guest stays as it is
 * until its next start, and whether that is needed is said. A file or stdin is
 * filtered: the changed definition goes to stdout and the file stays, so it
 * works in a hook and behind virt-install --print-xml, without any libvirt.
 *
 * A name without '/' that is a file here is the file: what a filter does to it
 * changes nothing, so the wrong guess is the harmless one.
 */
#include <string.h>
#include "domain.h"
#include "virt.h"

#define MAX_XML ((gsize)64 << 20)

typedef enum Action {
    ACTION_CHECK,
    ACTION_ENABLE,
    ACTION_DISABLE,
} Action;

/* What a domain of libvirt is like, now and at its next start */
typedef struct State {
    gboolean running;
    gboolean runs_with;         /* our device, now */
    gboolean saved;             /* a saved state is what starts next */
} State;

/* All of @name, "-" is stdin; NULL with an error. */
static char *read_all(const char *name, GError **err)
{
    GString *text;
    char chunk[8192];
    size_t got;
    char *content = NULL;

    if (strcmp(name, "-") != 0) {
        if (!g_file_get_contents(name, &content, NULL, err)) {
            g_prefix_error(err, "cannot read the definition: ");
        }
        return content;
    }
    text = g_string_new(NULL);
    while (text->len < MAX_XML &&
           (got = fread(chunk, 1, sizeof(chunk), stdin)) > 0) {
        g_string_append_len(text, chunk, (gssize)got);
    }
    return g_string_free(text, FALSE);
}

static HpbctlExit filter(const HpbctlContext *ctx, Action action,
                         const char *name, const char *emulator)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *xml = read_all(name, &err);
    g_autofree char *changed = NULL;
    gboolean uses = FALSE;
    JsonBuilder *b;

    if (!xml) {
        return hpbctl_fail(err);
    }
    if (action != ACTION_CHECK) {
        changed = hpbctl_domain_change(xml, action == ACTION_ENABLE, emulator,
                                       &err);
        if (!changed) {
            return hpbctl_fail(err);
        }
        fputs(changed, stdout);
        return hpbctl_finish();
    }
    if (!hpbctl_domain_check(xml, &uses, &err)) {
        return hpbctl_fail(err);
    }
    if (ctx->json) {
        b = json_builder_new();
        json_builder_begin_object(b);
        hpbctl_json_bool(b, "enabled", uses);
        json_builder_end_object(b);
        hpbctl_print_json(b);
    } else {
        puts(uses ? "the domain uses virtio-balloon-hp"
                  : "the domain uses the traditional virtio-balloon; 'hpbctl "
                    "libvirt enable' changes that");
    }
    return hpbctl_worse(hpbctl_finish(), uses ? HPBCTL_EXIT_OK
                                              : HPBCTL_EXIT_FAILED);
}

/* flag: has a saved state. number: is persistent */
static int read_kind(virConnectPtr conn G_GNUC_UNUSED, HpbctlVirtJob *job)
{
    int persistent = virDomainIsPersistent(job->domain);
    int saved = persistent > 0 ? virDomainHasManagedSaveImage(job->domain, 0)
                               : 0;

    job->flag = saved > 0;
    job->number = persistent > 0;
    return persistent < 0 ? -1 : 0;
}

/* text: the definition */
static int define(virConnectPtr conn, HpbctlVirtJob *job)
{
    job->domain = virDomainDefineXMLFlags(conn, job->text,
                                          VIR_DOMAIN_DEFINE_VALIDATE);
    return job->domain ? 0 : -1;
}

static gboolean read_state(HpbctlVirt *v, const HpbctlVirtDomain *d,
                           State *state, GError **err)
{
    g_autoptr(HpbctlVirtJob) job = hpbctl_virt_job_new(read_kind, d->domain);
    g_autofree char *live = NULL;

    if (!hpbctl_virt_call(v, job, d->where, "look at it", err)) {
        return FALSE;
    }
    if (!job->number) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_UNSUPPORTED,
                    "%s is transient, so libvirt keeps no definition of it: "
                    "change the one that it is created from ('hpbctl libvirt "
                    "enable FILE')", d->where);
        return FALSE;
    }
    *state = (State) { .running = d->id >= 0, .saved = job->flag };
    if (!state->running) {
        return TRUE;
    }
    live = hpbctl_virt_definition(v, d, TRUE, err);
    return live && hpbctl_domain_check(live, &state->runs_with, err);
}

/* Define @d, which is @xml now, anew if that makes a difference. */
static gboolean change(HpbctlVirt *v, const HpbctlVirtDomain *d,
                       const char *xml, gboolean enable, const char *emulator,
                       gboolean *changed, GError **err)
{
    g_autoptr(HpbctlVirtJob) job = hpbctl_virt_job_new(define, NULL);

    job->text = hpbctl_domain_change(xml, enable, emulator, err);
    *changed = job->text && strcmp(job->text, xml) != 0;
    return job->text &&
           (!*changed ||
            hpbctl_virt_call(v, job, d->where, "define it anew", err));
}

static HpbctlExit print_state(const HpbctlContext *ctx,
                              const HpbctlVirtDomain *d, const State *state,
                              gboolean uses, gboolean changed)
{
    gboolean restart = state->running &&
                       (changed || state->runs_with != uses);
    const char *now = state->runs_with ? "virtio-balloon-hp"
                                       : "the traditional virtio-balloon";
    JsonBuilder *b;

    if (ctx->json) {
        b = json_builder_new();
        json_builder_begin_object(b);
        hpbctl_json_string(b, "name", d->name);
        hpbctl_json_string(b, "uuid", d->uuid);
        hpbctl_json_bool(b, "enabled", uses);
        hpbctl_json_bool(b, "changed", changed);
        hpbctl_json_bool(b, "running", state->running);
        hpbctl_json_bool(b, "restart-needed", restart);
        hpbctl_json_bool(b, "saved", state->saved);
        json_builder_end_object(b);
        return hpbctl_print_json(b);
    }
    printf("%s %s %s\n", d->where, changed ? "is now defined with" :
           "is defined with", uses ? "virtio-balloon-hp"
                                   : "the traditional virtio-balloon");
    if (restart) {
        printf("it is running with %s: shut it down and start it again (a "
               "reboot from inside is not enough)\n", now);
    } else if (state->saved) {
        printf("it has a saved state, which starts with the device it was "
               "saved with: start it and shut it down, or 'virsh "
               "managedsave-remove %s'\n", d->name);
    }
    return hpbctl_finish();
}

static HpbctlExit domain(const HpbctlContext *ctx, Action action,
                         const char *name, const char *emulator)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(HpbctlVirt) v = hpbctl_virt_open(ctx, &err);
    g_autoptr(HpbctlVirtDomain) d = v ? hpbctl_virt_find(v, name, &err) : NULL;
    g_autofree char *xml = NULL;
    State state = { 0 };
    gboolean uses, changed = FALSE;
    HpbctlExit result;

    if (!d || !read_state(v, d, &state, &err)) {
        if (!v && ctx->place == HPBCTL_PLACE_ANY) {
            g_prefix_error(&err, "no file '%s' here, and with libvirt: ", name);
        }
        return hpbctl_fail(err);
    }
    xml = hpbctl_virt_definition(v, d, FALSE, &err);
    if (!xml || !hpbctl_domain_check(xml, &uses, &err)) {
        return hpbctl_fail(err);
    }
    if (action != ACTION_CHECK) {
        uses = action == ACTION_ENABLE;
        if (!change(v, d, xml, uses, emulator, &changed, &err)) {
            return hpbctl_fail(err);
        }
    }
    result = print_state(ctx, d, &state, uses, changed);
    return hpbctl_worse(result, action == ACTION_CHECK && !uses
                                ? HPBCTL_EXIT_FAILED : HPBCTL_EXIT_OK);
}

static gboolean is_file(const HpbctlContext *ctx, const char *name)
{
    return !strcmp(name, "-") || strchr(name, '/') ||
           (ctx->place != HPBCTL_PLACE_LIBVIRT &&
            g_file_test(name, G_FILE_TEST_EXISTS) &&
            !g_file_test(name, G_FILE_TEST_IS_DIR));
}

/* What can be said of --emulator without looking at a definition */
static gboolean check_emulator(Action action, const char *path)
{
    if (!path) {
        return TRUE;
    }
    if (action == ACTION_CHECK) {
        fprintf(stderr, "hpbctl: libvirt check: it changes nothing, so it takes "
                "no --emulator\n");
        return FALSE;
    }
    if (!g_path_is_absolute(path)) {
        fprintf(stderr, "hpbctl: libvirt: --emulator must be an absolute path, "
                "not '%s'\n", path);
        return FALSE;
    }
    return TRUE;
}

HpbctlExit hpbctl_cmd_libvirt(const HpbctlContext *ctx, int argc, char **argv)
{
    g_autofree char *emulator = NULL;
    const GOptionEntry entries[] = {
        { "emulator", 'e', 0, G_OPTION_ARG_FILENAME, &emulator,
          "Also let this QEMU run the domain, on the host of the domain",
          "PATH" },
        G_OPTION_ENTRY_NULL
    };
    static const char *const actions[] = {
        [ACTION_CHECK] = "check",
        [ACTION_ENABLE] = "enable",
        [ACTION_DISABLE] = "disable",
    };

    if (!hpbctl_parse(entries, "libvirt enable|disable|check DOMAIN|FILE", 2,
                      &argc, &argv)) {
        return HPBCTL_EXIT_USAGE;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(actions); i++) {
        if (!strcmp(argv[1], actions[i])) {
            if (!check_emulator((Action)i, emulator)) {
                return HPBCTL_EXIT_USAGE;
            }
            return is_file(ctx, argv[2])
                   ? filter(ctx, (Action)i, argv[2], emulator)
                   : domain(ctx, (Action)i, argv[2], emulator);
        }
    }
    fprintf(stderr, "hpbctl: libvirt: '%s' is none of enable, disable, "
            "check\n", argv[1]);
    return HPBCTL_EXIT_USAGE;
}
