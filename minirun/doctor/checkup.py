"""The table of all probes, in the order in which a start needs the things, and the loop over it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from minirun.doctor import cgroups, networks, places, processes
from minirun.doctor.finding import FAILURE, OK, SKIPPED, WARNING, Finding, Probe, examine

_EVERY = "every container"
_NETWORKS = "networks"
_KERNEL = "use a newer kernel, or one without a filter over this program (Debian's will do)"
_CONFINED = "run it on the machine itself, not in a confined container or service"


def _namespace(kind: str, needed_by: str = _EVERY, fatal: bool = True) -> Probe:
    return Probe(f"{kind} namespace", processes.namespace(kind), needed_by, _CONFINED, fatal, ("capabilities",))


def _controller(v1: str, v2: str, needed_by: str, fatal: bool = False) -> Probe:
    remedy = f"boot with cgroup_enable={v1}"
    return Probe(f"cgroup {v1}", cgroups.controller(v1, v2), needed_by, remedy, fatal, ("cgroups",))


def _recipe_tool(name: str, package: str) -> Probe:
    return Probe(name, places.program(name, package), "image build", "", fatal=False, root=False)


PROBES: tuple[Probe, ...] = (
    Probe("root", processes.root, _EVERY, "sudo minirun doctor", root=False),
    Probe("capabilities", processes.capabilities, _EVERY, _CONFINED),
    _namespace("mount"),
    _namespace("pid"),
    _namespace("network"),
    _namespace("uts"),
    _namespace("ipc"),
    _namespace("cgroup"),
    _namespace("user", "user mappings", False),
    _namespace("time", "OCI bundles that ask for it", False),
    Probe("namespace limits", processes.namespace_limits, "many containers", "", False, root=False),
    Probe("clone3", processes.clone3, _EVERY, _KERNEL, root=False),
    Probe("openat2", processes.openat2, _EVERY, _KERNEL, root=False),
    Probe("close_range", processes.close_range, _EVERY, _KERNEL, root=False),
    Probe("mount calls", places.mount_api, _EVERY, _KERNEL, after=("mount namespace",)),
    Probe("minirun-init", processes.init, _EVERY, "install minirun again", after=("close_range",), root=False),
    Probe("minirun-monitor", processes.monitor, _EVERY, "install minirun again", root=False),
    Probe(
        *("sealed memfd", processes.sealed_init, _EVERY, "sysctl -w vm.memfd_noexec=0"),
        after=("minirun-init",),
        root=False,
    ),
    Probe("keyring", processes.keyring, _EVERY, _CONFINED, after=("minirun-init",), root=False),
    Probe("libseccomp", processes.libseccomp, _EVERY, "apt-get install libseccomp2", root=False),
    Probe("seccomp", processes.seccomp_filter, _EVERY, _KERNEL, after=("libseccomp",), root=False),
    Probe("state directory", places.directory("state"), _EVERY, "choose another with --state"),
    Probe("root directory", places.directory("root"), _EVERY, "choose another with --root"),
    Probe("disk space", places.space, "images", "free some, or choose another disk with --root", False),
    Probe("overlay", places.overlay, _EVERY, "modprobe overlay", after=("mount namespace", "root directory")),
    Probe("cgroups", cgroups.layout, _EVERY, "", root=False),
    _controller("memory", "memory", "-m"),
    _controller("cpu", "cpu", "--cpus"),
    _controller("cpuacct", "cpu", "stats"),
    _controller("pids", "pids", _EVERY, True),
    _controller("devices", "", _EVERY, True),
    _controller("freezer", "", "pause"),
    _controller("blkio", "io", "disk limits"),
    Probe("born in a cgroup", cgroups.born_inside, _EVERY, _KERNEL, after=("cgroups", "clone3")),
    Probe("bridge", networks.bridge, _NETWORKS, "modprobe bridge", after=("network namespace",)),
    Probe("veth", networks.veth, _NETWORKS, "modprobe veth", after=("network namespace", "bridge")),
    Probe("nft", places.program("nft", "nftables"), _NETWORKS, "", root=False),
    Probe(
        *("nftables", networks.nftables, _NETWORKS, "modprobe -a nf_tables nft_ct nft_nat nft_masq nft_fib_inet"),
        after=("network namespace", "nft"),
    ),
    Probe("ip_forward", networks.forwarding, _NETWORKS, "sysctl -w net.ipv4.ip_forward=1"),
    Probe("bridge netfilter", networks.bridge_netfilter, _NETWORKS, "", False, root=False),
    Probe("other firewalls", networks.foreign_firewall, _NETWORKS, "", False, ("nftables",)),
    _recipe_tool("qemu-img", "qemu-utils"),
    _recipe_tool("debugfs", "e2fsprogs"),
    _recipe_tool("apt-get", "apt"),
    _recipe_tool("dpkg-deb", "dpkg"),
    Probe("pip", places.pip, "image build", "apt-get install python3-pip", False, root=False),
)


def run(probes: Sequence[Probe] = PROBES) -> list[Finding]:
    """Try every probe. One that would only repeat another's failure is skipped."""
    is_root = os.geteuid() == 0
    findings: list[Finding] = []
    unmet: set[str] = set()
    for probe in probes:
        finding = examine(probe, unmet, is_root)
        findings.append(finding)
        if finding.status in (FAILURE, SKIPPED):
            unmet.add(finding.name)
    return sorted(findings, key=lambda finding: _ORDER[finding.status])


_ORDER = {FAILURE: 0, WARNING: 1, OK: 2, SKIPPED: 3}
