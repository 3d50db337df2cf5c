from __future__ import annotations

import pytest

from ebpfmesh.explanation import BadQuestion
from ebpfmesh.tracing import TRACE_VERSION, Kind, Told, Watch, watch

REASONS = {
    1: ("drop", "no_backend"),
    2: ("handback", "no_frontend"),
    3: ("handback", "no_backend"),
    4: ("handback", "ip_options"),
    5: ("retry", "no_answer"),
}
FLOW = 1 << 0


def asked(*kinds: str, reasons: list[str] | None = None, every: bool = False) -> int:
    """What the programs are asked for."""
    found = watch("", "", list(kinds), reasons or [], every=every, known=REASONS)
    return found.mask(REASONS)


def test_all_but_what_is_no_services() -> None:
    assert asked() == FLOW | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5
    assert asked(every=True) == asked() | 1 << 2


def test_by_kind() -> None:
    assert asked("flow") == FLOW
    assert asked("drop", "retry") == 1 << 1 | 1 << 5
    assert asked("handback") == 1 << 3 | 1 << 4
    assert asked("handback", every=True) == 1 << 2 | 1 << 3 | 1 << 4


def test_by_reason() -> None:
    assert asked(reasons=["no_backend"]) == 1 << 1 | 1 << 3
    assert asked("drop", reasons=["no_backend"]) == 1 << 1
    assert asked(reasons=["no_frontend"]) == 1 << 2


def told(**fields: object) -> Told:
    return Told(TRACE_VERSION, 0.0, **{"kind": Kind.FLOW, **fields})  # type: ignore[arg-type]


def test_by_service() -> None:
    one = Watch(service="web")
    assert one.lets(told(service="web"), ("", ""))
    assert not one.lets(told(service="db"), ("", ""))
    assert not one.lets(told(), ("", ""))


def test_by_client() -> None:
    one = watch("", "192.0.2.77/24", [], [], every=False, known=REASONS)
    assert one.client == "192.0.2.0/24"
    assert one.lets(told(), ("192.0.2.1", "10.0.0.1"))
    assert one.lets(told(), ("10.0.0.1", "192.0.2.1"))
    assert not one.lets(told(), ("10.0.0.1", "10.0.0.2"))
    assert not one.lets(told(), ("", "fd00::1"))


def test_everyone_is_told_what_was_lost() -> None:
    one = Watch(service="web", client="192.0.2.1/32", kinds=frozenset({Kind.DROP}))
    assert one.lets(told(kind=Kind.LOST, lost=3), ("", ""))


@pytest.mark.parametrize(
    ("client", "kinds", "reasons"),
    [("192.0.2", [], []), ("", ["lost"], []), ("", ["x\x1b"], []), ("", [], ["nonsense"])],
)
def test_what_cannot_be_asked(client: str, kinds: list[str], reasons: list[str]) -> None:
    with pytest.raises(BadQuestion, match=r"wanted|there are") as caught:
        watch("", client, kinds, reasons, every=False, known=REASONS)
    assert str(caught.value).isprintable()
