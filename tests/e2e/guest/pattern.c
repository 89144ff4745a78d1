// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hpb-pattern: memory whose every byte is known, checked all the time
 *
 * Keeps MIB of anonymous memory. Every 64-bit word of a page follows from the
 * page's number, its generation and the word's number, so that a page that is
 * lost (zero), stale (older generation) or somebody else's is seen. Each
 * second it checks as many pages as fit into half of that second, going round,
 * and rewrites every eighth of them in the next generation; then it prints
 *
 *   PATTERN OK n     nothing wrong until now; n counts these lines
 *   PATTERN BAD n    at least one page was wrong since the start
 *   PATTERN PASS k   every page has been checked k times
 *   PATTERN FIRST-BAD page P word W want X got Y generation G   (once)
 *
 * BAD is for good: no later line of this run says OK. A checksum per page was
 * rejected: it says that a page is wrong but not in which way.
 *
 *   hpb-pattern MIB
 */
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define PAGE		4096UL
#define WORDS		(PAGE / sizeof(uint64_t))
#define STEP		UINT64_C(0x9e3779b97f4a7c15)	/* odd: all words of a page differ */
#define CHECK_NS	500000000LL		/* of every second */
#define REWRITE_EVERY	8

static uint64_t *mem;
static uint32_t *generation;
static size_t nr_pages;

static uint64_t seed(size_t page, uint32_t gen)
{
	uint64_t x = (uint64_t)page * UINT64_C(0xff51afd7ed558ccd) + ((uint64_t)gen << 40) + 1;

	x ^= x >> 33;
	x *= UINT64_C(0xc4ceb9fe1a85ec53);
	return x ^ (x >> 29);
}

static void write_page(size_t page)
{
	uint64_t *word = mem + page * WORDS;
	uint64_t value = seed(page, generation[page]);
	size_t i;

	for (i = 0; i < WORDS; i++, value += STEP)
		word[i] = value;
}

/* Number of the first wrong word, WORDS if there is none. */
static size_t check_page(size_t page)
{
	const volatile uint64_t *word = mem + page * WORDS;
	uint64_t value = seed(page, generation[page]);
	size_t i;

	for (i = 0; i < WORDS; i++, value += STEP)
		if (word[i] != value)
			break;
	return i;
}

static void report_bad(size_t page, size_t i)
{
	printf("PATTERN FIRST-BAD page %zu word %zu want %016" PRIx64 " got %016" PRIx64
	       " generation %" PRIu32 "\n", page, i,
	       seed(page, generation[page]) + i * STEP, mem[page * WORDS + i], generation[page]);
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static void sleep_until(int64_t when)
{
	struct timespec ts = { when / 1000000000LL, when % 1000000000LL };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
		;
}

static int run(void)
{
	size_t page = 0, bad_at;
	unsigned long n, pass = 0;
	int bad = 0;

	for (n = 1; ; n++) {
		int64_t start = now_ns();

		while (now_ns() - start < CHECK_NS) {
			bad_at = check_page(page);
			if (bad_at < WORDS && !bad) {
				report_bad(page, bad_at);
				bad = 1;
			}
			if (page % REWRITE_EVERY == pass % REWRITE_EVERY) {
				generation[page]++;
				write_page(page);
			}
			if (++page == nr_pages) {
				page = 0;
				printf("PATTERN PASS %lu\n", ++pass);
				break;
			}
		}
		printf("PATTERN %s %lu\n", bad ? "BAD" : "OK", n);
		fflush(stdout);
		sleep_until(start + 1000000000LL);
	}
	return 0;
}

int main(int argc, char **argv)
{
	size_t page, bytes;

	if (argc != 2 || atol(argv[1]) <= 0) {
		fputs("usage: hpb-pattern MIB\n", stderr);
		return 2;
	}
	bytes = (size_t)atol(argv[1]) << 20;
	nr_pages = bytes / PAGE;
	mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	generation = calloc(nr_pages, sizeof(*generation));
	if (mem == MAP_FAILED || !generation) {
		printf("PATTERN BAD 0\nhpb-pattern: no memory for %zu MiB: %s\n", bytes >> 20, strerror(errno));
		return 1;
	}
	for (page = 0; page < nr_pages; page++)
		write_page(page);
	return run();
}
