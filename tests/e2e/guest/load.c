// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hpb-load: a program that shows how much it is disturbed
 *
 * Works for SECONDS, and counts what it gets done in each quantum of time (fixed
 * time quantum). "quantum" counts rounds of arithmetic that needs no memory:
 * what is missing in a quantum went to somebody else. "stream" goes through three
 * arrays that no cache holds (a = b + 3 c), and counts blocks of them: memory
 * bandwidth. It stays on one CPU. Says "READY" on stderr when it begins, and prints
 * the counts at the end, one a line.
 *
 *   hpb-load quantum|stream MILLISECONDS SECONDS CPU
 */
#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define ARRAY	(64UL << 20)		/* bytes */
#define WORDS	(ARRAY / sizeof(uint64_t))
/* Words of each array at a time: 10 ms have hundreds even where the guest is emulated */
#define BLOCK	256UL

static uint64_t *a, *b, *c;

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void work_quantum(void)
{
	static volatile uint64_t sink;
	uint64_t x = sink | 1;
	int i;

	for (i = 0; i < 1000; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
	}
	sink = x;
}

static void work_stream(void)
{
	static size_t at;
	size_t i;

	for (i = at; i < at + BLOCK; i++)
		a[i] = b[i] + 3 * c[i];
	at = (at + BLOCK) % WORDS;
}

static uint64_t *array(void)
{
	uint64_t *mem = mmap(NULL, ARRAY, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (mem == MAP_FAILED) {
		fprintf(stderr, "hpb-load: mmap of %lu MiB: %s\n", ARRAY >> 20, strerror(errno));
		exit(1);
	}
	return mem;
}

int main(int argc, char **argv)
{
	int stream = argc == 5 && !strcmp(argv[1], "stream");
	void (*work)(void) = stream ? work_stream : work_quantum;
	long ms = argc == 5 ? atol(argv[2]) : 0, seconds = argc == 5 ? atol(argv[3]) : 0;
	uint64_t quantum = (uint64_t)ms * 1000000, start, now;
	size_t n, i;
	uint32_t *count;
	cpu_set_t cpus;

	if (ms < 1 || seconds < 1 || (!stream && strcmp(argv[1], "quantum"))) {
		fputs("usage: hpb-load quantum|stream MILLISECONDS SECONDS CPU\n", stderr);
		return 2;
	}
	CPU_ZERO(&cpus);
	CPU_SET(atoi(argv[4]), &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus)) {
		fprintf(stderr, "hpb-load: CPU %s: %s\n", argv[4], strerror(errno));
		return 1;
	}
	n = (size_t)(seconds * 1000 / ms);
	count = calloc(n, sizeof(*count));
	if (!n || !count) {
		fputs("hpb-load: no quantum, or no memory for the counts\n", stderr);
		return 1;
	}
	if (stream) {
		a = array();
		b = array();
		c = array();
	}
	fputs("READY\n", stderr);
	start = now_ns();
	while ((now = now_ns() - start) < n * quantum) {
		work();
		/* what was begun counts where it began */
		count[now / quantum]++;
	}
	for (i = 0; i < n; i++)
		printf("%u\n", count[i]);
	return 0;
}
