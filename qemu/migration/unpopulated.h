/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest memory that the host never had to provide
 */
#ifndef MIGRATION_UNPOPULATED_H
#define MIGRATION_UNPOPULATED_H

#include "exec/memory.h"
#include "exec/ramblock.h"

/*
 * Whether an outgoing migration that begins now may leave out what was never
 * populated: wanted (migration.skip-unpopulated), and the destination begins
 * with zeroes and asks for nothing.
 */
bool migrate_skips_unpopulated(void);

/*
 * Call @func for each section of @rb that the host holds nothing for: it reads
 * as zeroes, until it is written, which dirty logging has to notice from
 * before this call on. Nothing is called for memory that cannot be asked.
 */
void ram_block_replay_unpopulated(RAMBlock *rb, ReplayRamDiscard func,
                                  void *opaque);

#endif
