/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libhpballoon: frees and provides the host memory behind a guest by range
 *
 * This header includes all others; it is the one to include.
 */
#ifndef HPBALLOON_HPBALLOON_H
#define HPBALLOON_HPBALLOON_H

#include <hpballoon/error.h>
#include <hpballoon/host.h>
#include <hpballoon/memory.h>
#include <hpballoon/range.h>
#include <hpballoon/collapse.h>
#include <hpballoon/discard.h>
#include <hpballoon/headroom.h>
#include <hpballoon/populate.h>
#include <hpballoon/scan.h>

#endif /* HPBALLOON_HPBALLOON_H */
