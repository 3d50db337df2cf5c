# SPDX-License-Identifier: Apache-2.0
"""C types as ctypes, from the descriptions that bcc makes of bpf/types.h.

A type is its name, or a list: the name of a struct, its fields, and "struct", "struct_packed" or
"union". A field is a list of its name and type; an array's has the length behind them, in a
list, and a bit field's the width.
"""

from __future__ import annotations

import ctypes
import json
from typing import Any

# The names that bcc gives to C's own types.
_BASIC: dict[str, Any] = {
    "_Bool": ctypes.c_bool,
    "char": ctypes.c_char,
    "signed char": ctypes.c_byte,
    "unsigned char": ctypes.c_ubyte,
    "short": ctypes.c_short,
    "unsigned short": ctypes.c_ushort,
    "int": ctypes.c_int,
    "unsigned int": ctypes.c_uint,
    "long": ctypes.c_long,
    "unsigned long": ctypes.c_ulong,
    "long long": ctypes.c_longlong,
    "unsigned long long": ctypes.c_ulonglong,
}


def ctype(description: str) -> Any:
    """The ctype of a description in JSON. Raises `ValueError` for one that is not understood."""
    return _type(json.loads(description))


def _type(described: Any) -> Any:
    if isinstance(described, str):
        if described not in _BASIC:
            raise ValueError(f"no ctype is known for the C type {described}")
        return _BASIC[described]
    name, fields, *kind = described
    base = ctypes.Union if kind == ["union"] else ctypes.Structure
    body: dict[str, Any] = {"_fields_": [_field(*field) for field in fields]}
    if kind == ["struct_packed"]:
        body = {"_pack_": 1, **body}
    return type(str(name), (base,), body)


def _field(name: str, described: Any, length: Any = None) -> tuple[str, Any]:
    match length:
        case None:
            return name, _type(described)
        case [int(count)]:
            return name, _type(described) * count
    raise ValueError(f"field {name} is of a kind that is not understood")
