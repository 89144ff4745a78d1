/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: command line
 *
 * Not a step of the data path. Options before the command hold for all of them
 * and make the context; what follows is the command's. Nothing is read from a
 * file: a fleet's tools give everything on the command line, and a person has
 * HPBCTL_DIR and LIBVIRT_DEFAULT_URI. Rejected: GApplication, which wants a main
 * loop and a bus.
 */
#include <locale.h>
#include <signal.h>
#include <string.h>
#include "ctl.h"

#define DEFAULT_DIR "/run/hpb"
#define DEFAULT_SECONDS 5
#define MAX_SECONDS 3600

typedef struct Command {
    const char *name;
    HpbctlCommandFunc *run;
    const char *usage;
    const char *summary;
} Command;

static const Command commands[] = {
    { "list", hpbctl_cmd_list, "[--names]", "VMs with a socket, domains of "
      "libvirt" },
    { "status", hpbctl_cmd_status, "VM", "size, target, memory, refusals" },
    { "resize", hpbctl_cmd_resize, "[--node N] [--wait] VM SIZE", "ask for "
      "another size" },
    { "stats", hpbctl_cmd_stats, "[--watch SECONDS] VM", "what the guest says "
      "of its memory" },
    { "host", hpbctl_cmd_host, "", "free memory, huge pages, pressure" },
    { "map", hpbctl_cmd_map, "[--svg FILE] [--png FILE] VM", "guest memory by "
      "2 MiB range" },
    { "libvirt", hpbctl_cmd_libvirt, "enable|disable|check DOMAIN|FILE",
      "change a domain's definition" },
};

static char *summary(void)
{
    GString *text = g_string_new("Commands:\n");

    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        g_autofree char *call = g_strconcat(commands[i].name, " ",
                                            commands[i].usage, NULL);

        g_string_append_printf(text, "  %-41s %s\n", call, commands[i].summary);
    }
    g_string_append(text, "\nVM is the path of a QMP socket, the name of one "
                    "in the directory, or the name,\nUUID or id of a domain "
                    "of libvirt; of a name that is both, the socket is meant,"
                    "\nunless --connect says otherwise.\n'hpbctl COMMAND --help' tells a "
                    "command's options.\n\nExit status: 0 done, 1 failed, "
                    "2 wrong use, 3 stopped short of the size,\n130 "
                    "interrupted.");
    return g_string_free(text, FALSE);
}

static const Command *find_command(const char *name)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(commands); i++) {
        if (!strcmp(name, commands[i].name)) {
            return &commands[i];
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    gboolean version = FALSE, json = FALSE;
    int seconds = DEFAULT_SECONDS;
    g_autofree char *dir = NULL;
    g_autofree char *uri = NULL;
    const GOptionEntry entries[] = {
        { "json", 'j', 0, G_OPTION_ARG_NONE, &json,
          "Print JSON; keys are in hpbctl(1)", NULL },
        { "dir", 'd', 0, G_OPTION_ARG_FILENAME, &dir,
          "Where the QMP sockets are (HPBCTL_DIR, else " DEFAULT_DIR ")",
          "DIRECTORY" },
        { "connect", 'c', 0, G_OPTION_ARG_STRING, &uri,
          "libvirt's connection (LIBVIRT_DEFAULT_URI, else it chooses)",
          "URI" },
        { "answer", 0, 0, G_OPTION_ARG_INT, &seconds,
          "Give up when QEMU or libvirt is silent so long (5)", "SECONDS" },
        { "version", 'V', 0, G_OPTION_ARG_NONE, &version,
          "Print the version", NULL },
        G_OPTION_ENTRY_NULL
    };
    g_autoptr(GOptionContext) options = g_option_context_new("COMMAND …");
    g_autofree char *text = summary();
    g_autoptr(GError) err = NULL;
    const char *env = g_getenv("HPBCTL_DIR");
    HpbctlContext ctx;
    const Command *command;

    setlocale(LC_ALL, "");
    signal(SIGPIPE, SIG_IGN);
    g_option_context_add_main_entries(options, entries, NULL);
    g_option_context_set_summary(options, text);
    g_option_context_set_strict_posix(options, TRUE);
    if (!g_option_context_parse(options, &argc, &argv, &err)) {
        return hpbctl_fail(err);
    }
    if (version) {
        puts("hpbctl " HPBCTL_VERSION);
        return hpbctl_finish();
    }
    if (seconds < 1 || seconds > MAX_SECONDS) {
        fprintf(stderr, "hpbctl: --answer %d: give 1 to %d seconds\n", seconds,
                MAX_SECONDS);
        return HPBCTL_EXIT_USAGE;
    }
    if (dir && uri) {
        fprintf(stderr, "hpbctl: --dir is for QMP sockets and --connect for "
                "libvirt; give one of them\n");
        return HPBCTL_EXIT_USAGE;
    }
    command = argc > 1 ? find_command(argv[1]) : NULL;
    if (!command) {
        fprintf(stderr, argc > 1 ? "hpbctl: no command '%s'; 'hpbctl --help' "
                "lists them\n" : "hpbctl: which command? 'hpbctl --help' lists "
                "them%s\n", argc > 1 ? argv[1] : "");
        return HPBCTL_EXIT_USAGE;
    }
    ctx = (HpbctlContext) {
        .json = json,
        .place = dir ? HPBCTL_PLACE_DIR : uri ? HPBCTL_PLACE_LIBVIRT
                                              : HPBCTL_PLACE_ANY,
        .dir = dir ? dir : env && *env ? env : DEFAULT_DIR,
        .uri = uri,
        .connect_ms = (unsigned)seconds * 1000,
        .command_ms = (unsigned)seconds * 1000,
    };
    return command->run(&ctx, argc - 1, argv + 1);
}
