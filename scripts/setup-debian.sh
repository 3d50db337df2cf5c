#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Install the Debian packages (12, 13) that ebpfmesh, its lab and its tests stand on.
#
# Nothing runs, and no root is needed, when nothing is missing. A tool that is there already,
# from whatever source, is left alone.
set -euo pipefail

# command:package
readonly TOOLS=(
	bpftool:bpftool
	curl:curl
	dig:bind9-dnsutils
	ethtool:ethtool
	gcc:gcc
	ip:iproute2
	iperf3:iperf3
	iptables:iptables
	make:make
	modprobe:kmod
	nsenter:util-linux
	sysctl:procps
	tcpdump:tcpdump
)

# What has no command of its own, or must be Debian's build: bcc is a module of the system's
# interpreter, and the lab's images need a busybox that is linked statically.
readonly LIBRARIES=(
	busybox-static
	libc6-dev
	linux-libc-dev
	python3-bpfcc
)

readonly POLICY=/usr/sbin/policy-rc.d

# A user's own PATH often lacks these, and make must see what root sees.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

have() {
	command -v "$1" >/dev/null
}

installed() {
	[[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

missing_packages() {
	local tool library
	for tool in "${TOOLS[@]}"; do
		have "${tool%%:*}" || echo "${tool#*:}"
	done
	for library in "${LIBRARIES[@]}"; do
		installed "$library" || echo "$library"
	done
	[[ -x /usr/bin/python3 ]] || echo python3
	/usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
	# All three or none: Docker's own packages conflict with Debian's.
	have dockerd || printf '%s\n' docker.io containerd runc
	have docker || echo docker-cli
}

# Debian starts a service as soon as its package is installed. The lab runs a dockerd of its own
# per node and wants none on the machine, where it would rewrite the firewall and turn on
# forwarding. So starting is forbidden while apt runs (an administrator's own policy stays as it
# is), and a Docker that came with us is not started at the next boot either.
forbid_service_start() {
	if [[ ! -e $POLICY ]]; then
		trap 'rm -f "$POLICY"' EXIT
		printf '#!/bin/sh\nexit 101\n' >"$POLICY"
		chmod 755 "$POLICY"
	fi
}

keep_docker_off_at_boot() {
	if have systemctl; then
		systemctl disable --quiet docker.service docker.socket containerd.service || true
	fi
}

# Debian 12 has no docker-cli: there the command comes with docker.io.
available() {
	apt-cache show "$1" &>/dev/null
}

install() {
	export DEBIAN_FRONTEND=noninteractive
	local package wanted=()

	apt-get update -q
	for package in "$@"; do
		if [[ $package != docker-cli ]] || available docker-cli; then
			wanted+=("$package")
		fi
	done
	forbid_service_start
	apt-get install -q -y --no-install-recommends "${wanted[@]}"
	if [[ " $* " == *" docker.io "* ]]; then
		keep_docker_off_at_boot
	fi
}

main() {
	local missing
	mapfile -t missing < <(missing_packages)
	if [[ ${#missing[@]} -eq 0 ]]; then
		return
	fi
	if ! have apt-get; then
		echo "setup: no apt-get here. ebpfmesh wants these Debian packages: ${missing[*]}" >&2
		return 1
	fi
	if [[ $EUID -ne 0 ]]; then
		echo "setup: missing Debian packages: ${missing[*]}" >&2
		echo "setup: run: sudo make setup" >&2
		return 1
	fi
	echo "setup: installing ${missing[*]}"
	install "${missing[@]}"
}

main
