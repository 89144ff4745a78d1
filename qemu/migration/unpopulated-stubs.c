/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Without libhpballoon nobody knows what the host holds. */
#include "qemu/osdep.h"
#include "unpopulated.h"

bool migrate_skips_unpopulated(void)
{
    return false;
}

void ram_block_replay_unpopulated(RAMBlock *rb, ReplayRamDiscard func,
                                  void *opaque)
{
}
