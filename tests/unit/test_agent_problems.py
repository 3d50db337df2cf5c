# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import msgspec
import pytest

from ebpfmesh.agent.problems import Condition, problems
from ebpfmesh.status import HubStatus

HUB = HubStatus("agent", True, "192.0.2.11:7380", 1000.0, 7, 0.2)
WELL = Condition(hub=HUB, uptime_s=1000.0, synced=True, programs=3, link="eth0")


def with_hub(**changes: object) -> Condition:
    return msgspec.structs.replace(WELL, hub=msgspec.structs.replace(HUB, **changes))


def test_an_agent_that_is_well_has_none() -> None:
    assert problems(WELL) == ()


def test_no_hub_since_when_and_why() -> None:
    away = with_hub(connected=False, since_s=42.4, last_error="refused")
    assert problems(away) == ("no hub for 42 s: refused",)
    assert problems(with_hub(connected=False, since_s=3.0)) == ("no hub for 3 s",)


@pytest.mark.parametrize(("age_s", "said"), [(14.9, False), (15.1, True), (60.0, True)])
def test_a_hub_that_no_manager_confirms(age_s: float, said: bool) -> None:
    words = f"no manager has confirmed the Swarm's state for {age_s:.0f} s"
    assert problems(with_hub(age_s=age_s)) == ((words,) if said else ())


def test_a_hub_that_was_never_confirmed() -> None:
    """As after the start of an agent while no manager's dockerd answers."""
    young = msgspec.structs.replace(with_hub(age_s=None), uptime_s=10.0)
    assert problems(young) == ()
    assert problems(msgspec.structs.replace(young, uptime_s=42.0)) == (
        "no manager has confirmed the Swarm's state for 42 s that the agent runs",
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"synced": False}, "nothing is known of the Swarm yet"),
        ({"behind": "no dockerd"}, "the maps are behind: no dockerd"),
        ({"link_up": False}, "the link eth0 to the other nodes is down"),
        (
            {"link_there": False},
            "the link eth0 to the other nodes has gone: start the agent again",
        ),
        ({"programs": 0}, "no programs are attached"),
        (
            {"uncovered": frozenset({"t2", "t1"})},
            "programs are missing at links of tasks that get flows: t1, t2",
        ),
        (
            {"unsaved": "no space"},
            "a restart without a manager would begin with an old state: no space",
        ),
    ],
)
def test_what_else_may_be_wrong(changes: dict[str, object], words: str) -> None:
    assert problems(msgspec.structs.replace(WELL, **changes)) == (words,)
