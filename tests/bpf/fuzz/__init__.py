# SPDX-License-Identifier: Apache-2.0
"""Hostile packets by the million, through every program, each run judged.

`seeds` are packets that the programs understand, `mutate` makes them wrong, `oracle` reads packets
independently of the programs, `judge` says what a run may do, `campaign` does it.
"""
