# SPDX-License-Identifier: GPL-2.0-or-later
"""What 3 GiB cost in requests, and what the host gets for them. How long it takes is for ./hpb bench to say."""
from __future__ import annotations

from hpbtest import measure
from hpbtest.guest import MIB, OURS

REQUESTS_MAX = 16


def test_requests_and_host_memory():
    """3 GiB of 4: few requests each way, all of it back at the host, huge pages outside the balloon whole."""
    m = measure.measure(OURS, "cost")
    assert 0 < m.shrink_traffic.requests <= REQUESTS_MAX
    assert 0 < m.grow_traffic.requests <= REQUESTS_MAX
    assert m.released >= 0.99
    moved = (measure.GUEST_MIB - measure.SMALL_MIB) * MIB
    # what is left may be less huge than before by what ordinary use of the guest splits meanwhile
    assert m.shrunk.huge >= m.before.huge - moved - 16 * MIB
