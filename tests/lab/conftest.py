# SPDX-License-Identifier: Apache-2.0
"""One lab of three nodes for all. Without root the tests fail: skipped, they prove nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from ebpfmesh.lab.errors import LabError
from ebpfmesh.lab.lab import Lab
from ebpfmesh.lab.processes import last_lines

from .agents import Agents
from .world import World

_AGENT_LINES = 8
_DOCKER_LINES = 4
_USUAL = "net.ipv4.vs."
"""Where the kernel has no IPVS, dockerd says so for each container."""
_DEFAULT_RETURN_MODE = "tunnel"
_OWN_LABS = ("test_down.py", "changes")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What brings up a lab of its own comes first: there is never more than one."""
    items.sort(key=lambda item: {item.path.name, item.path.parent.name}.isdisjoint(_OWN_LABS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Logs come before what the test itself has said: that is nearer to the end."""
    report = yield
    if report.failed and item.path.is_relative_to(Path(__file__).parent):
        report.sections[:0] = _logs()
    return report


def _logs() -> Iterator[tuple[str, str]]:
    try:
        lab = Lab.find()
    except LabError as error:
        yield "lab", str(error)
        return
    for node in lab.nodes if lab else ():
        yield f"agent of {node.name}", last_lines(node.agent_log, _AGENT_LINES)
        yield f"dockerd of {node.name}", last_lines(node.docker_log, _DOCKER_LINES, _USUAL)


class Session(NamedTuple):
    lab: Lab
    agents: Agents


@pytest.fixture(scope="session", autouse=True)
def object_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every lab of a run has the same programs: they are compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        if not os.environ.get("EBPFMESH_OBJECT_DIR"):
            patch.setenv("EBPFMESH_OBJECT_DIR", str(tmp_path_factory.mktemp("objects")))
        yield


@contextmanager
def lab_up(nodes: int, managers: int = 1, *, agents: bool = True) -> Iterator[Lab]:
    """Up to the end of the context, whatever ends it."""
    if os.geteuid() != 0:
        pytest.fail("these tests make namespaces and load programs: run them as root", False)
    # SIGTERM, like Ctrl-C, must not leave the lab behind.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        lab = Lab.up(nodes=nodes, managers=managers, agents=agents)
        try:
            yield lab
        finally:
            lab.down()
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def session() -> Iterator[Session]:
    with lab_up(nodes=3) as lab:
        yield Session(lab, Agents(lab))


@pytest.fixture(scope="session", params=["tunnel", "dsr"])
def return_mode(session: Session, request: pytest.FixtureRequest) -> str:
    mode = str(request.param)
    session.agents.use(**({} if mode == _DEFAULT_RETURN_MODE else {"return_mode": mode}))
    return mode


@pytest.fixture(scope="session", params=["generic", "off"])
def xdp(session: Session, request: pytest.FixtureRequest) -> str:
    mode = str(request.param)
    session.agents.use(xdp=mode)
    return mode


@contextmanager
def world_in(session: Session) -> Iterator[World]:
    """Services and networks up to the end of the context.

    To make and to take away takes seconds: tests that only send packets share them.
    """
    world = World(*session)
    try:
        yield world
    finally:
        world.clear()


@pytest.fixture
def world(session: Session, request: pytest.FixtureRequest) -> Iterator[World]:
    """Services and networks for one test."""
    if not {"return_mode", "xdp"} & set(request.fixturenames):
        session.agents.use()
    with world_in(session) as world:
        yield world
