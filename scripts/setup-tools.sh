#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Install the Debian packages that a target of make needs beside those of `make setup`:
#
#     setup-tools.sh TARGET COMMAND:PACKAGE ...
#
# Nothing runs, and no root is needed, when every command is there. No service is started, now or
# at the next boot: only the tools are wanted.
set -euo pipefail

readonly TARGET=$1
readonly POLICY=/usr/sbin/policy-rc.d

export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

install() {
	if [[ ! -e $POLICY ]]; then
		trap 'rm -f "$POLICY"' EXIT
		printf '#!/bin/sh\nexit 101\n' >"$POLICY"
		chmod 755 "$POLICY"
	fi
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
	if [[ " $* " == *" prometheus "* ]] && command -v systemctl >/dev/null; then
		systemctl disable --quiet prometheus.service || true
	fi
}

main() {
	local tool missing=()
	for tool in "$@"; do
		command -v "${tool%%:*}" >/dev/null || missing+=("${tool#*:}")
	done
	if [[ ${#missing[@]} -eq 0 ]]; then
		return
	fi
	if ! command -v apt-get >/dev/null; then
		echo "$TARGET: no apt-get here. It wants these Debian packages: ${missing[*]}" >&2
		return 1
	fi
	if [[ $EUID -ne 0 ]]; then
		echo "$TARGET: missing Debian packages: ${missing[*]}" >&2
		echo "$TARGET: run: sudo make $TARGET" >&2
		return 1
	fi
	echo "$TARGET: installing ${missing[*]}"
	install "${missing[@]}"
}

main "${@:2}"
