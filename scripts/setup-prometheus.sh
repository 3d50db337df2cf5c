#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Install Debian's Prometheus, which `make alerts` needs beside the packages of `make setup`.
#
# Nothing runs, and no root is needed, when it is there already.
set -euo pipefail

readonly POLICY=/usr/sbin/policy-rc.d

main() {
	if command -v promtool >/dev/null; then
		return
	fi
	if ! command -v apt-get >/dev/null; then
		echo "alerts: no apt-get here. It wants promtool: Debian's package prometheus" >&2
		return 1
	fi
	if [[ $EUID -ne 0 ]]; then
		echo "alerts: missing Debian package: prometheus (run as root to install it)" >&2
		return 1
	fi
	echo "alerts: installing prometheus"
	# Only the tool is wanted: no service is started, now or at the next boot.
	if [[ ! -e $POLICY ]]; then
		trap 'rm -f "$POLICY"' EXIT
		printf '#!/bin/sh\nexit 101\n' >"$POLICY"
		chmod 755 "$POLICY"
	fi
	apt-get update -q
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends prometheus
	if command -v systemctl >/dev/null; then
		systemctl disable --quiet prometheus.service || true
	fi
}

main
