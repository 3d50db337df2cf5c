# SPDX-License-Identifier: Apache-2.0
"""The hub's protocol: framing, decoding, differences of states."""

from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ebpfmesh.hub.delta import apply, diff, update
from ebpfmesh.hub.errors import BaseMismatch, ProtocolError
from ebpfmesh.hub.protocol import (
    MAX_FROM_AGENT,
    PROTOCOL_VERSION,
    Delta,
    Follow,
    FrameBuffer,
    Full,
    Hello,
    Ping,
    Pong,
    Report,
    Welcome,
    check_version,
    decode_from_agent,
    decode_from_hub,
    encode,
)
from ebpfmesh.model import BackendState, EndpointMode, MeshState, Network, Node, Service, Task

names = st.text("abc", min_size=1, max_size=2)
tasks = st.builds(
    Task, id=names, service_id=names, node_id=names, state=st.sampled_from(BackendState)
)
nodes = st.builds(Node, id=names, hostname=names, address=names, up=st.booleans())
networks = st.builds(Network, id=names, name=names, vni=st.integers(4096, 4100))
services = st.builds(Service, id=names, name=names, mode=st.sampled_from(EndpointMode))
states = st.builds(
    MeshState,
    version=st.integers(0, 9),
    nodes=st.dictionaries(names, nodes),
    networks=st.dictionaries(names, networks),
    services=st.dictionaries(names, services),
    tasks=st.dictionaries(names, tasks),
)


@given(states, states)
def test_a_difference_leads_from_the_old_state_to_the_new(old: MeshState, new: MeshState) -> None:
    assert apply(old, diff(old, new)) == new


@given(states, states)
def test_an_update_survives_the_wire(old: MeshState, new: MeshState) -> None:
    (payload,) = FrameBuffer(1 << 20).feed(encode(update(old, new), 1 << 20))
    message = decode_from_hub(payload)
    assert isinstance(message, Full | Delta)
    assert (message.state if isinstance(message, Full) else apply(old, message)) == new


def test_a_difference_from_another_state_is_refused() -> None:
    delta = diff(MeshState(version=3), MeshState(version=4))
    with pytest.raises(BaseMismatch, match=r"version 3 does not fit 2"):
        apply(MeshState(version=2), delta)


def test_when_most_of_it_changes_the_whole_state_is_sent() -> None:
    def state(version: int, owner: str) -> MeshState:
        owned = {
            str(n): Task(str(n), "web", owner, BackendState.READY) for n in range(10 * version)
        }
        return MeshState(version=version, tasks=owned)

    assert isinstance(update(None, state(1, "a")), Full)
    assert isinstance(update(state(1, "a"), state(2, "b")), Full)
    one_gone = msgspec.structs.replace(state(1, "a"), version=2, tasks={})
    assert isinstance(update(one_gone, msgspec.structs.replace(one_gone, version=3)), Delta)


@pytest.mark.parametrize(
    "message",
    [
        Hello(protocol=1, node_id="n1", agent="0.1"),
        Follow(active=False),
        Report("n1", "192.0.2.11", {"t": BackendState.GONE}),
        Pong(),
    ],
)
def test_an_agents_messages_survive_the_wire(message: Hello | Follow | Report | Pong) -> None:
    (payload,) = FrameBuffer(MAX_FROM_AGENT).feed(encode(message, MAX_FROM_AGENT))
    assert decode_from_agent(payload) == message


@given(st.binary(max_size=64))
def test_any_bytes_decode_or_break_the_protocol(data: bytes) -> None:
    for decode in (decode_from_agent, decode_from_hub):
        with suppress(ProtocolError):
            decode(data)


@given(st.lists(st.binary(max_size=20), max_size=5), st.integers(1, 7))
def test_frames_are_found_however_the_stream_is_cut(payloads: list[bytes], cut: int) -> None:
    stream = b"".join(len(p).to_bytes(4, "big") + p for p in payloads)
    frames = FrameBuffer(limit=20)
    pieces = [stream[at : at + cut] for at in range(0, len(stream), cut)]
    assert [p for piece in pieces for p in frames.feed(piece)] == payloads


def test_a_frame_over_the_limit_is_refused_by_its_length_alone() -> None:
    with pytest.raises(ProtocolError, match="announced a message of 21 bytes, the limit is 20"):
        list(FrameBuffer(limit=20).feed((21).to_bytes(4, "big")))


def test_a_message_over_the_limit_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="exceeds the limit"):
        encode(Hello(protocol=1, node_id="x" * 100), limit=50)


def test_another_protocol_version_is_named_next_to_ours() -> None:
    check_version(PROTOCOL_VERSION)
    with pytest.raises(ProtocolError, match=rf"version 99, this side {PROTOCOL_VERSION}"):
        check_version(99)


def test_fields_of_a_later_release_are_ignored() -> None:
    later = msgspec.msgpack.encode({"t": "welcome", "protocol": 1, "node_id": "n1", "mood": "good"})
    assert decode_from_hub(later) == Welcome(protocol=1, node_id="n1")
    assert decode_from_hub(msgspec.msgpack.encode({"t": "ping", "age_s": 0.5})) == Ping(0.5)


def test_when_a_change_happened_goes_with_it_but_not_to_a_newcomer() -> None:
    old, new = MeshState(version=3, origin_ns=30), MeshState(version=4, origin_ns=40)
    assert apply(old, diff(old, new)).origin_ns == 40
    assert diff(old, new).changes == 0
    assert update(None, new) == Full(MeshState(version=4))


def test_a_report_is_what_it_says_whenever_that_came_to_be() -> None:
    early, late = Report("n1", "192.0.2.11", {}, 1), Report("n1", "192.0.2.11", {}, 2)
    assert early.says() == late.says()
    assert early.says() != Report("n1", "192.0.2.12", {}, 1).says()
