/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: a QMP socket
 *
 * Not a step of the data path. Messages are lines of JSON. Each command has an
 * id, so that an answer that comes after its time is known and dropped, and
 * events may come in between at any time. Nothing is waited for without a
 * limit: a QMP socket of QEMU has one client, and a second one connects but is
 * never greeted.
 *
 * Rejected: threads, or GIO's asynchronous streams. There is never more than
 * one thing to wait for, and poll() has the time-out and the signal in one.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "transport.h"

#define READ_BYTES 65536
/* Longest line that is believed: "out-ranges" of a torn 1 TiB guest has 8 MiB */
#define LINE_MIB 64

typedef struct Qmp {
    HpbctlTransport parent;     /* first */
    int fd;
    unsigned command_ms;
    gint64 id;                  /* of the newest command */
    GString *buffer;            /* read, not yet taken */
    gsize searched;             /* of it, without a newline */
    gboolean gone;
    gboolean ended;             /* QEMU said that it shuts down */
} Qmp;

static gint64 now_ms(void)
{
    return g_get_monotonic_time() / 1000;
}

static void set_gone(Qmp *q, GError **err)
{
    q->gone = TRUE;
    g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_GONE,
                "%s: QEMU %s; the VM is gone, start it again if that was not "
                "wanted", q->parent.where,
                q->ended ? "has shut down" : "closed the connection");
}

static void set_poll_error(Qmp *q, GError **err)
{
    if (errno == EINTR) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_INTERRUPTED,
                    "%s: interrupted", q->parent.where);
    } else {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_GONE,
                    "%s: cannot wait for QEMU: %s", q->parent.where,
                    g_strerror(errno));
    }
}

/* Read what is there. FALSE: the other end is closed. */
static gboolean read_more(Qmp *q, GError **err)
{
    char chunk[READ_BYTES];
    ssize_t got = read(q->fd, chunk, sizeof(chunk));

    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return TRUE;
    }
    if (got <= 0) {
        set_gone(q, err);
        return FALSE;
    }
    if (q->buffer->len + (gsize)got > (gsize)LINE_MIB << 20) {
        q->gone = TRUE;
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_PROTOCOL,
                    "%s: an answer of more than %d MiB; this is no QMP socket",
                    q->parent.where, LINE_MIB);
        return FALSE;
    }
    g_string_append_len(q->buffer, chunk, got);
    return TRUE;
}

/* The next line, without waiting; NULL if there is no whole one. */
static char *take_line(Qmp *q)
{
    char *start = q->buffer->str;
    char *end = memchr(start + q->searched, '\n',
                       q->buffer->len - q->searched);
    char *line;

    if (!end) {
        q->searched = q->buffer->len;
        return NULL;
    }
    line = g_strndup(start, (gsize)(end - start));
    g_string_erase(q->buffer, 0, end - start + 1);
    q->searched = 0;
    return line;
}

static JsonNode *parse_line(Qmp *q, const char *line, GError **err)
{
    g_autoptr(JsonNode) node = json_from_string(line, NULL);

    if (!node || !JSON_NODE_HOLDS_OBJECT(node)) {
        q->gone = TRUE;
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_PROTOCOL,
                    "%s does not speak QMP (it said '%.40s'); name a socket "
                    "of -qmp, not of -monitor or a serial port",
                    q->parent.where, line);
        return NULL;
    }
    return g_steal_pointer(&node);
}

/*
 * The next message before @end (ms); NULL without an error: nothing came.
 */
static JsonNode *next_message(Qmp *q, gint64 end, GError **err)
{
    for (;;) {
        g_autofree char *line = take_line(q);
        int ready;

        if (line && *g_strstrip(line)) {
            return parse_line(q, line, err);
        }
        if (line) {
            continue;
        }
        ready = hpbctl_interrupt_poll(q->fd, POLLIN, MAX(end - now_ms(), 0));
        if (ready < 0) {
            set_poll_error(q, err);
            return NULL;
        }
        if (!ready || !read_more(q, err)) {
            return NULL;
        }
    }
}

static gboolean send_all(Qmp *q, const char *text, gsize length, GError **err)
{
    gint64 end = now_ms() + q->command_ms;

    while (length) {
        ssize_t sent = send(q->fd, text, length, MSG_NOSIGNAL);
        int ready;

        if (sent > 0) {
            text += sent;
            length -= (gsize)sent;
            continue;
        }
        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            set_gone(q, err);
            return FALSE;
        }
        ready = hpbctl_interrupt_poll(q->fd, POLLOUT, MAX(end - now_ms(), 0));
        if (ready <= 0) {
            /* Half a command is sent: nothing more can be said here */
            q->gone = TRUE;
            g_set_error(err, HPBCTL_ERROR, ready ? HPBCTL_ERROR_INTERRUPTED
                                                 : HPBCTL_ERROR_TIMEOUT,
                        "%s: QEMU does not read commands", q->parent.where);
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean send_command(Qmp *q, const char *command, JsonObject *arguments,
                             GError **err)
{
    g_autofree char *text = hpbctl_command_text(command, arguments, ++q->id);
    g_autofree char *line = g_strconcat(text, "\n", NULL);

    return send_all(q, line, strlen(line), err);
}

static void note_event(Qmp *q, JsonObject *message)
{
    if (!g_strcmp0(hpbctl_get_string(message, "event", NULL), "SHUTDOWN")) {
        q->ended = TRUE;
    }
}

static JsonNode *qmp_execute(HpbctlTransport *t, const char *command,
                             JsonObject *arguments, GError **err)
{
    Qmp *q = (Qmp *)t;
    gint64 end = now_ms() + q->command_ms;

    if (q->gone) {
        if (arguments) {
            json_object_unref(arguments);
        }
        set_gone(q, err);
        return NULL;
    }
    if (!send_command(q, command, arguments, err)) {
        return NULL;
    }
    for (;;) {
        GError *local = NULL;
        g_autoptr(JsonNode) node = next_message(q, end, &local);
        JsonObject *message;

        if (local) {
            g_propagate_error(err, local);
            return NULL;
        }
        if (!node) {
            g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_TIMEOUT,
                        "%s: QEMU has not answered '%s' within %g s; it hangs "
                        "or is overloaded: look at its process (pid %d)",
                        t->where, command, q->command_ms / 1000.0, (int)t->pid);
            return NULL;
        }
        message = json_node_get_object(node);
        if (json_object_has_member(message, "event")) {
            note_event(q, message);
        } else if (hpbctl_get_int(message, "id", q->id) == q->id) {
            return hpbctl_answer_result(t, command, message, err);
        }
    }
}

static gboolean qmp_wait(HpbctlTransport *t, unsigned ms, GError **err)
{
    Qmp *q = (Qmp *)t;
    GError *local = NULL;
    g_autoptr(JsonNode) node = NULL;

    if (q->gone) {
        set_gone(q, err);
        return FALSE;
    }
    node = next_message(q, now_ms() + ms, &local);
    if (local) {
        g_propagate_error(err, local);
        return FALSE;
    }
    if (node) {
        note_event(q, json_node_get_object(node));
    }
    return TRUE;
}

static void qmp_free(HpbctlTransport *t)
{
    Qmp *q = (Qmp *)t;

    if (q->fd >= 0) {
        close(q->fd);
    }
    g_string_free(q->buffer, TRUE);
    g_free(t->where);
    g_free(q);
}

static void set_busy(Qmp *q, const char *how, GError **err)
{
    g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_BUSY,
                "%s: %s; a QMP socket serves one client at a time, so another "
                "one may have it: end that one, or give QEMU one more socket "
                "(-qmp unix:PATH,server=on,wait=off)", q->parent.where, how);
}

static gboolean open_socket(Qmp *q, const char *path, GError **err)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    if (strlen(path) >= sizeof(address.sun_path)) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_CONNECT,
                    "%s: a socket's path has at most %zu bytes; use a relative "
                    "path or a link", path, sizeof(address.sun_path) - 1);
        return FALSE;
    }
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (q->fd >= 0 && !connect(q->fd, (const struct sockaddr *)&address,
                               sizeof(address))) {
        return TRUE;
    }
    if (q->fd >= 0 && errno == EAGAIN) {
        set_busy(q, "clients are waiting in line already", err);
    } else {
        const char *hint =
            errno == ENOENT ? "is the VM running, and the name right?" :
            errno == ECONNREFUSED ? "nobody listens: the VM has ended" :
            errno == EACCES ? "run this as a user who may write to the socket" :
            errno == ENOTSOCK ? "this is no socket" :
            "name a QMP socket of a running VM";

        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_CONNECT,
                    "%s: cannot connect: %s; %s", path, g_strerror(errno),
                    hint);
    }
    return FALSE;
}

static gboolean greet(Qmp *q, unsigned ms, GError **err)
{
    GError *local = NULL;
    g_autoptr(JsonNode) node = next_message(q, now_ms() + ms, &local);
    g_autoptr(JsonNode) done = NULL;

    if (local) {
        g_propagate_error(err, local);
        return FALSE;
    }
    if (!node) {
        g_autofree char *how = g_strdup_printf("no greeting within %g s",
                                               ms / 1000.0);

        set_busy(q, how, err);
        return FALSE;
    }
    if (!json_object_has_member(json_node_get_object(node), "QMP")) {
        g_set_error(err, HPBCTL_ERROR, HPBCTL_ERROR_PROTOCOL,
                    "%s does not greet as QMP does; name a socket of -qmp (the "
                    "guest agent's is another one)", q->parent.where);
        return FALSE;
    }
    done = qmp_execute(&q->parent, "qmp_capabilities", NULL, err);
    return done != NULL;
}

HpbctlTransport *hpbctl_qmp_connect(const HpbctlContext *ctx, const char *path,
                                    GError **err)
{
    static const HpbctlTransportOps ops = {
        .execute = qmp_execute,
        .wait = qmp_wait,
        .free = qmp_free,
    };
    HpbctlTransport *t;
    struct ucred peer;
    socklen_t length = sizeof(peer);
    Qmp *q = g_new0(Qmp, 1);

    t = &q->parent;
    t->ops = &ops;
    t->where = g_strdup(path);
    q->fd = -1;
    q->command_ms = ctx->command_ms;
    q->buffer = g_string_new(NULL);
    if (!open_socket(q, path, err)) {
        qmp_free(t);
        return NULL;
    }
    if (!getsockopt(q->fd, SOL_SOCKET, SO_PEERCRED, &peer, &length)) {
        t->pid = peer.pid;
    }
    if (!greet(q, ctx->connect_ms, err)) {
        qmp_free(t);
        return NULL;
    }
    return t;
}
