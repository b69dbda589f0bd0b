"""Is a ``config.json`` one of the runtime-spec 1.0 to 1.3, for Linux? The checks, and what is not Linux's own.

What a field may hold is in tables, here and in ``process_spec``, ``linux_spec`` and ``resources_spec``; their form is
explained in ``check``. What fields mean together is in ``combinations``. Where the spec leaves something open, this
does what runc does, since documents are written for it. What the machine can do is not asked here.
"""

from __future__ import annotations

from minirun.oci import process_spec
from minirun.oci.check import (
    REQUIRED,
    Wrong,
    absolute,
    demand,
    expected,
    mapping,
    nonempty,
    string,
    text,
    texts,
)
from minirun.oci.combinations import combine
from minirun.oci.linux_spec import ID_MAPPINGS, LINUX
from minirun.oci.resources_spec import RESOURCES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
_SECONDS = (1, (1 << 31) - 1)


def _version(value: Any) -> None:
    """What is newer than we are may ask for what we do not know, and would be ignored: the spec's own rule."""
    text(value)
    parts = value.partition("+")[0].partition("-")[0].split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise expected("a version like 1.2.0", value)
    if parts[0] != "1" or parts[1] not in ("0", "1", "2", "3"):
        raise expected("a version from 1.0 to 1.3", value)


def _kernel_name(value: Any) -> None:
    text(value)
    if len(value.encode("utf-8", "surrogateescape")) > 64:  # __NEW_UTS_LEN
        raise expected("at most 64 bytes", value)


def _annotation(value: Any) -> None:
    string(value)
    if not value:
        raise Wrong("expected a name")


_HOOKS = [{REQUIRED: ("path",), "path": absolute, "args": texts, "env": texts, "timeout": _SECONDS}]

CONFIG = {
    REQUIRED: ("ociVersion", "process", "root"),
    "ociVersion": _version,
    "process": process_spec.PROCESS,
    "root": {REQUIRED: ("path",), "path": nonempty, "readonly": bool},
    "hostname": _kernel_name,
    "domainname": _kernel_name,
    "mounts": [
        {
            REQUIRED: ("destination",),
            "destination": nonempty,
            "type": text,
            "source": text,
            "options": texts,
            "uidMappings": ID_MAPPINGS,
            "gidMappings": ID_MAPPINGS,
        }
    ],
    "hooks": dict.fromkeys(HOOKS, _HOOKS),
    "annotations": mapping(string, _annotation),
    "linux": LINUX,
}


def check(config: Any) -> list[str]:
    """Check a whole document. Raises InvalidDocument, naming the JSON path; returns warnings."""
    demand(config, CONFIG, "")
    return [*process_spec.warnings(config["process"], "process"), *combine(config)]


def check_process(process: Any, where: str = "process") -> list[str]:
    """Check the process of an ``exec``. Raises InvalidDocument; returns warnings."""
    demand(process, process_spec.PROCESS, where)
    return process_spec.warnings(process, where)


def check_resources(resources: Any, where: str = "linux.resources") -> list[str]:
    """Check the limits of an ``update``. Raises InvalidDocument; returns warnings."""
    demand(resources, RESOURCES, where)
    return []
