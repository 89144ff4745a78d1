// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit device, steps [5] and [6] of the path as the host would do them:
 * "freeing" a unit means to fill it with a pattern, and a unit that is out is
 * a bit in a bitmap.
 *
 * The pattern turns DRV-13 (not touched from the inflate to the yes of a
 * deflate) into something that can be compared: every word holds its own
 * address mixed with a constant, so a stray write of anything, a copy of
 * another ballooned page included, shows. Rejected: unmapping the pages, which
 * UML cannot do for its kernel memory, and which would turn a finding into a
 * crash.
 *
 * Built without KASAN: the device may write to memory that the guest's
 * allocator holds for free (free page reporting), and the guest's shadow memory
 * says nothing about who owns a page here.
 */
#include <linux/bitmap.h>
#include <linux/io.h>
#include <linux/memblock.h>
#include <linux/mm.h>
#include <linux/vmalloc.h>

#include "hp_memory.h"

#define HP_PATTERN 0x6f75744f6b656570ULL

int hp_memory_init(struct hp_memory *m, u64 unit)
{
	size_t bits;

	m->unit = unit;
	m->end = round_up((u64)max_pfn << PAGE_SHIFT, unit);
	m->nr_out = 0;
	bits = m->end / unit;
	m->out = vzalloc(BITS_TO_LONGS(bits) * sizeof(long));
	m->claimed = vzalloc(BITS_TO_LONGS(bits) * sizeof(long));
	if (!m->out || !m->claimed) {
		hp_memory_free(m);
		return -ENOMEM;
	}
	return 0;
}

void hp_memory_free(struct hp_memory *m)
{
	vfree(m->out);
	vfree(m->claimed);
	m->out = NULL;
	m->claimed = NULL;
}

void hp_memory_clear(struct hp_memory *m)
{
	bitmap_zero(m->out, m->end / m->unit);
	bitmap_zero(m->claimed, m->end / m->unit);
	m->nr_out = 0;
}

bool hp_memory_is_ram(const struct hp_memory *m, u64 addr)
{
	unsigned long pfn;

	if (addr >= m->end || m->unit > m->end - addr)
		return false;
	for (pfn = addr >> PAGE_SHIFT; pfn < (addr + m->unit) >> PAGE_SHIFT; pfn++)
		if (!pfn_valid(pfn) || PageReserved(pfn_to_page(pfn)))
			return false;
	return true;
}

bool hp_memory_is_out(const struct hp_memory *m, u64 addr)
{
	return test_bit(addr / m->unit, m->out);
}

bool hp_memory_is_claimed(const struct hp_memory *m, u64 addr)
{
	return test_bit(addr / m->unit, m->claimed);
}

void hp_memory_set_out(struct hp_memory *m, u64 addr, bool out)
{
	if (out)
		m->nr_out += !__test_and_set_bit(addr / m->unit, m->out);
	else
		m->nr_out -= __test_and_clear_bit(addr / m->unit, m->out);
}

void hp_memory_set_claimed(struct hp_memory *m, u64 addr, bool claimed)
{
	__assign_bit(addr / m->unit, m->claimed, claimed);
}

u64 hp_memory_next(const struct hp_memory *m, u64 addr, bool claimed)
{
	return find_next_bit(claimed ? m->claimed : m->out, m->end / m->unit,
			     DIV_ROUND_UP_ULL(addr, m->unit)) * m->unit;
}

/*
 * Overwrites memory the moment it is given up, whatever the answer will be: a
 * driver that counts on its contents finds others (DRV-14), and one that
 * touches it while it is out leaves a trace (DRV-13).
 */
void hp_poison(u64 addr, u64 len)
{
	u64 *p = phys_to_virt(addr);
	u64 i;

	for (i = 0; i < len / sizeof(*p); i++)
		p[i] = HP_PATTERN ^ (addr + i * sizeof(*p));
}

u64 hp_poison_find(u64 addr, u64 len)
{
	const u64 *p = phys_to_virt(addr);
	u64 i;

	for (i = 0; i < len / sizeof(*p); i++)
		if (p[i] != (HP_PATTERN ^ (addr + i * sizeof(*p))))
			return i * sizeof(*p);
	return len;
}

void hp_zero(u64 addr, u64 len)
{
	u64 *p = phys_to_virt(addr);
	u64 i;

	/* not memset(), which KASAN replaces */
	for (i = 0; i < len / sizeof(*p); i++)
		WRITE_ONCE(p[i], 0);
}

unsigned long hp_count_offline(void)
{
	unsigned long pfn, n = 0;

	for (pfn = 0; pfn < max_pfn; pfn++)
		n += pfn_valid(pfn) && PageOffline(pfn_to_page(pfn));
	return n;
}

unsigned long hp_count_online(u64 addr, u64 len)
{
	unsigned long pfn, n = 0;

	for (pfn = addr >> PAGE_SHIFT; pfn < (addr + len) >> PAGE_SHIFT; pfn++)
		n += !PageOffline(pfn_to_page(pfn));
	return n;
}
