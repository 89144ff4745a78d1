/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unit tests of libhpballoon: huge pages for tests that need them
 *
 * The pool belongs to the whole machine. It is raised by a number of pages and
 * lowered by as many, so others who change it meanwhile keep what they did.
 * The tests run in a child process, so that a failed assertion, which aborts,
 * does not leave the pool raised.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "support.h"

static char *pool_file(size_t page_size, const char *name)
{
    return g_strdup_printf("/sys/kernel/mm/hugepages/hugepages-%zukB/%s",
                           page_size / 1024, name);
}

static gboolean pool_read(size_t page_size, const char *name, unsigned *value)
{
    g_autofree char *path = pool_file(page_size, name);
    g_autofree char *text = NULL;
    guint64 number;

    if (!g_file_get_contents(path, &text, NULL, NULL) ||
        !g_ascii_string_to_unsigned(g_strchomp(text), 10, 0, UINT_MAX, &number,
                                    NULL)) {
        return FALSE;
    }
    *value = (unsigned)number;
    return TRUE;
}

int test_pool_change(size_t page_size, int pages)
{
    g_autofree char *path = pool_file(page_size, "nr_hugepages");
    unsigned before, after;
    FILE *file;

    if (!pool_read(page_size, "nr_hugepages", &before)) {
        return 0;
    }
    file = fopen(path, "w");
    if (!file) {
        return 0;
    }
    fprintf(file, "%d\n", MAX((int)before + pages, 0));
    if (fclose(file) || !pool_read(page_size, "nr_hugepages", &after)) {
        return 0;
    }
    return (int)after - (int)before;
}

unsigned test_pool_free(size_t page_size)
{
    unsigned pages = 0;

    return pool_read(page_size, "free_hugepages", &pages) ? pages : 0;
}

unsigned test_pool_available(size_t page_size)
{
    unsigned reserved = 0, pages = test_pool_free(page_size);

    pool_read(page_size, "resv_hugepages", &reserved);
    return pages > reserved ? pages - reserved : 0;
}

int test_run_with_pool(size_t page_size, unsigned pages)
{
    int raised, status;
    sigset_t set, old;
    pid_t pid;

    /* Whoever stops the tests stops the child too; we have to outlive it */
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, &old);

    raised = test_pool_change(page_size, (int)pages);
    pid = fork();
    if (pid == 0) {
        sigprocmask(SIG_SETMASK, &old, NULL);
        exit(g_test_run());
    }
    if (pid == -1 || waitpid(pid, &status, 0) != pid) {
        status = -1;
    }
    if (raised > 0 && test_pool_change(page_size, -raised) != -raised) {
        fprintf(stderr, "could not take %d huge pages of %zu bytes out of the "
                "pool again: lower nr_hugepages by hand\n", raised, page_size);
        status = -1;
    }
    return status != -1 && WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
