#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Take ebpfmesh off every node of the Swarm: a job that runs once on each. On a manager, after
# `docker stack rm ebpfmesh`. IMAGE and CGROUP_ROOT are as for stack.yml.
set -eu

image=${IMAGE:-ebpfmesh:latest}
job=ebpfmesh-detach

if docker service inspect ebpfmesh_agent >/dev/null 2>&1; then
	echo "detach: the agents would attach all of it again: docker stack rm ebpfmesh" >&2
	exit 1
fi
# So would those that are still about to stop. One on a node that is down is not waited for forever.
for _ in $(seq 60); do
	if [ -z "$(docker stack ps --quiet ebpfmesh 2>/dev/null)" ]; then
		break
	fi
	sleep 1
done
trap 'docker service rm "$job" >/dev/null' EXIT
# The capabilities of stack.yml, but that nothing is announced.
docker service create --quiet --no-resolve-image --name "$job" --mode global-job \
	--constraint node.platform.os==linux \
	--network host --cap-drop ALL --cap-add SYS_ADMIN --cap-add NET_ADMIN --read-only \
	--mount type=bind,src=/var/run/docker/netns,dst=/var/run/docker/netns,ro,bind-propagation=rslave \
	--mount type=bind,src=/sys/fs/bpf,dst=/host/bpf \
	--mount "type=bind,src=${CGROUP_ROOT:-/sys/fs/cgroup},dst=/host/cgroup,ro" \
	"$image" detach >/dev/null
docker service logs --raw "$job"
