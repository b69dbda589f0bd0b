"""``ps list events spec features``: what only tells."""

from __future__ import annotations

import os
import sys

from minirun import store, strict_json
from minirun.cli import table
from minirun.cli.arguments import Option, Values
from minirun.cli.arguments import store as put
from minirun.cli.oci.verb import Verb, check_id, no_operands, one_id, one_of
from minirun.errors import Conflict, MinirunError, NotFound, UsageError
from minirun.linux import syscalls
from minirun.runtime import container as runtime
from minirun.runtime import placement
from minirun.runtime.container import Bundled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FORMAT = Option("-f --format", "FORMAT", one_of("--format", "format", ("table", "json")), "table or json")
_QUIET = Option("-q --quiet", "", put("quiet"), "ids only")
_UNITS = (("ms", 1e-3), ("s", 1), ("m", 60), ("h", 3600))


def _interval(target: Any, text: Any) -> None:
    """A duration as Go writes it, of one unit: ``500ms``, ``5s``."""
    for unit, seconds in _UNITS:
        digits = text.removesuffix(unit)
        if digits != text and digits.isdecimal() and digits.isascii() and 0 < len(digits) < 7 and int(digits):
            target.interval = int(digits) * seconds
            return
    raise UsageError(f"--interval {text!r}", "expected a duration", "such as 5s or 500ms")


EVENTS = [
    Option("--stats", "", put("stats"), "once, and no waiting"),
    Option("--interval", "TIME", _interval, "how often: 500ms, 5s (default), 1m"),
]
SPEC = [
    Option("-b --bundle", "DIR", put("bundle"), "where to write it (default: the current directory)"),
    Option("--rootless", "", put("for_rootless"), "for a user namespace, with our ids mapped to root"),
]


def _ps(target: Values, operands: list[str]) -> int:
    if not operands:
        raise UsageError("ps", "the container is missing", "see --help")
    pids = Bundled(check_id(operands[0]), target.root).processes()
    if target.format == "json":
        sys.stdout.write(strict_json.dumps(sorted(pids)) + "\n")
    else:
        sys.stdout.write(_chosen(operands[1:] or ["-ef"], {str(pid) for pid in pids}))
    return 0


def _chosen(arguments: list[str], pids: set[str]) -> str:
    """The lines of ps(1) that are about these processes, and its head."""
    import subprocess

    try:
        done = subprocess.run(["ps", *arguments], capture_output=True, text=True, errors="replace")
    except FileNotFoundError:
        raise NotFound("ps", "executable file not found in PATH", "use --format json, or install procps") from None
    if done.returncode:
        raise MinirunError(f"ps {' '.join(arguments)}", (done.stderr.strip() or "failed").splitlines()[0])
    head, *lines = done.stdout.splitlines()
    if "PID" not in head.split():
        raise UsageError(f"ps {' '.join(arguments)}", "shows no column PID", "ask for one")
    column = head.split().index("PID")
    kept = [line for line in lines if pids.issuperset(line.split()[column : column + 1] or [""])]
    return "\n".join([head, *kept]) + "\n"


def _list(target: Values, operands: list[str]) -> int:
    no_operands(operands)
    names = runtime.names(target.root)
    if target.quiet:
        sys.stdout.write("".join(f"{name}\n" for name in names))
        return 0
    rows = [row for name in names if (row := _row(Bundled(name, target.root), target))]
    if target.format == "json":
        sys.stdout.write(_compact(rows))
        return 0
    columns = ("id", "pid", "status", "bundle", "created", "owner")
    table.write([column.upper() for column in columns], [[str(row[column]) for column in columns] for row in rows])
    return 0


def _row(container: Bundled, target: Values) -> dict[str, Any]:
    """What `list` tells of one container; nothing, and a warning, if its state cannot be read."""
    try:
        row = container.state()
        kept = store.read_json(f"{container.directory}/state.json") or {}
    except NotFound:  # deleted meanwhile
        return {}
    except MinirunError as error:
        target.warn(str(error))
        return {}
    order = ("ociVersion", "id", "pid", "status", "bundle")  # the order that other runtimes print
    more = {"rootfs": kept.get("rootfs", ""), "created": kept.get("created", "")}
    return {**{key: row[key] for key in order}, **more, "annotations": row["annotations"], "owner": _owner(kept)}


def _owner(kept: dict[str, Any]) -> str:
    import pwd

    try:
        return pwd.getpwuid(kept.get("owner", 0)).pw_name
    except KeyError:
        return str(kept["owner"])


def _events(target: Values, operands: list[str]) -> int:
    container = Bundled(one_id(operands), target.root)
    kept = container.kept()
    try:
        pidfd = syscalls.open_process(kept["pid"], kept["start"])
    except ProcessLookupError:
        pidfd = -1
    if pidfd < 0 or container.status(kept) == "stopped":
        raise Conflict(f"container {container.id!r}", "container not running")
    if target.stats:
        _say({"type": "stats", "id": container.id, "data": container.stats()})
        return 0
    group = placement.load(kept["cgroup"])
    ooms = group.ooms()
    while True:
        ended = syscalls.ended([pidfd], target.interval)
        before, ooms = ooms, group.ooms()
        if ooms > before:
            _say({"type": "oom", "id": container.id})
        if ended:
            return 0
        _tell(container)


def _tell(container: Bundled) -> None:
    try:
        _say({"type": "stats", "id": container.id, "data": container.stats()})
    except (Conflict, NotFound):  # it has just ended
        pass


def _say(event: dict[str, Any]) -> None:
    sys.stdout.write(_compact(event))
    sys.stdout.flush()


def _spec(target: Values, operands: list[str]) -> int:
    from minirun.linux import cgroup
    from minirun.oci import example

    no_operands(operands)
    path = os.path.join(target.bundle, "config.json")
    document = example.document(target.for_rootless, os.geteuid(), os.getegid(), cgroup.layout().unified)
    try:
        store.create_whole(path, _indented(document), 0o644)
    except FileExistsError:
        raise Conflict(path, "exists already", "remove it first") from None
    return 0


def _features(target: Values, operands: list[str]) -> int:
    from minirun.oci import features

    no_operands(operands)
    sys.stdout.write(_indented(features.document()))
    return 0


def _compact(document: Any) -> str:
    """As runc prints it: some who read it look for the text."""
    import json

    return json.dumps(document, separators=(",", ":"), ensure_ascii=False) + "\n"


def _indented(document: Any) -> str:
    import json

    return json.dumps(document, indent=4, ensure_ascii=False) + "\n"


TABLE = {
    "ps": Verb("ID [PS-OPTION...]", [_FORMAT], _ps, {"format": "table"}, program=True),
    "list": Verb("", [_FORMAT, _QUIET], _list, {"format": "table", "quiet": False}),
    "events": Verb("ID", EVENTS, _events, {"stats": False, "interval": 5.0}),
    "spec": Verb("", SPEC, _spec, {"bundle": ".", "for_rootless": False}),
    "features": Verb("", [], _features),
}
