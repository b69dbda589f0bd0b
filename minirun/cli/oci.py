"""``minirun oci``: the verbs of an OCI runtime, on a bundle, as runc and crun have them."""

from __future__ import annotations

import os
import sys

from minirun import store
from minirun.cli import signals, table
from minirun.cli.arguments import Option, Values, help_text, parse
from minirun.cli.arguments import store as put
from minirun.engine.record import check_name
from minirun.errors import UsageError
from minirun.runtime import container as runtime
from minirun.runtime import create, process
from minirun.runtime.container import Bundled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = "oci [--root DIR] create|run|start|state|kill|delete|list ... ID"
GLOBAL = [Option("--root", "DIR", put("root"), "where the state is (default: <state>/oci)")]
CREATE = [
    Option("-b --bundle", "DIR", put("bundle"), "the bundle's directory (default: the current one)"),
    Option("--console-socket", "SOCKET", put("console_socket"), "where to send the terminal's other end"),
    Option("--pid-file", "FILE", put("pid_file"), "write the pid of the container's process there"),
]
DELETE = [Option("-f --force", "", put("force"), "kill it if it runs; no error if it does not exist")]


def _one(operands: list[str], verb: str) -> str:
    if len(operands) != 1:
        raise UsageError(f"oci {verb}", "takes one id", f"minirun {USAGE}")
    return check_name(operands[0], "container id")


def _create(argv: Sequence[str], root: str) -> int:
    _created(argv, root, "create")
    return 0


def _created(argv: Sequence[str], root: str, verb: str) -> tuple[Bundled, int]:
    target = Values(bundle=".", pid_file=None, console_socket=None)
    identity = _one(parse(argv, CREATE, target), verb)
    options = create.CreateOptions()
    options.pid_file, options.console_socket = target.pid_file, target.console_socket
    options.rootless = os.geteuid() != 0
    return create.create(identity, os.path.abspath(target.bundle), root, options)


def _run(argv: Sequence[str], root: str) -> int:
    container, pid = _created(argv, root, "run")
    container.start()
    status = runtime.wait(pid)
    container.delete()
    return process.exit_code(status)


def _start(argv: Sequence[str], root: str) -> int:
    Bundled(_one(parse(argv, [], Values()), "start"), root).start()
    return 0


def _state(argv: Sequence[str], root: str) -> int:
    state = Bundled(_one(parse(argv, [], Values()), "state"), root).state()
    table.json_lines([state])
    return 0


def _kill(argv: Sequence[str], root: str) -> int:
    target = Values(all=False)
    operands = parse(argv, [Option("-a --all", "", put("all"), "accepted: the kernel ends the rest")], target)
    if len(operands) not in (1, 2):
        raise UsageError("oci kill", "takes an id and a signal", "minirun oci kill ID [SIGNAL]")
    number = signals.number(operands[1] if len(operands) == 2 else "TERM")
    Bundled(check_name(operands[0], "container id"), root).kill(number)
    return 0


def _delete(argv: Sequence[str], root: str) -> int:
    target = Values(force=False)
    Bundled(_one(parse(argv, DELETE, target), "delete"), root).delete(target.force)
    return 0


def _list(argv: Sequence[str], root: str) -> int:
    states = [Bundled(name, root).state() for name in runtime.names(root)]
    table.write(["ID", "PID", "STATUS", "BUNDLE"], [[s["id"], str(s["pid"]), s["status"], s["bundle"]] for s in states])
    return 0


def _exec(argv: Sequence[str], root: str) -> int:
    from minirun.runtime import execute

    target = Values(process=None)
    operands = parse(argv, [Option("-p --process", "FILE", put("process"), "")], target, operands_first=False)
    container = Bundled(operands[0], root)
    document = (
        store.read_json(target.process) if target.process else {**container.config()["process"], "args": operands[1:]}
    )
    return process.exit_code(runtime.wait(execute.execute(container, document, execute.ExecOptions())))


VERBS = {
    "exec": _exec,
    "create": _create,
    "run": _run,
    "start": _start,
    "state": _state,
    "kill": _kill,
    "delete": _delete,
    "list": _list,
}


def run(argv: Sequence[str]) -> int:
    """``minirun oci``."""
    target = Values(root=f"{store.state}/oci")
    operands = parse(argv, GLOBAL, target, operands_first=False) if argv and argv[0] != "--help" else []
    if not operands or "--help" in operands:
        sys.stdout.write(help_text(USAGE, "Be an OCI runtime.", [*GLOBAL, *CREATE, *DELETE]))
        return 0 if argv else 125
    verb = VERBS.get(operands[0])
    if verb is None:
        raise UsageError(f"oci {operands[0]}", "unknown", f"minirun {USAGE}")
    return verb(operands[1:], target.root)
