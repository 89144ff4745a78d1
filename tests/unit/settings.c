/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of libhpballoon: settings of the machine for tests that need them
 *
 * As with pools (pool.c), the tests run in a child process, and the parent puts
 * everything back however they end. Tests change a setting for as short as they
 * can: others on the machine see it too.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "support.h"

#define THP "/sys/kernel/mm/transparent_hugepage/"

static const char *const settings[] = { THP "enabled", THP "shmem_enabled" };

/* "always [madvise] never" is "madvise". NULL: no such setting. */
static char *setting_read(const char *path)
{
    g_autofree char *text = NULL;
    char *from, *to;

    if (!g_file_get_contents(path, &text, NULL, NULL)) {
        return NULL;
    }
    from = strchr(text, '[');
    to = from ? strchr(from, ']') : NULL;
    return to ? g_strndup(from + 1, to - from - 1) : NULL;
}

static gboolean setting_write(const char *path, const char *value)
{
    FILE *file = fopen(path, "we");
    gboolean ok;

    if (!file) {
        return FALSE;
    }
    ok = fputs(value, file) >= 0;
    return !fclose(file) && ok;
}

gboolean test_setting(const char *name, const char *value)
{
    g_autofree char *path = g_strconcat(THP, name, NULL);
    g_autofree char *now = setting_read(path);

    return now && (g_str_equal(now, value) || setting_write(path, value));
}

int test_run_with_settings(void)
{
    char *before[G_N_ELEMENTS(settings)];
    sigset_t set, old;
    int status;
    pid_t pid;

    /* Whoever stops the tests stops the child too; we have to outlive it */
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, &old);

    for (size_t i = 0; i < G_N_ELEMENTS(settings); i++) {
        before[i] = setting_read(settings[i]);
    }
    pid = fork();
    if (pid == 0) {
        sigprocmask(SIG_SETMASK, &old, NULL);
        exit(g_test_run());
    }
    if (pid == -1 || waitpid(pid, &status, 0) != pid) {
        status = -1;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(settings); i++) {
        g_autofree char *after = setting_read(settings[i]);

        if (before[i] && !g_str_equal(before[i], after) &&
            !setting_write(settings[i], before[i])) {
            fprintf(stderr, "could not put back %s: write '%s' to it by hand\n",
                    settings[i], before[i]);
            status = -1;
        }
        g_free(before[i]);
    }
    return status != -1 && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
