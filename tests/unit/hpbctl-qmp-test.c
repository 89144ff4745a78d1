/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of helper/ctl/qmp.c and vm.c: a server in a thread says what it is
 * told to, right or wrong, and no call may hang or believe it.
 */
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <glib/gstdio.h>
#include "vm.h"

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"
#define READY "{\"return\": {}, \"id\": 1}\r\n"

/* What the server does, one action for each line that it reads */
typedef struct Server {
    const char *greeting;       /* NULL: none */
    const char *const *answers; /* NULL-terminated; then it reads on in silence */
    gboolean hang_up;           /* after the last answer */
    gsize flood;                /* bytes without a newline instead of answers */
    char *dir;
    char *path;
    int listener;
    GThread *thread;
} Server;

/* Discard a line. FALSE: closed. */
static gboolean read_line(int fd)
{
    char c = 0;

    while (c != '\n') {
        if (read(fd, &c, 1) != 1) {
            return FALSE;
        }
    }
    return TRUE;
}

static gboolean say(int fd, const char *text, gsize length)
{
    while (length) {
        ssize_t sent = send(fd, text, length, MSG_NOSIGNAL);

        if (sent <= 0) {
            return FALSE;
        }
        text += sent;
        length -= (gsize)sent;
    }
    return TRUE;
}

static gpointer serve(gpointer data)
{
    Server *s = data;
    int fd = accept(s->listener, NULL, NULL);
    g_autofree char *flood = g_strnfill(1 << 20, ' ');
    gboolean open = TRUE;

    g_assert_cmpint(fd, >=, 0);
    if (s->greeting) {
        open = say(fd, s->greeting, strlen(s->greeting));
    }
    for (gsize sent = 0; open && sent < s->flood; sent += 1 << 20) {
        open = say(fd, flood, 1 << 20);
    }
    for (const char *const *a = s->answers; open && a && *a; a++) {
        open = read_line(fd) && say(fd, *a, strlen(*a));
    }
    while (open && !s->hang_up) {
        open = read_line(fd);
    }
    close(fd);
    return NULL;
}

static void server_start(Server *s)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    s->dir = g_dir_make_tmp("hpbctl-XXXXXX", NULL);
    g_assert_nonnull(s->dir);
    s->path = g_build_filename(s->dir, "s", NULL);
    g_strlcpy(address.sun_path, s->path, sizeof(address.sun_path));
    s->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(s->listener, (const struct sockaddr *)&address,
                         sizeof(address)), ==, 0);
    g_assert_cmpint(listen(s->listener, 1), ==, 0);
    s->thread = g_thread_new("server", serve, s);
}

static void server_stop(Server *s)
{
    g_thread_join(s->thread);
    close(s->listener);
    g_unlink(s->path);
    g_rmdir(s->dir);
    g_free(s->path);
    g_free(s->dir);
}

static const HpbctlContext ctx = {
    .dir = "/nonexistent", .connect_ms = 200, .command_ms = 200,
};

/* Connect and run "query-status"; what goes wrong is @code, with @words. */
static void expect(Server *s, HpbctlError code, const char *words)
{
    g_autoptr(GError) err = NULL;
    HpbctlTransport *t;

    server_start(s);
    t = hpbctl_qmp_connect(&ctx, s->path, &err);
    if (t) {
        g_autoptr(JsonNode) node = hpbctl_execute(t, "query-status", NULL, &err);

        g_assert_null(node);
    }
    g_assert_error(err, HPBCTL_ERROR, (int)code);
    if (!strstr(err->message, words)) {
        g_test_message("'%s' is not in: %s", words, err->message);
        g_test_fail();
    }
    hpbctl_transport_free(t);
    server_stop(s);
}

/* What "query-status" returns; the server's lines are @answers. */
static JsonNode *ask(const char *const *answers)
{
    Server s = { .greeting = GREETING, .answers = answers };
    g_autoptr(GError) err = NULL;
    HpbctlTransport *t;
    JsonNode *node;

    server_start(&s);
    t = hpbctl_qmp_connect(&ctx, s.path, &err);
    g_assert_no_error(err);
    g_assert_cmpint(t->pid, ==, getpid());
    node = hpbctl_execute(t, "query-status", NULL, &err);
    g_assert_no_error(err);
    hpbctl_transport_free(t);
    server_stop(&s);
    return node;
}

static void test_answer(void)
{
    static const char *const answers[] = {
        READY, "{\"return\": {\"status\": \"running\"}, \"id\": 2}\n", NULL,
    };
    g_autoptr(JsonNode) node = ask(answers);

    g_assert_cmpstr(hpbctl_get_string(json_node_get_object(node), "status", ""),
                    ==, "running");
}

/* Events and answers to older commands in between, and two in a packet */
static void test_between(void)
{
    static const char *const answers[] = {
        "{\"event\": \"RESUME\"}\n" READY "{\"event\": \"STOP\"}\n\n",
        "{\"return\": 1, \"id\": 1}\n{\"event\": \"STOP\"}\n"
        "{\"return\": 7, \"id\": 2}\n", NULL,
    };
    g_autoptr(JsonNode) node = ask(answers);

    g_assert_cmpint(json_node_get_int(node), ==, 7);
}

static void test_error(void)
{
    static const char *const answers[] = {
        READY, "{\"error\": {\"class\": \"GenericError\", \"desc\": "
        "\"no balloon\"}, \"id\": 2}\n", NULL,
    };
    Server s = { .greeting = GREETING, .answers = answers };

    expect(&s, HPBCTL_ERROR_COMMAND, "query-status: no balloon");
}

static void test_garbage(void)
{
    static const char *const garbage[] = { READY, "login:\n", NULL };
    static const char *const array[] = { READY, "[1]\n", NULL };
    static const char *const neither[] = { READY, "{\"id\": 2}\n", NULL };
    Server s[] = {
        { .greeting = "QEMU 10.0 monitor\n" },
        { .greeting = "{\"agent\": 1}\n" },
        { .greeting = GREETING, .answers = garbage },
        { .greeting = GREETING, .answers = array },
        { .greeting = GREETING, .answers = neither },
    };
    static const char *const words[] = {
        "does not speak QMP", "does not greet", "'login:'", "'[1]'",
        "neither result nor error",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(s); i++) {
        expect(&s[i], HPBCTL_ERROR_PROTOCOL, words[i]);
    }
}

static void test_silence(void)
{
    static const char *const ready[] = { READY, NULL };
    Server silent = { .greeting = NULL };
    Server later = { .greeting = GREETING, .answers = ready };

    expect(&silent, HPBCTL_ERROR_BUSY, "one client at a time");
    expect(&later, HPBCTL_ERROR_TIMEOUT, "has not answered 'query-status'");
}

static void test_hang_up(void)
{
    static const char *const half[] = { READY, "{\"return\": ", NULL };
    static const char *const shutdown[] = {
        READY, "{\"event\": \"SHUTDOWN\"}\n", NULL,
    };
    Server at_once = { .hang_up = TRUE };
    Server half_way = { .greeting = GREETING, .answers = half, .hang_up = TRUE };
    Server ended = { .greeting = GREETING, .answers = shutdown,
                     .hang_up = TRUE };

    expect(&at_once, HPBCTL_ERROR_GONE, "closed the connection");
    expect(&half_way, HPBCTL_ERROR_GONE, "closed the connection");
    expect(&ended, HPBCTL_ERROR_GONE, "has shut down");
}

/* More than a line may have: refused, not collected until memory is out */
static void test_flood(void)
{
    HpbctlContext patient = ctx;
    Server s = { .greeting = NULL, .flood = (gsize)80 << 20 };
    g_autoptr(GError) err = NULL;

    patient.connect_ms = 60000;
    server_start(&s);
    g_assert_null(hpbctl_qmp_connect(&patient, s.path, &err));
    g_assert_error(err, HPBCTL_ERROR, HPBCTL_ERROR_PROTOCOL);
    server_stop(&s);
}

static void test_no_socket(void)
{
    g_autofree char *longer = g_strnfill(200, 'x');
    g_autofree char *path = g_strconcat("/", longer, NULL);
    const char *const paths[] = { "/nonexistent/socket", "/dev/null", path };

    for (unsigned i = 0; i < G_N_ELEMENTS(paths); i++) {
        g_autoptr(GError) err = NULL;

        g_assert_null(hpbctl_vm_open(&ctx, paths[i], &err));
        g_assert_error(err, HPBCTL_ERROR, HPBCTL_ERROR_CONNECT);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/hpbctl/qmp/answer", test_answer);
    g_test_add_func("/hpbctl/qmp/between", test_between);
    g_test_add_func("/hpbctl/qmp/error", test_error);
    g_test_add_func("/hpbctl/qmp/garbage", test_garbage);
    g_test_add_func("/hpbctl/qmp/silence", test_silence);
    g_test_add_func("/hpbctl/qmp/hang-up", test_hang_up);
    g_test_add_func("/hpbctl/qmp/flood", test_flood);
    g_test_add_func("/hpbctl/qmp/no-socket", test_no_socket);
    return g_test_run();
}
