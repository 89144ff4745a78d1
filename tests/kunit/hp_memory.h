/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KUnit device: which memory is out, and proof that nobody touched it.
 */
#ifndef HP_MEMORY_H
#define HP_MEMORY_H

#include <linux/types.h>

/**
 * struct hp_memory - the device's record of the guest's memory
 * @unit:    bytes in a unit
 * @end:     first physical address behind the last page frame
 * @out:     units that are out
 * @claimed: units in requests that are not answered
 * @nr_out:  bits set in @out
 */
struct hp_memory {
	u64 unit;
	u64 end;
	unsigned long *out;
	unsigned long *claimed;
	u64 nr_out;
};

/* Return: 0 or -ENOMEM. @unit is a power of two, at least PAGE_SIZE. */
int hp_memory_init(struct hp_memory *m, u64 unit);
void hp_memory_free(struct hp_memory *m);

/* All memory is the guest's again, nothing is out or claimed. */
void hp_memory_clear(struct hp_memory *m);

/* Whether [@addr, @addr + unit) is ordinary RAM; @addr is a multiple of unit. */
bool hp_memory_is_ram(const struct hp_memory *m, u64 addr);

/* @addr is a physical address inside RAM. */
bool hp_memory_is_out(const struct hp_memory *m, u64 addr);
bool hp_memory_is_claimed(const struct hp_memory *m, u64 addr);
void hp_memory_set_out(struct hp_memory *m, u64 addr, bool out);
void hp_memory_set_claimed(struct hp_memory *m, u64 addr, bool claimed);

/*
 * The next unit that is out (or claimed, if @claimed), at or behind @addr.
 * Return: its address, or @m->end if there is none.
 */
u64 hp_memory_next(const struct hp_memory *m, u64 addr, bool claimed);

/*
 * Fills memory with a pattern that names every address, and finds the first
 * byte that differs from it. Works on memory that KASAN holds for free.
 * hp_poison_find() returns @len if all is as it was.
 */
void hp_poison(u64 addr, u64 len);
u64 hp_poison_find(u64 addr, u64 len);
void hp_zero(u64 addr, u64 len);

/* Pages of the machine that are marked PageOffline. */
unsigned long hp_count_offline(void);

/* Pages of [@addr, @addr + @len) that are not marked PageOffline. */
unsigned long hp_count_online(u64 addr, u64 len);

#endif /* HP_MEMORY_H */
