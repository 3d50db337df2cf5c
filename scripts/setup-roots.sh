#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Install the Debian package that `make test-deploy` and `make test-engines` need beside those of
# `make setup`.
#
# Nothing runs, and no root is needed, when it is there.
set -euo pipefail

export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

if command -v debootstrap >/dev/null; then
	exit
fi
if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
	echo "setup: missing Debian package: debootstrap" >&2
	exit 1
fi
echo "setup: installing debootstrap"
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends debootstrap
