"""``pause resume update``: what a living container may use."""

from __future__ import annotations

from minirun.cli.arguments import Option, Values
from minirun.cli.arguments import store as put
from minirun.cli.oci.execute import read
from minirun.cli.oci.verb import Verb, one_id
from minirun.errors import InvalidDocument, UsageError
from minirun.oci import runtime_spec
from minirun.runtime.container import Bundled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_MAX = 1 << 63


def size(text: str) -> int:
    """Bytes, as runc takes them: ``64m``, ``1.5G``, ``1024``, ``10KiB`` (powers of 1024); ``-1`` is no limit."""
    if text == "-1":
        return -1
    word = text.lower().removesuffix("b").removesuffix("i")
    unit = word[-1:] if word[-1:] in _UNITS and word[-1:] else ""
    whole, point, fraction = word.removesuffix(unit).rstrip(" ").partition(".")
    digits = whole + fraction
    if not (whole and digits.isdecimal() and digits.isascii() and bool(fraction) == bool(point) and len(digits) < 20):
        raise ValueError
    value: int = int(digits) * 1024 ** _UNITS[unit] // 10 ** len(fraction)
    if value >= _MAX:
        raise ValueError
    return value


def integer(text: str) -> int:
    """A number as Go reads an int64."""
    digits = text.removeprefix("-")
    if not (digits.isdecimal() and digits.isascii() and len(digits) < 20) or not -_MAX <= int(text) < _MAX:
        raise ValueError
    return int(text)


def natural(text: str) -> int:
    """A number of at least 0."""
    if text.startswith("-"):
        raise ValueError
    return integer(text)


def _into(name: str, path: str, convert: Callable[[str], Any]) -> Callable[[Any, Any], None]:
    """An ``apply`` that puts a value where LinuxResources has it: ``memory.limit``."""
    group, _, key = path.partition(".")

    def apply(target: Any, text: Any) -> None:
        try:
            value = convert(text)
        except ValueError:
            raise UsageError(f"{name} {text!r}", "expected a number" if convert is not size else "no size") from None
        target.values.setdefault(group, {})[key] = value

    return apply


# option, its value, where it belongs, how it is read, help
_FLAGS: tuple[tuple[str, str, str, Callable[[str], Any], str], ...] = (
    ("--memory", "SIZE", "memory.limit", size, "limit of memory; -1 is none"),
    ("--memory-reservation", "SIZE", "memory.reservation", size, "what it may keep when memory is short"),
    ("--memory-swap", "SIZE", "memory.swap", size, "limit of memory and swap together"),
    ("--cpu-quota", "USEC", "cpu.quota", integer, "CPU time in a period; -1 is no limit"),
    ("--cpu-period", "USEC", "cpu.period", natural, "length of a period"),
    ("--cpu-burst", "USEC", "cpu.burst", natural, "what may be saved up for a burst"),
    ("--cpu-share", "N", "cpu.shares", natural, "weight against others"),
    ("--cpu-idle", "N", "cpu.idle", integer, "1: run only when nobody else wants to"),
    ("--cpu-rt-period", "USEC", "cpu.realtimePeriod", natural, "length of a period of the real-time scheduler"),
    ("--cpu-rt-runtime", "USEC", "cpu.realtimeRuntime", integer, "real-time CPU time in a period"),
    ("--cpuset-cpus", "LIST", "cpu.cpus", str, "which CPUs"),
    ("--cpuset-mems", "LIST", "cpu.mems", str, "which memory nodes"),
    ("--pids-limit", "N", "pids.limit", integer, "how many processes and threads; -1 is no limit"),
    ("--blkio-weight", "N", "blockIO.weight", natural, "weight of block I/O against others"),
)
# The kernel has them no more, or we do not manage what they are for: said, and passed over.
_GONE = ("--kernel-memory", "--kernel-memory-tcp")
_ABSENT = ("--l3-cache-schema", "--mem-bw-schema")


def _gone(name: str) -> Callable[[Any, Any], None]:
    def apply(target: Any, text: Any) -> None:
        target.warnings.append(f"{name} is ignored: the kernel has this limit no more")

    return apply


def _absent(name: str) -> Callable[[Any, Any], None]:
    def apply(target: Any, text: Any) -> None:
        raise UsageError(name, "minirun does not manage resctrl groups")

    return apply


UPDATE = [
    Option("-r --resources", "FILE", put("resources"), "a LinuxResources document instead; - is standard input"),
    *(Option(name, value, _into(name, path, convert), text) for name, value, path, convert, text in _FLAGS),
    *(Option(name, "SIZE", _gone(name), "ignored, with a warning") for name in _GONE),
    *(Option(name, "TEXT", _absent(name), "refused") for name in _ABSENT),
]


def _update(target: Values, operands: list[str]) -> int:
    container = Bundled(one_id(operands), target.root)
    for warning in target.warnings:
        target.warn(warning)
    wanted = target.values
    if target.resources:
        wanted = read(target.resources)
        if not isinstance(wanted, dict):
            raise InvalidDocument("--resources", "expected an object")
        runtime_spec.check_resources(wanted)
    container.update(wanted)
    return 0


def _pause(target: Values, operands: list[str]) -> int:
    Bundled(one_id(operands), target.root).pause()
    return 0


def _resume(target: Values, operands: list[str]) -> int:
    Bundled(one_id(operands), target.root).resume()
    return 0


TABLE = {
    "pause": Verb("ID", [], _pause),
    "resume": Verb("ID", [], _resume),
    "update": Verb("ID", UPDATE, _update, {"resources": None, "values": {}, "warnings": []}),
}
