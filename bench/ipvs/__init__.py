# SPDX-License-Identifier: Apache-2.0
"""ebpfmesh against IPVS, iptables and nftables, in a guest that counts instructions."""
