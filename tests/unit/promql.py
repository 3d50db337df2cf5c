# SPDX-License-Identifier: Apache-2.0
"""Just enough of PromQL to see which metrics and labels an expression is about."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ebpfmesh.metrics import Family, families

OF_A_TARGET = frozenset({"job", "instance"})
"""Labels that Prometheus adds itself."""

_SELECTOR = re.compile(r"\b(ebpfmesh_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")


def known() -> dict[str, Family]:
    """Every name that a series may have."""
    found = {family.name: family for family in families()}
    for family in families():
        if family.kind == "histogram":
            stem = family.name.removesuffix("_bucket")
            found |= dict.fromkeys((f"{stem}_sum", f"{stem}_count"), family)
    return found


def unknown_in(expression: str) -> Iterator[str]:
    """What an expression asks for that no agent tells."""
    names, labels = known(), set(OF_A_TARGET)
    for name, matchers in _SELECTOR.findall(expression):
        if name not in names:
            yield name
            continue
        has = {*names[name].labels, *OF_A_TARGET}
        labels |= has
        yield from (
            f"{name}{{{label}}}" for label in _MATCHER.findall(matchers) if label not in has
        )
    for group in _GROUPING.findall(expression):
        wanted = {label.strip() for label in group.split(",") if label.strip()}
        yield from (f"by ({label})" for label in wanted - labels)


def labels_in(text: str) -> set[str]:
    """The labels that a template of Prometheus or Grafana shows."""
    return set(re.findall(r"\{\{\s*(?:\$labels\.)?([a-z]\w*)\s*\}\}", text))


def groups_in(expression: str) -> set[str] | None:
    """The labels of the outermost `by`; None if there is no `by`."""
    found = re.search(r"\bby\s*\(([^)]*)\)", expression)
    return {label.strip() for label in found[1].split(",")} if found else None


def labels_of(expression: str) -> set[str]:
    """The labels that its series may have."""
    names = known()
    found = [names[name].labels for name, _ in _SELECTOR.findall(expression) if name in names]
    return {label for labels in found for label in labels} | OF_A_TARGET
