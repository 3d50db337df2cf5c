#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Make dist/ebpfmesh-*.whl with the compiled programs in it: who installs that needs neither LLVM
# nor the kernel's headers. Needs root, because bcc makes maps while it compiles.
set -euo pipefail

readonly PYTHON=${1:-.venv/bin/python}
readonly OBJECTS=ebpfmesh/objects

if [[ $EUID -ne 0 ]]; then
	echo "wheel: compiling makes maps: run this as root" >&2
	exit 1
fi
trap 'rm -rf "$OBJECTS"' EXIT
rm -rf "$OBJECTS" dist/ebpfmesh-*.whl
"$PYTHON" -m ebpfmesh.datapath.compile
"$PYTHON" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
chown -R --reference=pyproject.toml dist
ls dist/ebpfmesh-*.whl
