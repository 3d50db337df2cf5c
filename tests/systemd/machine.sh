#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A machine for systemd, out of namespaces: it is their first process, and all ends with it.
#
#     unshare --mount --uts --ipc --net --pid --cgroup --fork --kill-child machine.sh ROOT ROOM
#
# ROOT is a Debian system, which stays as it is. ROOM/checkout becomes /checkout there, and
# ROOM/results its results. systemd is root, as on a machine, so what is not of namespaces is kept
# from it: settings of the kernel but those of its network, devices, clock, modules.
set -euo pipefail

readonly ROOT=$1 ROOM=$2
readonly NEW=$ROOM/root
readonly FORBIDDEN=-sys_boot,-sys_time,-sys_module,-sys_rawio,-syslog,-wake_alarm,-mac_admin,-mac_override

# What asks for a machine's own devices and settings, or for a person.
readonly LEFT_OUT=(
	{systemd-{sysctl,udevd,udev-trigger,modules-load,random-seed,logind,pstore},kmod-static-nodes}.service
	{getty@,console-getty,serial-getty@}.service getty.target
	{dev-hugepages,sys-kernel-{debug,tracing,config},sys-fs-fuse-connections}.mount
	proc-sys-fs-binfmt_misc.automount systemd-udevd-{control,kernel}.socket
	{apt-daily,apt-daily-upgrade,dpkg-db-backup,e2scrub_all,fstrim}.timer
)

mount --make-rprivate /
mkdir -p "$ROOM/own" "$NEW"
mount -t tmpfs tmpfs "$ROOM/own"
mkdir "$ROOM"/own/{upper,work,docker}
mount -t overlay -o "lowerdir=$ROOT,upperdir=$ROOM/own/upper,workdir=$ROOM/own/work" overlay "$NEW"
cp -r "$ROOM/checkout" "$NEW/"
mkdir -p "$NEW"/checkout/results "$NEW/var/lib/docker"
mount --bind "$ROOM/results" "$NEW/checkout/results"
mount --bind "$ROOM/own/docker" "$NEW/var/lib/docker" # an overlay on an overlay cannot be

mount -t proc proc "$NEW/proc"
mount --bind "$NEW/proc/sys" "$NEW/proc/sys"
mount --bind "$NEW/proc/sys/net" "$NEW/proc/sys/net"
mount -o remount,bind,ro "$NEW/proc/sys"
if [[ -e $NEW/proc/sysrq-trigger ]]; then
	mount --bind /dev/null "$NEW/proc/sysrq-trigger"
fi
mount -t sysfs -o ro sysfs "$NEW/sys"
mount -t cgroup2 cgroup2 "$NEW/sys/fs/cgroup"
mount -t bpf bpf "$NEW/sys/fs/bpf"
mount -t tmpfs -o mode=755 tmpfs "$NEW/run"
mount -t tmpfs tmpfs "$NEW/tmp"
mount -t tmpfs -o mode=755 tmpfs "$NEW/dev"
for device in null zero full random urandom tty; do
	touch "$NEW/dev/$device"
	mount --bind "/dev/$device" "$NEW/dev/$device"
done
mkdir "$NEW"/dev/{pts,shm}
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$NEW/dev/pts"
ln -s pts/ptmx "$NEW/dev/ptmx"
ln -s /proc/self/fd "$NEW/dev/fd"

units=$NEW/etc/systemd/system
for unit in "${LEFT_OUT[@]}"; do
	ln -sf /dev/null "$units/$unit"
done
# dockerd is there, but does not run yet.
rm -f "$units"/multi-user.target.wants/{docker,containerd,e2scrub_reap}.service \
	"$units"/sockets.target.wants/docker.socket
cp "$NEW/checkout/tests/systemd/trial.service" "$units/"
mkdir -p "$units/multi-user.target.wants"
ln -s ../trial.service "$units/multi-user.target.wants/"
hostname node1
echo node1 >"$NEW/etc/hostname"
rm -f "$NEW"/etc/{machine-id,resolv.conf}
touch "$NEW/etc/machine-id"
# One that does not answer would hold up each task.
echo nameserver 127.0.0.1 >"$NEW/etc/resolv.conf"

cd "$NEW"
mkdir -p machine
pivot_root . machine
umount --lazy /machine
# As systemd does on a machine, but leaves to the manager of a container: what dockerd mounts later
# comes through to units with mounts of their own.
mount --make-rshared /
exec env --ignore-environment container=lxc PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	setpriv --bounding-set "$FORBIDDEN" --inh-caps "$FORBIDDEN" /lib/systemd/systemd
