# SPDX-License-Identifier: Apache-2.0
"""The shapes of the maps that are pinned, on disk: for the agent that finds them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from ebpfmesh.datapath import kernel
from ebpfmesh.datapath.loader import sized
from ebpfmesh.datapath.object import Object
from ebpfmesh.datapath.objects import write
from ebpfmesh.datapath.shapes import Shapes, differing
from ebpfmesh.typed import prepare

log = structlog.get_logger(__name__)

_DIGEST_SIZE = hashlib.sha256().digest_size
_COMING, _GOING = "-new", "-old"


def shapes_of(made: Object, values: Mapping[str, int], pin_dir: Path) -> Shapes:
    """Those that the maps of a node with these values have, pinned in `pin_dir`."""
    maps = {name: spec for name, spec in sized(made, values).items() if spec.pinned}
    return Shapes(str(pin_dir), maps, {}, made.reasons)


def save(file: Path, shapes: Shapes) -> None:
    """Keeps them; what cannot be written costs the next upgrade its flows, and is logged."""
    numbers = numbers_at(Path(shapes.pin_dir), shapes.maps)
    body = msgspec.msgpack.encode(msgspec.structs.replace(shapes, numbers=numbers))
    try:
        write(file, hashlib.sha256(body).digest() + body)
    except OSError as error:
        log.warning("shapes.not_kept", file=str(file), error=str(error))


def load(file: Path) -> Shapes | None:
    """What was saved last; None, with a line in the log, if that is damaged."""
    try:
        data = file.read_bytes()
        digest, body = data[:_DIGEST_SIZE], data[_DIGEST_SIZE:]
        if digest != hashlib.sha256(body).digest():
            raise ValueError("it is cut short, or was changed")
        return msgspec.msgpack.decode(body, type=Shapes)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        log.warning("shapes.ignored", file=str(file), error=str(error))
        return None


def to_move(file: Path, wanted: Shapes) -> Shapes | None:
    """The maps that have to be moved to such as are wanted.

    None if none are pinned, or those that are have these shapes, or nobody knows what theirs are.
    """
    known, home = load(file), Path(wanted.pin_dir)
    places = [home] if _is_pinned(home) else _others(home)
    for place in places:
        if known is None or known.pin_dir != str(place) or not _are_those(known, place):
            continue
        same = not differing(known.maps, wanted.maps) and known.reasons == wanted.reasons
        return None if same and place == home else known
    if places and home not in places:
        log.warning(
            "maps.not_moved",
            found=[str(place) for place in places],
            cause=f"{file} does not tell their shapes",
            effect="open connections find their tasks as if they came from another node",
        )
    return None


def coming(home: Path) -> Path:
    """Where maps are pinned while those at `home` serve yet."""
    return home.with_name(home.name + _COMING)


def going(home: Path) -> Path:
    """Where maps are pinned that others have taken the place of."""
    return home.with_name(home.name + _GOING)


def _is_pinned(place: Path) -> bool:
    return (place / "settings").exists()


def _others(home: Path) -> list[Path]:
    found = sorted(home.parent.glob("*"), reverse=True)
    return [p for p in found if _is_pinned(p) and not p.name.endswith((_COMING, _GOING))]


def _are_those(shapes: Shapes, place: Path) -> bool:
    """Whether these very maps are pinned there: others may be, after a boot or a `detach`."""
    return numbers_at(place, shapes.maps) == shapes.numbers


def numbers_at(place: Path, names: Mapping[str, object]) -> dict[str, int]:
    """The kernel's numbers of pinned maps, without those that are not there."""
    found = {}
    for name in names:
        try:
            fd = kernel.open_pinned(place / name)
        except OSError:
            continue
        found[name] = _number(fd)
        os.close(fd)
    return found


def _number(fd: int) -> int:
    text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    return int(text.partition("map_id:\t")[2].split()[0])


prepare(Shapes)
