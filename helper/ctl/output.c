/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: results and errors, and reading JSON without trusting it
 *
 * Not a step of the data path. Results go to stdout, all else to stderr, so
 * that a pipe sees results alone. What QEMU sends is read by functions that
 * check the type: a newer or older QEMU gives a default, never an abort.
 */
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include "ctl.h"

#define LABEL_COLUMNS 22

G_DEFINE_QUARK(hpbctl_error, hpbctl_error)

HpbctlExit hpbctl_fail(const GError *err)
{
    fflush(stdout);
    fprintf(stderr, "hpbctl: %s\n", err->message);
    if (err->domain == G_OPTION_ERROR) {
        return HPBCTL_EXIT_USAGE;
    }
    if (err->domain != HPBCTL_ERROR) {
        return HPBCTL_EXIT_FAILED;
    }
    switch ((HpbctlError)err->code) {
    case HPBCTL_ERROR_USAGE:
        return HPBCTL_EXIT_USAGE;
    case HPBCTL_ERROR_INTERRUPTED:
        return HPBCTL_EXIT_INTERRUPTED;
    case HPBCTL_ERROR_CONNECT:
    case HPBCTL_ERROR_BUSY:
    case HPBCTL_ERROR_TIMEOUT:
    case HPBCTL_ERROR_GONE:
    case HPBCTL_ERROR_LOST:
    case HPBCTL_ERROR_PROTOCOL:
    case HPBCTL_ERROR_COMMAND:
    case HPBCTL_ERROR_UNSUPPORTED:
    default:
        return HPBCTL_EXIT_FAILED;
    }
}

HpbctlExit hpbctl_worse(HpbctlExit one, HpbctlExit other)
{
    return MAX(one, other);
}

HpbctlExit hpbctl_finish(void)
{
    if (fflush(stdout) || ferror(stdout)) {
        fprintf(stderr, "hpbctl: cannot write the result: %s\n",
                g_strerror(errno));
        return HPBCTL_EXIT_FAILED;
    }
    return HPBCTL_EXIT_OK;
}

HpbctlExit hpbctl_print_json(JsonBuilder *builder)
{
    g_autoptr(JsonGenerator) generator = json_generator_new();
    g_autoptr(JsonNode) root = json_builder_get_root(builder);
    g_autofree char *text = NULL;

    json_generator_set_root(generator, root);
    json_generator_set_pretty(generator, TRUE);
    text = json_generator_to_data(generator, NULL);
    puts(text);
    g_object_unref(builder);
    return hpbctl_finish();
}

void hpbctl_json_string(JsonBuilder *b, const char *name, const char *value)
{
    json_builder_set_member_name(b, name);
    if (value) {
        json_builder_add_string_value(b, value);
    } else {
        json_builder_add_null_value(b);
    }
}

void hpbctl_json_int(JsonBuilder *b, const char *name, gint64 value)
{
    json_builder_set_member_name(b, name);
    json_builder_add_int_value(b, value);
}

void hpbctl_json_bool(JsonBuilder *b, const char *name, gboolean value)
{
    json_builder_set_member_name(b, name);
    json_builder_add_boolean_value(b, value);
}

void hpbctl_json_node(JsonBuilder *b, const char *name, JsonNode *node)
{
    json_builder_set_member_name(b, name);
    if (node) {
        json_builder_add_value(b, json_node_copy(node));
    } else {
        json_builder_add_null_value(b);
    }
}

static JsonNode *get_member(JsonObject *object, const char *name)
{
    return object ? json_object_get_member(object, name) : NULL;
}

gint64 hpbctl_get_int(JsonObject *object, const char *name, gint64 otherwise)
{
    JsonNode *node = get_member(object, name);

    return node && JSON_NODE_HOLDS_VALUE(node) &&
           json_node_get_value_type(node) == G_TYPE_INT64
           ? json_node_get_int(node) : otherwise;
}

gboolean hpbctl_get_bool(JsonObject *object, const char *name,
                         gboolean otherwise)
{
    JsonNode *node = get_member(object, name);

    return node && JSON_NODE_HOLDS_VALUE(node) &&
           json_node_get_value_type(node) == G_TYPE_BOOLEAN
           ? json_node_get_boolean(node) : otherwise;
}

const char *hpbctl_get_string(JsonObject *object, const char *name,
                              const char *otherwise)
{
    JsonNode *node = get_member(object, name);

    return node && JSON_NODE_HOLDS_VALUE(node) &&
           json_node_get_value_type(node) == G_TYPE_STRING
           ? json_node_get_string(node) : otherwise;
}

JsonObject *hpbctl_get_object(JsonObject *object, const char *name)
{
    JsonNode *node = get_member(object, name);

    return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node)
                                                : NULL;
}

void hpbctl_row(const char *label, const char *format, ...)
{
    va_list args;

    printf("%-*s", LABEL_COLUMNS, label);
    va_start(args, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): it is, just above */
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

gboolean hpbctl_parse(const GOptionEntry *entries, const char *usage,
                      int positional, int *argc, char ***argv)
{
    g_autoptr(GOptionContext) options = g_option_context_new(NULL);
    g_autofree char *program = g_strconcat("hpbctl ", usage, NULL);
    g_autoptr(GError) err = NULL;

    g_set_prgname(program);
    g_option_context_add_main_entries(options, entries, NULL);
    if (!g_option_context_parse(options, argc, argv, &err)) {
        hpbctl_fail(err);
        return FALSE;
    }
    if (*argc > 1 && !strcmp((*argv)[1], "--")) {
        (*argv)++;
        (*argc)--;
    }
    if (*argc != positional + 1) {
        fprintf(stderr, "hpbctl: %s words after the command; usage: hpbctl "
                "[OPTION…] %s\n", *argc > positional + 1 ? "too many"
                                                        : "too few", usage);
        return FALSE;
    }
    return TRUE;
}
