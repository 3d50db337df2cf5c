#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Install the Debian packages that `make test-kernels` needs beside those of `make setup`.
#
# Nothing runs, and no root is needed, when nothing is missing.
set -euo pipefail

# command:package
readonly TOOLS=(
	debootstrap:debootstrap
	mke2fs:e2fsprogs
	qemu-system-x86_64:qemu-system-x86
	setpriv:util-linux
)

export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

main() {
	local tool missing=()
	for tool in "${TOOLS[@]}"; do
		command -v "${tool%%:*}" >/dev/null || missing+=("${tool#*:}")
	done
	if [[ ${#missing[@]} -eq 0 ]]; then
		return
	fi
	if ! command -v apt-get >/dev/null; then
		echo "test-kernels: no apt-get here. It wants these Debian packages: ${missing[*]}" >&2
		return 1
	fi
	if [[ $EUID -ne 0 ]]; then
		echo "test-kernels: missing Debian packages: ${missing[*]}" >&2
		echo "test-kernels: run: sudo make test-kernels" >&2
		return 1
	fi
	echo "test-kernels: installing ${missing[*]}"
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}

main
