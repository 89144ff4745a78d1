// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hpb-touch: make the guest use memory, then give it back to the guest's kernel
 *
 * Fills anonymous memory so that the host has to back it, prints "TOUCHED n",
 * and exits (the memory becomes free guest memory that the host still holds),
 * or keeps it. dd into a tmpfs was rejected: it fills with 4 KiB pages and
 * leaves free memory in pieces.
 *
 *   hpb-touch [-p zero|byte|random] [-s] [-f] [-k] [-z] MIB
 *     -p  contents: nothing but a zero written to each page (zero), one
 *         non-zero byte a page (byte, default), all bytes random (random)
 *     -s  small pages (MADV_NOHUGEPAGE) instead of huge ones
 *     -f  fragment: afterwards free every second 4 KiB page (implies -s)
 *     -k  keep the memory until killed
 *     -z  do nothing with it: the kernel provides it, and clears it for that
 *         (MADV_POPULATE_WRITE); print "CLEARED n", microseconds, instead
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE	4096UL
#define HUGE	(2UL << 20)

enum contents { ZERO, BYTE, RANDOM };

/*
 * New memory is zero, whoever cleared it: the kernel, or the host (init_on_free).
 * Volatile, so that it is read after it was written to: reading first maps the
 * zero page, and then each write breaks that up and gets a page of 4 KiB.
 */
static void check_new(const unsigned char *page)
{
	if (!*(const volatile uint64_t *)(page + PAGE / 2))
		return;
	fputs("hpb-touch: NOT ZERO: new memory has old contents\n", stderr);
	exit(1);
}

static void fill(unsigned char *mem, size_t bytes, enum contents contents)
{
	uint64_t x = 0x9e3779b97f4a7c15ULL;
	size_t i, j;

	for (i = 0; i < bytes; i += PAGE) {
		*(volatile unsigned char *)(mem + i) = 0;
		check_new(mem + i);
		switch (contents) {
		case ZERO:
			break;
		case BYTE:
			mem[i] = (unsigned char)(i / PAGE) | 1;
			break;
		case RANDOM:
			for (j = 0; j < PAGE; j += sizeof(x)) {
				x ^= x << 13;
				x ^= x >> 7;
				x ^= x << 17;
				memcpy(mem + i + j, &x, sizeof(x));
			}
			break;
		}
	}
}

static int clear(unsigned char *mem, size_t bytes)
{
	struct timespec start, end;

	clock_gettime(CLOCK_MONOTONIC, &start);
	if (madvise(mem, bytes, MADV_POPULATE_WRITE)) {
		fprintf(stderr, "hpb-touch: MADV_POPULATE_WRITE: %s\n", strerror(errno));
		return 1;
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("CLEARED %ld\n", (long)(end.tv_sec - start.tv_sec) * 1000000 +
	       (end.tv_nsec - start.tv_nsec) / 1000);
	return 0;
}

static int usage(void)
{
	fputs("usage: hpb-touch [-p zero|byte|random] [-s] [-f] [-k] [-z] MIB\n", stderr);
	return 2;
}

int main(int argc, char **argv)
{
	enum contents contents = BYTE;
	int small = 0, fragment = 0, keep = 0, clearing = 0, opt;
	unsigned char *mem;
	size_t bytes, i;

	while ((opt = getopt(argc, argv, "p:sfkz")) != -1) {
		switch (opt) {
		case 'p':
			contents = !strcmp(optarg, "zero") ? ZERO :
				   !strcmp(optarg, "random") ? RANDOM : BYTE;
			break;
		case 's':
			small = 1;
			break;
		case 'f':
			small = fragment = 1;
			break;
		case 'k':
			keep = 1;
			break;
		case 'z':
			clearing = 1;
			break;
		default:
			return usage();
		}
	}
	if (optind + 1 != argc || atol(argv[optind]) <= 0 ||
	    (clearing && (contents != BYTE || fragment || keep)))
		return usage();
	bytes = (size_t)atol(argv[optind]) << 20;

	mem = mmap(NULL, bytes + HUGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED) {
		fprintf(stderr, "hpb-touch: mmap of %zu MiB: %s\n", bytes >> 20, strerror(errno));
		return 1;
	}
	mem = (unsigned char *)(((uintptr_t)mem + HUGE - 1) & ~(HUGE - 1));
	if (madvise(mem, bytes, small ? MADV_NOHUGEPAGE : MADV_HUGEPAGE))
		fprintf(stderr, "hpb-touch: madvise: %s (goes on)\n", strerror(errno));

	if (clearing)
		return clear(mem, bytes);
	fill(mem, bytes, contents);
	for (i = 0; fragment && i < bytes; i += 2 * PAGE)
		madvise(mem + i, PAGE, MADV_DONTNEED);

	printf("TOUCHED %zu\n", bytes >> 20);
	fflush(stdout);
	while (keep)
		pause();
	return 0;
}
