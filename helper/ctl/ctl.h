/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: what its parts know of each other
 *
 *   main.c          command line
 *   cmd-*.c         one command each
 *   resize.c        a change of size
 *   vm.c, vm-find.c, vm-status.c    which VM, what it is and has
 *   transport.c, qmp.c, virt-transport.c    QMP by a socket, or by libvirt
 *   virt.c, virt-domain.c   a libvirt connection and its domains
 *   map-text.c, map-picture.c   a map for the terminal, as SVG and PNG
 *   map-blocks.c    where QEMU has RAM, for balloons that do not tell
 *   map.c           which memory is what, by 2 MiB range (pure)
 *   hostview.c      what the host holds for another process
 *   domain.c        libvirt's definitions (pure)
 *   interrupt.c     signals
 *   output.c, size.c   tables, JSON, sizes
 *
 * Calls go down this list. A command gets a context and what is left of the
 * command line, prints its result on stdout and everything else on stderr, and
 * returns the exit status. JSON keys are an interface: they are documented in
 * hpbctl(1), names and units (bytes, seconds) do not change.
 */
#ifndef HPBCTL_CTL_H
#define HPBCTL_CTL_H

#include <stdio.h>
#include <glib.h>
#include <json-glib/json-glib.h>

G_BEGIN_DECLS

/* Exit status; documented in hpbctl(1) */
typedef enum HpbctlExit {
    HPBCTL_EXIT_OK = 0,
    HPBCTL_EXIT_FAILED = 1,
    HPBCTL_EXIT_USAGE = 2,
    HPBCTL_EXIT_SHORT = 3,          /* the size was not reached, or not in time */
    HPBCTL_EXIT_INTERRUPTED = 130,
} HpbctlExit;

#define HPBCTL_ERROR (hpbctl_error_quark())

typedef enum HpbctlError {
    HPBCTL_ERROR_USAGE,
    HPBCTL_ERROR_CONNECT,       /* no VM there */
    HPBCTL_ERROR_BUSY,          /* another client has the socket */
    HPBCTL_ERROR_TIMEOUT,       /* QEMU does not answer */
    HPBCTL_ERROR_GONE,          /* QEMU ended */
    HPBCTL_ERROR_LOST,          /* the way to QEMU, which may go on */
    HPBCTL_ERROR_PROTOCOL,      /* what is there does not speak QMP */
    HPBCTL_ERROR_COMMAND,       /* QEMU answered with an error */
    HPBCTL_ERROR_INTERRUPTED,   /* by a signal, see interrupt.c */
    HPBCTL_ERROR_UNSUPPORTED,   /* this VM or this host cannot do it */
} HpbctlError;

GQuark hpbctl_error_quark(void);

/* Where VMs are looked for */
typedef enum HpbctlPlace {
    HPBCTL_PLACE_ANY,           /* the directory, then libvirt */
    HPBCTL_PLACE_DIR,           /* the command line names a directory */
    HPBCTL_PLACE_LIBVIRT,       /* ... a connection */
} HpbctlPlace;

typedef struct HpbctlContext {
    gboolean json;
    HpbctlPlace place;
    const char *dir;            /* where NAME.sock and the like are */
    const char *uri;            /* libvirt's connection; NULL: its default */
    unsigned connect_ms;        /* to wait for a socket's greeting */
    unsigned command_ms;        /* to wait for an answer */
} HpbctlContext;

typedef HpbctlExit HpbctlCommandFunc(const HpbctlContext *ctx, int argc,
                                     char **argv);

HpbctlCommandFunc hpbctl_cmd_list;
HpbctlCommandFunc hpbctl_cmd_status;
HpbctlCommandFunc hpbctl_cmd_resize;
HpbctlCommandFunc hpbctl_cmd_stats;
HpbctlCommandFunc hpbctl_cmd_map;
HpbctlCommandFunc hpbctl_cmd_host;
HpbctlCommandFunc hpbctl_cmd_libvirt;

/*
 * Parse the options of a command; what is left in argv[1] .. must be
 * @positional words. FALSE: it was wrong, and has been said.
 */
gboolean hpbctl_parse(const GOptionEntry *entries, const char *usage,
                      int positional, int *argc, char ***argv);

/* The worse of two; a function, for MAX() would print twice */
HpbctlExit hpbctl_worse(HpbctlExit one, HpbctlExit other);

/* Print "hpbctl: ..." for @err, and return the exit status that goes with it */
HpbctlExit hpbctl_fail(const GError *err);

/* Print the built JSON on stdout; takes @builder. OK, or FAILED and a message */
HpbctlExit hpbctl_print_json(JsonBuilder *builder);

/* Close to a JSON object's member of that name and type */
void hpbctl_json_string(JsonBuilder *b, const char *name, const char *value);
void hpbctl_json_int(JsonBuilder *b, const char *name, gint64 value);
void hpbctl_json_bool(JsonBuilder *b, const char *name, gboolean value);
/* A copy of @node, null if it is NULL */
void hpbctl_json_node(JsonBuilder *b, const char *name, JsonNode *node);

/* Members of @object, which may be NULL; @otherwise if missing or not of type */
gint64 hpbctl_get_int(JsonObject *object, const char *name, gint64 otherwise);
gboolean hpbctl_get_bool(JsonObject *object, const char *name,
                         gboolean otherwise);
const char *hpbctl_get_string(JsonObject *object, const char *name,
                              const char *otherwise);
JsonObject *hpbctl_get_object(JsonObject *object, const char *name);

/* "label   value" with the value in a column of its own */
void hpbctl_row(const char *label, const char *format, ...)
    G_GNUC_PRINTF(2, 3);

/* Flush stdout. OK, or FAILED and a message if what was printed is lost */
HpbctlExit hpbctl_finish(void);

/*
 * Sizes. Parsed: a number, maybe with a fraction, and K, M, G, T (1024 and so
 * on; "MiB" and "m" too) or B for bytes. A unit is needed: other tools take
 * plain numbers as KiB, MiB or bytes, and the guest would pay for the guess.
 */
gboolean hpbctl_size_parse(const char *text, guint64 *size, GError **err);
/* "1.5 GiB"; exact sizes without fraction. Free with g_free(). */
char *hpbctl_size_format(guint64 size);

/*
 * Signals. After hpbctl_interrupt_arm() SIGINT and SIGTERM no longer end the
 * program but make waiting transports return HPBCTL_ERROR_INTERRUPTED, once.
 */
void hpbctl_interrupt_arm(void);
/* Whether one came since the last call */
gboolean hpbctl_interrupt_taken(void);
/*
 * poll() of one descriptor, fd -1: just wait. Returns 1: something is there,
 * 0: not in time, -1: interrupted, or errno is something else than EINTR.
 */
int hpbctl_interrupt_poll(int fd, short events, gint64 ms);

G_END_DECLS

#endif /* HPBCTL_CTL_H */
