// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hpb-stall: how long memory makes a program wait
 *
 * Fills memory, prints "READY", and then reads a byte here and there, again and
 * again, with a look at the clock around each. SIGUSR1 makes it print
 * "STALL longest N accesses M", N in microseconds, and begin anew.
 *
 *   hpb-stall MIB
 */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE	4096UL

static volatile sig_atomic_t report;

static void wants_report(int signal)
{
	(void)signal;
	report = 1;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int main(int argc, char **argv)
{
	uint64_t x = 88172645463325252ULL, longest = 0, accesses = 0, start, took;
	struct sigaction action = { .sa_handler = wants_report, .sa_flags = SA_RESTART };
	volatile unsigned char *mem;
	size_t pages, i;

	if (argc != 2 || atol(argv[1]) <= 0) {
		fputs("usage: hpb-stall MIB\n", stderr);
		return 2;
	}
	pages = ((size_t)atol(argv[1]) << 20) / PAGE;
	mem = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED || mlock((void *)mem, pages * PAGE) || sigaction(SIGUSR1, &action, NULL)) {
		fprintf(stderr, "hpb-stall: %s\n", strerror(errno));
		return 1;
	}
	for (i = 0; i < pages; i++)
		mem[i * PAGE] = (unsigned char)i | 1;
	puts("READY");
	fflush(stdout);
	for (;;) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		start = now_ns();
		if (mem[x % pages * PAGE] == 0)
			return 1;
		took = now_ns() - start;
		if (took > longest)
			longest = took;
		accesses++;
		if (report) {
			report = 0;
			printf("STALL longest %llu accesses %llu\n", (unsigned long long)longest / 1000,
			       (unsigned long long)accesses);
			fflush(stdout);
			longest = accesses = 0;
		}
	}
}
