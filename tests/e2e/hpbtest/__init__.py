# SPDX-License-Identifier: GPL-2.0-or-later
"""Harness for real guests: boots QEMU, talks to it and to the guest, looks at host memory.

What to run comes from the environment that ./hpb sets (see settings.py). The
harness starts and stops only its own QEMU processes, waits for events instead
of sleeping, and keeps every guest's console log below build/.

Data path: none of its own; it drives all seven steps from outside.
"""
