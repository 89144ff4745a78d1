/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * hpbctl: Ctrl-C while something is under way
 *
 * Not a step of the data path. The signals are blocked all the time but inside
 * ppoll(), so that one that comes between a look at the flag and the wait is
 * not lost, and nothing but waiting is ever interrupted. Rejected: a main loop
 * with a signal source, for a program that does one thing after the other.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <time.h>
#include "ctl.h"

static volatile sig_atomic_t interrupted;
static sigset_t outside;
static gboolean armed;

static void on_signal(int number G_GNUC_UNUSED)
{
    interrupted = 1;
}

void hpbctl_interrupt_arm(void)
{
    struct sigaction action = { .sa_handler = on_signal };
    sigset_t set;

    if (armed) {
        return;
    }
    sigemptyset(&action.sa_mask);
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, &outside);
    sigdelset(&outside, SIGINT);
    sigdelset(&outside, SIGTERM);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    armed = TRUE;
}

gboolean hpbctl_interrupt_taken(void)
{
    gboolean was = interrupted;

    interrupted = 0;
    return was;
}

int hpbctl_interrupt_poll(int fd, short events, gint64 ms)
{
    struct pollfd one = { .fd = fd, .events = events };
    gint64 end = g_get_monotonic_time() / 1000 + ms;

    for (;;) {
        gint64 left = MAX(end - g_get_monotonic_time() / 1000, 0);
        struct timespec wait = { left / 1000, left % 1000 * 1000000 };
        int ret = ppoll(&one, 1, &wait, armed ? &outside : NULL);

        if (ret >= 0 || errno != EINTR || interrupted) {
            return ret;
        }
    }
}
