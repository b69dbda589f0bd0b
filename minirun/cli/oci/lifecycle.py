"""``create run start state kill delete``: the life of a container, on a bundle."""

from __future__ import annotations

import os
import sys

from minirun import store, strict_json
from minirun.cli import signals
from minirun.cli.arguments import Option, Values
from minirun.cli.arguments import store as put
from minirun.cli.oci import settings
from minirun.cli.oci.verb import Verb, check_id, natural, one_id
from minirun.errors import Unsupported, UsageError
from minirun.linux import syscalls
from minirun.runtime import container as runtime
from minirun.runtime import create, process
from minirun.runtime.container import Bundled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from minirun.cli.oci.foreground import Foreground

_STANDARD = 3  # 0, 1 and 2 are passed on in any case

CREATE = [
    Option("-b --bundle", "DIR", put("bundle"), "the bundle's directory (default: the current one)"),
    Option("--console-socket", "SOCKET", put("console_socket"), "where to send the terminal's other end"),
    Option("--pid-file", "FILE", put("pid_file"), "write the process's pid there"),
    Option("--no-pivot", "", put("no_pivot"), "chroot instead of pivot_root, as a root on a ramdisk needs"),
    Option("--no-new-keyring", "", put("no_new_keyring"), "keep the caller's session keyring"),
    Option("--preserve-fds", "N", natural("--preserve-fds", "preserve_fds"), "pass N descriptors on, from 3"),
]
FOREGROUND = [
    Option("-d --detach", "", put("detach"), "do not wait for the end"),
    Option("--no-subreaper", "", put("ignored"), "accepted: we never are one"),
]
NEW = [
    *CREATE,
    Option("--pidfd-socket", "SOCKET", put("pidfd_socket"), "where to send a pidfd of the process"),
    Option("-f --config", "FILE", put("config"), "another document than config.json, as seen from the bundle"),
]
RUN = [*NEW, *FOREGROUND, Option("--keep", "", put("keep"), "do not delete the container at its end")]
KILL = [Option("-a --all", "", put("all"), "all processes of the container, not just the first")]
DELETE = [Option("-f --force", "", put("force"), "kill it if it runs; no error if it does not exist")]
CREATE_DEFAULTS = {
    "bundle": ".",
    "console_socket": None,
    "pid_file": None,
    "pidfd_socket": None,
    "config": "config.json",
    "no_pivot": False,
    "no_new_keyring": False,
    "preserve_fds": 0,
}


def create_options(target: Values) -> create.CreateOptions:
    """What ``runtime.create`` is told, from the command line."""
    if target.manager == "disabled":
        raise Unsupported(
            "--cgroup-manager disabled", "a container needs its cgroup to be ended as a whole", "leave it out"
        )
    options = create.CreateOptions()
    options.pid_file, options.console_socket, options.config = target.pid_file, target.console_socket, target.config
    options.no_pivot, options.no_new_keyring = target.no_pivot, target.no_new_keyring
    options.preserve_fds = preserved(target.preserve_fds)
    options.systemd_cgroup = target.systemd_cgroup or target.manager == "systemd"
    options.rootless = settings.rootless(target)
    options.log = target.warn
    return options


def preserved(count: int) -> int:
    """``count``, once it is known that so many descriptors are there; a hole would be filled by a file of ours."""
    for number in range(_STANDARD, _STANDARD + count):
        try:
            os.fstat(number)
        except OSError:
            raise UsageError(f"--preserve-fds {count}", f"descriptor {number} is not open") from None
    return count


def _create(target: Values, operands: list[str]) -> int:
    bundle = os.path.abspath(target.bundle)
    container, pid = create.create(one_id(operands), bundle, target.root, create_options(target))
    try:
        tell(target.pidfd_socket, pid)
    except BaseException:
        container.delete(force=True, warn=target.warn)
        raise
    return 0


def tell(pidfd_socket: str | None, pid: int) -> None:
    """Send a pidfd of our child to whoever asked for one."""
    if pidfd_socket:
        from minirun.runtime import handover

        handover.pidfd(pidfd_socket, pid)


def _run(target: Any, operands: list[str]) -> int:
    identity, bundle = one_id(operands), os.path.abspath(target.bundle)
    ours = None
    if not target.detach and not target.console_socket:
        syscalls.hold_signals()  # from here on they are for the container
        ours = foreground(_wants_terminal(os.path.join(bundle, target.config)))
        target.console_socket = ours.path if ours else None
    container, pid = create.create(identity, bundle, target.root, create_options(target))
    try:
        master = ours.master() if ours else -1
        tell(target.pidfd_socket, pid)
        container.start()
    except BaseException:
        container.delete(force=True, warn=target.warn)
        raise
    if target.detach:
        return 0
    status = stay(pid, master)
    if not target.keep:
        container.delete(force=True, warn=target.warn)
    return process.exit_code(status)


def _wants_terminal(path: str) -> bool:
    """Whether the document asks for a terminal. What is wrong with it is said by ``create``."""
    text = store.read(path) or ""
    if '"terminal"' not in text:
        return False
    document = strict_json.loads(text, path)
    wanted = document.get("process") if isinstance(document, dict) else None
    return isinstance(wanted, dict) and wanted.get("terminal") is True


def foreground(terminal: bool) -> Foreground | None:
    """A console socket of our own, if the process wants a terminal."""
    if not terminal:
        return None
    from minirun.cli.oci.foreground import Foreground

    return Foreground()


def stay(pid: int, master: int) -> int:
    """Wait for our child, joined to it by a terminal or not; its wait status."""
    if master < 0:
        return runtime.wait(pid)
    from minirun.cli.oci.foreground import relay

    return relay(master, pid)


def _start(target: Values, operands: list[str]) -> int:
    Bundled(one_id(operands), target.root).start()
    return 0


def _state(target: Values, operands: list[str]) -> int:
    sys.stdout.write(strict_json.dumps(Bundled(one_id(operands), target.root).state()) + "\n")
    return 0


def _kill(target: Values, operands: list[str]) -> int:
    if len(operands) not in (1, 2):
        raise UsageError(f"{len(operands)} arguments", "it takes an id and a signal", "see --help")
    number = signals.number(operands[1] if len(operands) == 2 else "TERM", null=True)
    Bundled(check_id(operands[0]), target.root).kill(number, target.all)
    return 0


def _delete(target: Values, operands: list[str]) -> int:
    Bundled(one_id(operands), target.root).delete(target.force, target.warn)
    return 0


TABLE = {
    "create": Verb("ID", NEW, _create, CREATE_DEFAULTS),
    "run": Verb("ID", RUN, _run, {**CREATE_DEFAULTS, "detach": False, "keep": False, "ignored": False}),
    "start": Verb("ID", [], _start),
    "state": Verb("ID", [], _state),
    "kill": Verb("ID [SIGNAL]", KILL, _kill, {"all": False}),
    "delete": Verb("ID", DELETE, _delete, {"force": False}),
}
