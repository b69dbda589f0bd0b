"""The global options of the OCI runtime: those of runc and crun, before the verb or behind it."""

from __future__ import annotations

import os

from minirun import store
from minirun.cli.arguments import Option, Values
from minirun.cli.arguments import store as put
from minirun.cli.oci.log import LEVELS
from minirun.cli.oci.verb import one_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MANAGERS = ("cgroupfs", "systemd", "disabled")


def _ignore(target: Any, value: Any) -> None:
    """For what other runtimes need to be told, and we do not."""


OPTIONS = [
    Option("--root", "DIR", put("root"), "where the containers' state is (default: see below)"),
    Option("--log", "FILE", put("log"), "append errors and warnings to a file, too"),
    Option("--log-format", "FORMAT", one_of("--log-format", "log_format", ("text", "json")), "of them: text or json"),
    Option("--log-level", "LEVEL", one_of("--log-level", "log_level", LEVELS), "error: no warnings (default: info)"),
    Option("--debug", "", put("debug"), "on an error, show the Python traceback"),
    Option("--systemd-cgroup", "", put("systemd_cgroup"), "let systemd make the cgroups"),
    Option("--cgroup-manager", "NAME", one_of("--cgroup-manager", "manager", _MANAGERS), ", ".join(_MANAGERS)),
    Option("--rootless", "WHEN", one_of("--rootless", "rootless", ("true", "false", "auto")), "true, false or auto"),
    Option("--criu", "FILE", _ignore, "accepted: criu is looked up in PATH"),
    Option("-h --help", "", put("help"), "show this"),
]
FIRST = [*OPTIONS, Option("-v --version", "", put("version"), "show the version")]
DEFAULTS = {
    "root": "",
    "log": "",
    "log_format": "text",
    "log_level": "info",
    "debug": False,
    "systemd_cgroup": False,
    "manager": "cgroupfs",
    "rootless": "auto",
    "verb": "",
    "help": False,
    "version": False,
}


def default_root() -> str:
    """For root below minirun's own state; for others where their session keeps such things."""
    if os.geteuid() == 0:
        return f"{store.state}/oci"
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return f"{runtime}/minirun/oci"


def rootless(target: Values) -> bool:
    """``is_rootless``; what is kept between calls (compiled filters) is then below the containers' root."""
    found = is_rootless(target)
    if found:
        store.state = f"{target.root}/@state"
    return found


def is_rootless(target: Values) -> bool:
    """Whether we lack the machine's root: another user, or the root of a user namespace (podman without root)."""
    if target.rootless != "auto":
        return bool(target.rootless == "true")
    if os.geteuid() != 0:
        return True
    return (store.read("/proc/self/uid_map") or "").split() not in (["0", "0", "4294967295"], [])
