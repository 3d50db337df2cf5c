# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# The first process of the guest: measures the programs, runs the tests, hands the results over.
#
# /dev/vdb holds the sources (a tar), /dev/vdc is where the results go (another). In
# /checkout/guest.env, TESTS are arguments for pytest, none when empty; COMMAND, if not empty, is
# what to run instead of all that. It writes into ./results.

export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
export PYTHONPATH=/checkout:/opt/site PYTHONDONTWRITEBYTECODE=1

mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
modprobe tun

cd /checkout || exit
mkdir -p results
TESTS='' COMMAND=''
. ./guest.env
uname -r >results/kernel
echo 1 >/proc/sys/kernel/printk

say() {
	echo "guest: $*, up $(cut -d . -f 1 /proc/uptime) s"
}

# Compiled once, for all.
export EBPFMESH_OBJECT_DIR=/tmp/objects

say "$(uname -r), $(python3 --version)"
if [ -n "$COMMAND" ]; then
	# shellcheck disable=SC2086
	$COMMAND
	say "done"
else
	python3 -m tests.kernels.measure results/programs.json
	say "programs loaded"
fi
if [ -n "$TESTS" ]; then
	# Emulated, everything takes twenty times as long.
	# shellcheck disable=SC2086
	python3 -m pytest -p no:cacheprovider --color no --maxfail 20 --timeout 1800 --durations 15 \
		--junitxml results/tests.xml $TESTS
fi

tar -cf /dev/vdc -C results .
sync
echo o >/proc/sysrq-trigger
sleep 60
