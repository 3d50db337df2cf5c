# SPDX-License-Identifier: Apache-2.0
"""Paths in the lab: what lies between a client and a task, and what each of them costs."""
