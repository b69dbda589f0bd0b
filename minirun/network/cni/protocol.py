"""What every CNI plugin must say: the versions it knows, the codes of its errors, what the environment must hold.

Source: CNI specification 1.1.0, sections 2 and 5.
"""

from __future__ import annotations

from minirun.errors import MinirunError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
NEWEST = VERSIONS[-1]
UNSAID = VERSIONS[0]  # what a configuration without cniVersion means (libcni)

# Of the specification ...
INCOMPATIBLE_VERSION, UNSUPPORTED_FIELD, UNKNOWN_CONTAINER, BAD_ENVIRONMENT = 1, 2, 3, 4
IO_FAILURE, NOT_DECODED, BAD_CONFIG = 5, 6, 7
NOT_AVAILABLE, LIMITED = 50, 51
# ... and ours, which begin at 100.
FAILED, TAKEN, CHECK_FAILED, PARTLY = 100, 101, 102, 103

# Since which version a command exists.
COMMANDS = {"ADD": UNSAID, "DEL": UNSAID, "CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0", "VERSION": UNSAID}
_NEEDED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
}
_ALPHANUMERIC = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_REST = _ALPHANUMERIC | frozenset("_.-")
MAX_NAME = 96  # of a network: what minirun allows (bridge.MAX_NAME), less a prefix


class CniError(MinirunError):
    """An error that the plugin prints as a document: a code of the specification, a short text, a longer one."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        self.code, self.message, self.details = code, message, details
        super().__init__(message, details)


def error_document(version: str, error: CniError) -> dict[str, Any]:
    """The document of an error (section 5, "Error")."""
    return {"cniVersion": version, "code": error.code, "msg": error.message, "details": error.details}


def version_document(asked: Any) -> dict[str, Any]:
    """What VERSION answers; ``asked`` is what the runtime sent, or None."""
    said = asked.get("cniVersion") if isinstance(asked, dict) else None
    return {"cniVersion": said if isinstance(said, str) else NEWEST, "supportedVersions": list(VERSIONS)}


def at_least(version: str, other: str) -> bool:
    """Whether a version is ``other`` or newer. Both must be of VERSIONS."""
    return VERSIONS.index(version) >= VERSIONS.index(other)


def is_name(text: str) -> bool:
    """Whether this may name a network or a container: an alphanumeric character, then those and ``_.-``."""
    return bool(text) and text[0] in _ALPHANUMERIC and _REST.issuperset(text)


class Request:
    """What the runtime asks, as the environment tells it. Raises CniError, code 4, naming the variables at fault."""

    __slots__ = ("arguments", "command", "container", "interface", "netns", "shares_ours")

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.command = environment.get("CNI_COMMAND", "")
        if self.command not in COMMANDS:
            text = f"CNI_COMMAND {self.command!r} unknown" if self.command else "CNI_COMMAND missing"
            about = "this program is a CNI plugin: an engine for containers starts it, with a configuration on stdin"
            raise CniError(BAD_ENVIRONMENT, text, about)
        needed = _NEEDED.get(self.command, ())
        missing = [name for name in needed if not environment.get(name)]
        if missing:
            raise CniError(
                BAD_ENVIRONMENT, f"{', '.join(missing)} missing", f"{self.command} needs {', '.join(needed)}"
            )
        self.container = environment.get("CNI_CONTAINERID", "") if needed else ""
        self.netns = environment.get("CNI_NETNS", "") if needed else ""
        self.interface = environment.get("CNI_IFNAME", "") if needed else ""
        self.shares_ours = environment.get("CNI_NETNS_OVERRIDE", "").lower() in ("1", "true")  # libcni's, for rootless
        self._check()
        given = environment.get("CNI_ARGS", "") if self.command in ("ADD", "CHECK") else ""
        self.arguments = parse_arguments(given)

    def _check(self) -> None:
        if self.container and not is_name(self.container):
            raise CniError(BAD_ENVIRONMENT, f"CNI_CONTAINERID {self.container!r} is not an id")
        name = self.interface
        printable = name.isprintable()  # so it is no broken UTF-8, either
        if not printable or len(name.encode()) > 15 or name in (".", "..") or set(name) & set("/: "):
            text = f"CNI_IFNAME {name!r} is not the name of an interface"
            raise CniError(BAD_ENVIRONMENT, text, "1 to 15 bytes without '/', ':' and blanks")
        if self.command != "DEL" and not self.netns.isprintable():
            raise CniError(BAD_ENVIRONMENT, f"CNI_NETNS {self.netns!r} is not a path that can be told")


def parse_arguments(text: str) -> dict[str, str]:
    """CNI_ARGS: ``KEY=value;KEY=value``. Raises CniError, code 4."""
    found = {}
    for pair in text.split(";"):
        key, equals, value = pair.partition("=")
        if not key and not equals and not value:
            continue  # of a text that is empty or ends with a semicolon
        if not key or not equals:
            raise CniError(BAD_ENVIRONMENT, f"CNI_ARGS: {pair!r} is not KEY=value")
        found[key] = value
    return found
