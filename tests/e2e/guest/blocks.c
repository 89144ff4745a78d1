// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hpb-blocks: how many 2 MiB blocks the guest could give up
 *
 * Reads /proc/kpageflags, which is nothing that the balloon's driver uses, and
 * prints "BLOCKS free N movable N stuck N out N": blocks that are free as a
 * whole; that hold only free pages and pages on the LRU lists, which can be
 * moved or dropped; that hold anything else; and that are ballooned. It is the
 * limit that a perfect choice would reach.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#define PAGES	512

/* include/uapi/linux/kernel-page-flags.h */
#define KPF_LRU		5
#define KPF_BUDDY	10
#define KPF_UNEVICTABLE	18
#define KPF_NOPAGE	20
#define KPF_OFFLINE	23

static int has(uint64_t flags, int bit)
{
	return flags >> bit & 1;
}

int main(void)
{
	unsigned long free = 0, movable = 0, stuck = 0, out = 0;
	uint64_t flags[PAGES];
	int fd, i, buddy, lru, offline, nopage;

	fd = open("/proc/kpageflags", O_RDONLY);
	if (fd < 0) {
		perror("hpb-blocks: /proc/kpageflags");
		return 1;
	}
	while (read(fd, flags, sizeof(flags)) == (ssize_t)sizeof(flags)) {
		buddy = lru = offline = nopage = 0;
		for (i = 0; i < PAGES; i++) {
			buddy += has(flags[i], KPF_BUDDY);
			lru += has(flags[i], KPF_LRU) && !has(flags[i], KPF_UNEVICTABLE);
			offline += has(flags[i], KPF_OFFLINE);
			nopage += has(flags[i], KPF_NOPAGE);
		}
		if (nopage == PAGES)
			continue;
		if (offline == PAGES)
			out++;
		else if (buddy == PAGES)
			free++;
		else if (buddy + lru == PAGES)
			movable++;
		else
			stuck++;
	}
	printf("BLOCKS free %lu movable %lu stuck %lu out %lu\n", free, movable, stuck, out);
	return 0;
}
