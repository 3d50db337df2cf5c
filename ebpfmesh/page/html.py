# SPDX-License-Identifier: Apache-2.0
"""HTML that cannot be broken from outside: text becomes markup only by way of `element`. Pure."""

from __future__ import annotations

from html import escape

from ebpfmesh.wording import clean


class Html(str):
    """Markup that may stand in a page as it is."""

    __slots__ = ()


Content = str | Html | None


def text(content: str) -> Html:
    """Return text as markup: escaped, without what a browser would not show as it is."""
    return Html(escape(clean(content)))


def join(*content: Content) -> Html:
    """Put several one after the other; None is nothing."""
    return Html("".join(_markup(one) for one in content if one is not None))


def element(name: str, *content: Content, **attributes: str | bool) -> Html:
    """Return an element; ``class_`` and ``data_x`` stand for ``class`` and ``data-x``.

    An attribute that is True has no value, and one that is False or empty is left out.
    """
    inside = "".join(_attribute(key, value) for key, value in attributes.items())
    return Html(f"<{name}{inside}>{join(*content)}</{name}>")


def _attribute(key: str, value: str | bool) -> str:
    name = key.rstrip("_").replace("_", "-")
    if not value:
        return ""
    if value is True:
        return f" {name}"
    return f' {name}="{text(value)}"'


def _markup(content: str | Html) -> str:
    return content if isinstance(content, Html) else text(content)
