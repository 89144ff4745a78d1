// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hpb-pollute: strew memory that cannot be moved over the guest
 *
 * The kernel keeps such memory together while it can. So first MIB of movable
 * pages are taken, then every Nth of them is freed again, so that nothing else
 * is left than single pages between movable ones; these are filled with pages
 * of the kernel (pipe buffers), which stay. Then the movable pages go. Prints
 * "POLLUTED n" (kernel pages) and keeps them until killed.
 *
 *   hpb-pollute MIB N
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define PAGE	4096UL
/* Pages in a pipe, as many as root may have. */
#define PIPE	256

/* Fill pipes with @pages pages. Return: how many there are. */
static size_t fill_pipes(size_t pages)
{
	static const char contents[PAGE];
	size_t done = 0, i;
	int fd[2];

	while (done < pages && !pipe2(fd, O_NONBLOCK)) {
		if (fcntl(fd[1], F_SETPIPE_SZ, PIPE * PAGE) < 0)
			break;
		for (i = 0; i < PIPE && done < pages; i++, done++)
			if (write(fd[1], contents, PAGE) != (ssize_t)PAGE)
				return done;
	}
	return done;
}

int main(int argc, char **argv)
{
	const struct rlimit files = { 100000, 100000 };
	size_t bytes, step, i, pages = 0;
	char *mem;

	if (argc != 3 || atol(argv[1]) <= 0 || atol(argv[2]) <= 1) {
		fputs("usage: hpb-pollute MIB N\n", stderr);
		return 2;
	}
	bytes = (size_t)atol(argv[1]) << 20;
	step = (size_t)atol(argv[2]) * PAGE;
	mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED || madvise(mem, bytes, MADV_NOHUGEPAGE) || setrlimit(RLIMIT_NOFILE, &files)) {
		fprintf(stderr, "hpb-pollute: %s\n", strerror(errno));
		return 1;
	}
	for (i = 0; i < bytes; i += PAGE)
		mem[i] = 1;
	for (i = 0; i < bytes; i += step, pages++)
		if (madvise(mem + i, PAGE, MADV_DONTNEED))
			return 1;
	pages = fill_pipes(pages);
	munmap(mem, bytes);
	printf("POLLUTED %zu\n", pages);
	fflush(stdout);
	for (;;)
		pause();
}
