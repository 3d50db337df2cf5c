# SPDX-License-Identifier: Apache-2.0
"""bcc's library without its compiler: what makes maps, loads programs and attaches them.

Debian's libbpfcc holds two: libbcc, which the module `bcc` loads, and which needs all of LLVM; and
libbcc_bpf, that part of it which speaks to the kernel. An agent compiles nothing (`compile` does,
in a process of its own), so it does without the former, and so does an image.
"""

from __future__ import annotations

import ctypes
import errno

_NAME = "libbcc_bpf.so.0"

_INT, _U32, _U64, _BOOL = ctypes.c_int, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_bool
_TEXT, _DATA = ctypes.c_char_p, ctypes.c_void_p

# Name -> types of its arguments (bcc: src/cc/libbpf.h, libbpf: bpf.h). All but one return an int.
_FUNCTIONS: dict[str, list[type]] = {
    "bcc_create_map": [_INT, _TEXT, _INT, _INT, _INT, _INT],
    "bcc_create_map_xattr": [_DATA, _BOOL],
    "bcc_prog_load_xattr": [_INT, _TEXT, _TEXT, _DATA, _DATA, _INT, _DATA, _U32, _BOOL],
    "bpf_consume_ringbuf": [_DATA],
    "bpf_delete_elem": [_INT, _DATA],
    "bpf_free_ringbuf": [_DATA],
    "bpf_get_first_key": [_INT, _DATA, ctypes.c_size_t],
    "bpf_get_next_key": [_INT, _DATA, _DATA],
    "bpf_lookup_batch": [_INT, _DATA, _DATA, _DATA, _DATA, _DATA],
    "bpf_lookup_elem": [_INT, _DATA, _DATA],
    "bpf_map_get_fd_by_id": [_U32],
    "bpf_new_ringbuf": [_INT, _DATA, _DATA],
    "bpf_obj_get": [_TEXT],
    "bpf_obj_get_info": [_INT, _DATA, _DATA],
    "bpf_obj_pin": [_INT, _TEXT],
    "bpf_prog_attach": [_INT, _INT, _INT, ctypes.c_uint],
    "bpf_prog_detach2": [_INT, _INT, _INT],
    "bpf_prog_get_fd_by_id": [_U32],
    "bpf_prog_test_run_opts": [_INT, _DATA],
    "bpf_update_batch": [_INT, _DATA, _DATA, _DATA],
    "bpf_update_elem": [_INT, _DATA, _DATA, _U64],
}


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_NAME, use_errno=True)
    except OSError as error:
        raise OSError(
            errno.ENOENT, f"{_NAME} is missing ({error}): install Debian's python3-bpfcc"
        ) from error
    for name, arguments in _FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, _INT
    library.bpf_new_ringbuf.restype = _DATA
    return library


lib = _load()
