"""``ps``, ``stop``, ``kill``, ``rm``, ``wait``: commands about containers by name, id or beginning of an id."""

from __future__ import annotations

import sys

from minirun.cli import signals, table
from minirun.cli.arguments import Option, Values, help_text, parse, store
from minirun.engine import lifecycle
from minirun.engine import record as records
from minirun.engine.inspect import bindings, published
from minirun.engine.options import whole
from minirun.engine.record import Container
from minirun.errors import MinirunError, NotFound, UsageError
from minirun.network.ports import span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


def each(references: Sequence[str], act: Callable[[Container], None]) -> int:
    """Do something to each container, print its name as given, go on after an error, and return the worst exit code."""
    code = 0
    for reference in references:
        try:
            act(records.find(reference))
            sys.stdout.write(f"{reference}\n")
        except MinirunError as error:
            table.complain(error)
            code = error.exit_code
    return code


def _operands(argv: Sequence[str], usage: str, summary: str, options: Sequence[Option], target: Values) -> list[str]:
    """Parse; print the help if asked (then there are no operands); demand at least one container."""
    if "--help" in argv:
        sys.stdout.write(help_text(usage, summary, options))
        return []
    operands = parse(argv, options, target)
    if not operands:
        raise UsageError(usage.split(" ", 1)[0], "a container is missing", f"minirun {usage}")
    return operands


def stop(argv: Sequence[str]) -> int:
    """``minirun stop``."""
    target = Values(time=None)
    options = [
        Option(
            "-t --time --timeout",
            "SECONDS",
            store("time"),
            "how long to wait before SIGKILL (default: --stop-timeout, 10)",
        ),
    ]
    usage = "stop [-t SECONDS] CONTAINER..."
    operands = _operands(argv, usage, "End containers: the stop signal, then, after a time, SIGKILL.", options, target)
    seconds = None if target.time is None else whole(target.time, "--time")

    def act(container: Container) -> None:
        record = container.record()
        number = signals.number(record["StopSignal"])
        lifecycle.stop(container, number, record["StopTimeout"] if seconds is None else seconds)

    return each(operands, act)


def kill(argv: Sequence[str]) -> int:
    """``minirun kill``."""
    target = Values(signal="KILL")
    options = [Option("-s --signal", "SIGNAL", store("signal"), "a name or a number (default KILL)")]
    operands = _operands(argv, "kill [-s SIGNAL] CONTAINER...", "Send a signal to containers.", options, target)
    number = signals.number(target.signal)
    return each(operands, lambda container: lifecycle.signal(container, number))


def rm(argv: Sequence[str]) -> int:
    """``minirun rm``."""
    target = Values(force=False)
    options = [Option("-f --force", "", store("force"), "kill what runs; no error for what does not exist")]
    operands = _operands(argv, "rm [-f] CONTAINER...", "Remove containers.", options, target)
    if not target.force:
        return each(operands, lambda container: lifecycle.remove(container, False))
    code, doomed = 0, []
    for reference in operands:  # all are killed first, and end while the first of them is cleaned up
        try:
            container = records.find(reference)
            lifecycle.doom(container)
            doomed.append((reference, container))
        except NotFound:
            continue
        except MinirunError as error:
            table.complain(error)
            code = error.exit_code
    for reference, container in doomed:
        try:
            lifecycle.remove(container, True)
        except NotFound:  # whoever had started it with --rm was quicker
            pass
        except MinirunError as error:
            table.complain(error)
            code = error.exit_code
            continue
        sys.stdout.write(f"{reference}\n")
    return code


def wait(argv: Sequence[str]) -> int:
    """``minirun wait``."""
    operands = _operands(argv, "wait CONTAINER...", "Wait for containers to end; print their exit codes.", [], Values())
    code = 0
    for reference in operands:
        try:
            sys.stdout.write(f"{lifecycle.wait(records.find(reference))}\n")
            sys.stdout.flush()
        except MinirunError as error:
            table.complain(error)
            code = error.exit_code
    return code


PS_OPTIONS = [
    Option("-a --all", "", store("all"), "also those that have ended"),
    Option("-q --quiet", "", store("quiet"), "only ids"),
    Option("--no-trunc", "", store("whole"), "do not shorten ids and commands"),
    Option("--format", "json", store("format"), "one JSON object a line"),
]


def ps(argv: Sequence[str]) -> int:
    """``minirun ps``."""
    target = Values(all=False, quiet=False, whole=False, format="table")
    if "--help" in argv:
        sys.stdout.write(
            help_text("ps [-a] [-q] [--format json]", "List containers, with their pids on this host.", PS_OPTIONS)
        )
        return 0
    if parse(argv, PS_OPTIONS, target):
        raise UsageError("ps", "takes no arguments", "see minirun ps --help")
    table.check_format(target.format)
    rows = [row for row in map(_row, records.ids()) if row and (target.all or row["State"] != "exited")]
    rows.sort(key=lambda row: -row["CreatedAt"])
    if target.quiet:
        sys.stdout.write("".join(f"{row['ID'] if target.whole else row['ID'][:12]}\n" for row in rows))
    elif target.format == "json":
        table.json_lines(rows)
    else:
        _print(rows, target.whole)
    return 0


def _row(identity: str) -> dict[str, Any] | None:
    container = Container(identity)
    try:
        record = container.record()
    except NotFound:  # removed while we looked
        return None
    if "Created" not in record:  # not made yet
        return None
    status, ended, state = container.status(), container.exit(), container.state()
    word = "exited" if status == "stopped" else status
    return {
        "ID": identity,
        "Names": record["Name"],
        "Image": record["Image"],
        "Command": " ".join(record["Args"]),
        "CreatedAt": record["Created"],
        "State": word,
        "Status": _status(word, ended, record),
        "Pid": state["pid"] if state and word != "exited" else 0,
        "IPAddress": _addresses(record) if word != "exited" else "",
        "Ports": _ports(record) if word != "exited" else "",
        "Networks": ",".join(item["network"] for item in record["Networks"]) or record["NetworkMode"],
        "Memory": record["Memory"],
        "Cpus": record["Cpus"],
        "PidsLimit": record["PidsLimit"],
    }


def _addresses(record: dict[str, Any]) -> str:
    """The first address on each network."""
    return ", ".join(item["addresses"][0].partition("/")[0] for item in record["Networks"])


def _ports(record: dict[str, Any]) -> str:
    """What is published, and behind it which ports are only exposed, as docker's ps has it."""
    ports = published(record)
    shown = [_port(port) for port in ports]
    shown += [name for name in record["ExposedPorts"] if name not in bindings(ports)]
    return ", ".join(shown)


def _port(port: dict[str, Any]) -> str:
    address, inside = port["HostIp"], span(port["ContainerPort"], port["Count"])
    outside = f"[{address}]" if ":" in address else address
    return f"{outside}:{span(port['HostPort'], port['Count'])}->{inside}/{port['Protocol']}"


def _status(word: str, ended: dict[str, Any] | None, record: dict[str, Any]) -> str:
    if word == "exited" and ended:
        oom = ", out of memory" if ended["oom"] else ""
        return f"Exited ({ended['code']}{oom}) {table.ago(ended['finished'])} ago"
    return f"Up {table.ago(record['Created'])}" if word == "running" else word.capitalize()


def _print(rows: list[dict[str, Any]], untruncated: bool) -> None:
    columns = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PID", "IP", "PORTS", "NAMES"]
    cells = []
    for row in rows:
        command = row["Command"]
        if not untruncated and len(command) > 24:
            command = command[:23] + "…"
        identity = row["ID"] if untruncated else row["ID"][:12]
        created = f"{table.ago(row['CreatedAt'])} ago"
        pid = str(row["Pid"] or "")
        cells.append(
            [identity, row["Image"], command, created, row["Status"], pid, row["IPAddress"], row["Ports"], row["Names"]]
        )
    table.write(columns, cells)
