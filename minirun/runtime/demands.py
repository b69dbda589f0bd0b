"""What a document asks for and this machine cannot give: refused, where a container would have weaker walls without it.

oci/runtime_spec.py knows what a document may say; here the kernel is asked.
"""

from __future__ import annotations

import os

from minirun import store
from minirun.errors import InvalidDocument, Unsupported
from minirun.linux import security
from minirun.runtime import namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def check(config: dict[str, Any], rootless: bool, warn: Callable[[str], None]) -> None:
    """Raise Unsupported for what is missing; leave out of ``config`` what the runtime-spec only wants a warning for."""
    linux, kinds = config.get("linux") or {}, namespaces.kinds(config)
    if rootless and "user" not in kinds and os.geteuid() != 0:
        raise Unsupported(
            "linux.namespaces", "without root it takes one of type user", "see `minirun-oci spec --rootless`"
        )
    check_process(config["process"], bool(kinds) and kinds.get("user") == "", warn)
    if linux.get("mountLabel"):
        _demand_selinux("linux.mountLabel")
    if linux.get("intelRdt"):
        raise Unsupported("linux.intelRdt", "minirun does not manage resctrl groups", "leave it out")
    _refuse_host_sysctls(linux.get("sysctl") or {}, kinds)


def check_process(process: dict[str, Any], own_user_namespace: bool, warn: Callable[[str], None]) -> None:
    """The same for ``process``, of ``exec`` too."""
    if process.get("apparmorProfile") and store.read("/sys/module/apparmor/parameters/enabled") != "Y\n":
        raise Unsupported("process.apparmorProfile", "AppArmor is not enabled on this machine", "leave it out")
    if process.get("selinuxLabel"):
        _demand_selinux("process.selinuxLabel")
    if process.get("capabilities"):
        process["capabilities"] = _granted(process["capabilities"], own_user_namespace, warn)


def _demand_selinux(where: str) -> None:
    if not os.path.exists("/sys/fs/selinux/enforce"):
        raise Unsupported(where, "SELinux is not enabled on this machine", "leave it out")


def _granted(
    capabilities: dict[str, list[str]], own_user_namespace: bool, warn: Callable[[str], None]
) -> dict[str, list[str]]:
    """The capabilities without those that nobody here can give. The first process of a user namespace has all."""
    bits = (1 << (security.last_capability() + 1)) - 1 if own_user_namespace else security.bounding()
    possible, known = frozenset(security.names(bits)), frozenset(security.CAPABILITIES)
    missing = sorted({name for names in capabilities.values() for name in names or []} & known - possible)
    if missing:
        warn(f"process.capabilities: {', '.join(missing)}: cannot be given here, left out")
    return {name: [one for one in names or [] if one in possible] for name, names in capabilities.items()}


def _refuse_host_sysctls(sysctls: dict[str, str], kinds: dict[str, str]) -> None:
    """A joined network namespace may be the host's own."""
    path = kinds.get("network")
    if not path or not any(name.replace("/", ".").startswith("net.") for name in sysctls):
        return
    if os.path.exists(path) and os.stat(path).st_ino == os.stat("/proc/self/ns/net").st_ino:
        raise InvalidDocument("linux.sysctl", "net.* would be the host's, whose network namespace the container shares")
