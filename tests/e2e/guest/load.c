// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hpb-load: a program that shows how much it is disturbed
 *
 * Works for SECONDS, and counts what it gets done in each quantum of time (fixed
 * time quantum). "quantum" counts rounds of arithmetic that needs no memory:
 * what is missing in a quantum went to somebody else. "stream" goes through three
 * arrays that no cache holds (a = b + 3 c), and counts blocks of them: memory
 * bandwidth. Prints "READY" when it begins and, at the end,
 * "LOAD quanta N median M first F worst W slow S": M, F and W are counts of a
 * quantum; F is the first percentile, the best of the worst hundredth. S quanta have
 * less than nine tenths of the median.
 *
 *   hpb-load quantum|stream MILLISECONDS SECONDS
 */
#include <errno.h>
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

static int by_value(const void *x, const void *y)
{
	uint32_t p = *(const uint32_t *)x, q = *(const uint32_t *)y;

	return p < q ? -1 : p > q;
}

int main(int argc, char **argv)
{
	int stream = argc == 4 && !strcmp(argv[1], "stream");
	void (*work)(void) = stream ? work_stream : work_quantum;
	long ms = argc == 4 ? atol(argv[2]) : 0, seconds = argc == 4 ? atol(argv[3]) : 0;
	uint64_t quantum = (uint64_t)ms * 1000000, start, now;
	size_t n, i, slow;
	uint32_t *count;

	if (ms < 1 || seconds < 1 || (!stream && strcmp(argv[1], "quantum"))) {
		fputs("usage: hpb-load quantum|stream MILLISECONDS SECONDS\n", stderr);
		return 2;
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
	puts("READY");
	fflush(stdout);
	start = now_ns();
	while ((now = now_ns() - start) < n * quantum) {
		work();
		/* what was begun counts where it began */
		count[now / quantum]++;
	}
	qsort(count, n, sizeof(*count), by_value);
	i = n / 100;
	for (slow = 0; count[slow] * 10ULL < count[n / 2] * 9ULL; slow++)
		;
	printf("LOAD quanta %zu median %u first %u worst %u slow %zu\n", n, count[n / 2], count[i], count[0], slow);
	return 0;
}
