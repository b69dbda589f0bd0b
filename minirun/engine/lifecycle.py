"""The end of a container, whoever brings it: stop, kill, rm, the monitor's clean-up, and what a crash left.

Everything ends in ``clean``: undo the plan in reverse, then forget what lived. It is idempotent, so that the command
in front, the monitor's ``minirun cleanup`` and the next command's ``reconcile`` may each come first, or twice.
"""

from __future__ import annotations

import os
from time import time

from minirun import step, store
from minirun.engine import files  # noqa: F401  (a plan is made of its steps)
from minirun.engine import record as records
from minirun.engine.record import Container
from minirun.errors import Conflict, MinirunError, NotFound
from minirun.linux import syscalls
from minirun.linux.syscalls import Message
from minirun.network import attach, ipam, nameservice, nat  # noqa: F401
from minirun.runtime import process, resources  # noqa: F401  (the same)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


def clean(container: Container, steps: Sequence[step.Step] | None = None, record: dict[str, Any] | None = None) -> None:
    """Undo what lives of a container that has ended; ``--rm`` containers vanish altogether.

    The caller holds the container's lock, itself or by inheritance, and may have the plan and the record at hand.
    """
    failures = _unplug(container)
    failures += step.undo_all(steps) if steps else _undo_plan(container)
    record = record or store.read_json(f"{container.home}/container.json") or {"AutoRemove": True, "Name": ""}
    if record["AutoRemove"]:
        _unlink(f"{container.live}/state.json")  # before exit, or it would seem to run again
        forget(container, record["Name"])
    if failures:
        raise MinirunError(f"cleaning up container {container.id[:12]}", str(failures[0]), "minirun doctor --leaks")
    store.remove_tree(container.live)
    _unlink(container.lock_path)


def _undo_plan(container: Container) -> list[Exception]:
    journal = store.read_json(f"{container.live}/plan.json")
    if journal is None:  # killed before the plan was written: an address may have been taken
        ipam.release_owner(container.id)
        return []
    kinds = {item[0] for item in journal}
    if "join" in kinds:
        from minirun.engine import joining  # noqa: F401  (a step of it; few plans have one)
    if "proxy" in kinds:
        from minirun.network import proxy  # noqa: F401  (the same)
    return step.undo_all([step.load(item) for item in journal])


def _unplug(container: Container) -> list[Exception]:
    """Undo what was plugged in while the container lived, and see to those who share its network namespace."""
    if not store.entries(f"{container.live}/plugs"):
        return []
    from minirun.engine import plugs

    return plugs.undo_all(container)


def discard(container: Container) -> None:
    """Take back a container that could not be started, whatever of it exists. Its plan was undone or never begun.

    What cannot be undone now stays in the journal, under a lock that nobody holds, for the next command.
    """
    record = store.read_json(f"{container.home}/container.json") or {"Name": ""}
    _unlink(f"{container.live}/state.json")  # from here on nobody takes it for running
    failures = _unplug(container) + _undo_plan(container)
    forget(container, record["Name"])
    if not failures:
        store.remove_tree(container.live)
        _unlink(container.lock_path)


def forget(container: Container, name: str) -> None:
    """Remove what lasts: the writable layer, the log, the name (looked for, if a crash came before it was noted)."""
    for taken in [name] if name else store.entries(f"{store.root}/names"):
        records.free_name(taken, container.id)
    store.remove_tree(container.home)


def reconcile() -> list[str]:
    """Clean up after every command or monitor that died. Called at the start of every command.

    Returns a line for each that could not be cleaned: one such must not keep people from using the others.
    """
    problems = []
    for identity in syscalls.dead_locks(f"{store.state}/locks"):
        if identity.endswith(records.PLUGS):
            problems += _recover(identity)
            continue
        container = Container(identity)
        try:
            lock = container.lock()
        except (BlockingIOError, FileNotFoundError):
            continue  # another command was quicker
        try:
            note_kill(container)
            clean(container)
        except (MinirunError, OSError) as error:
            problems.append(f"container {identity[:12]} cannot be cleaned up: {error}")
        finally:
            os.close(lock)
    if dead := syscalls.dead_locks(f"{store.state}/cni/locks"):  # of the CNI plugin, which is a command, too
        from minirun.network.cni import attachments

        problems += attachments.reconcile(dead)
    try:
        nameservice.revive()
    except (MinirunError, OSError) as error:
        problems.append(f"names are not answered: {error}")
    return problems + _stand()


def _stand() -> list[str]:
    """Put back what somebody took away of our firewall, and of what we were asked to open in another."""
    try:
        nat.stand()
        if store.entries(f"{store.state}/forward"):
            from minirun.network.foreign import gate

            return gate.open_again()
    except (MinirunError, OSError) as error:
        return [f"the firewall cannot be put back: {error}"]
    return []


def _recover(lock: str) -> list[str]:
    """Finish what a dead command did to the networks of a container, which may well live."""
    from minirun.engine import plugs

    identity = lock.partition(".")[0]
    try:
        plugs.recover(identity)
    except BlockingIOError:  # another command was quicker
        pass
    except (MinirunError, OSError) as error:
        return [f"the networks of container {identity[:12]} cannot be put in order: {error}"]
    return []


def note_kill(container: Container) -> None:
    """A container whose monitor was killed died with it, by SIGKILL, and nobody noted it."""
    if container.state() is not None and container.exit() is None and os.path.exists(container.home):
        ended = {"code": 137, "signal": 9, "oom": False, "finished": time()}
        store.write_json(f"{container.home}/exit", ended)


def connect(container: Container) -> int:
    """A connection to the container's monitor. Raises Conflict if there is none that listens."""
    import _socket

    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    folder = -1
    try:
        # Through a descriptor, since a socket's address holds 107 bytes only (unix(7)).
        folder = os.open(container.live, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        connection.connect(f"/proc/self/fd/{folder}/monitor.sock")
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        raise Conflict(f"container {container.id[:12]} is not running") from None
    finally:
        if folder >= 0:
            os.close(folder)
    return connection.detach()


def signal(container: Container, number: int, cleaning: bool = False) -> None:
    """Send a signal to the container's process 1; ``cleaning``: the caller will clean up, and not the monitor."""
    control = connect(container)
    try:
        syscalls.send(control, Message.SIGNAL, number, int(cleaning))
    except (BrokenPipeError, ConnectionResetError):  # it has just ended
        raise Conflict(f"container {container.id[:12]} is not running") from None
    finally:
        os.close(control)


def wait(container: Container) -> int:
    """Wait until the container has ended and is cleaned up; its exit code."""
    code = _hear_exit(container)
    try:
        os.close(container.lock(wait=True))
    except FileNotFoundError:
        pass
    if code is not None:
        return code
    ended = container.exit()
    if ended is None:
        raise NotFound(f"container {container.id[:12]}", "it is gone, and nobody noted how it ended")
    return int(ended["code"])


def _hear_exit(container: Container) -> int | None:
    """The exit code from the monitor itself, since a --rm container leaves no note; None if there is no monitor."""
    try:
        control = connect(container)
    except Conflict:
        return None
    try:
        while message := syscalls.receive(control):
            if message.type == Message.EXITED:
                return process.exit_code(message.a)
        return None
    finally:
        os.close(control)


def wait_or(container: Container, seconds: float) -> bool:
    """Wait at most ``seconds`` for the end; whether it came."""
    import select

    try:
        control = connect(container)
    except Conflict:
        return True
    try:
        poller = select.poll()
        poller.register(control, select.POLLIN)
        from time import monotonic

        deadline = monotonic() + seconds
        while (left := deadline - monotonic()) > 0 and poller.poll(left * 1000):
            message = syscalls.receive(control)
            if message is None or message.type == Message.EXITED:
                return True
        return False
    finally:
        os.close(control)


def stop(container: Container, number: int, seconds: float) -> None:
    """The stop signal, ``seconds`` of time, then SIGKILL; returns when everything is cleaned up."""
    if not _signal_when_up(container, number):
        return
    if not wait_or(container, seconds):
        try:
            signal(container, 9)
        except Conflict:  # it has ended meanwhile
            pass
    _await_clean(container)


def _signal_when_up(container: Container, number: int) -> bool:
    """Signal a container, if need be when its monitor listens; false if it has ended, and is cleaned up."""
    import select

    while True:
        try:
            signal(container, number)
            return True
        except Conflict:
            pass
        try:
            lock = container.lock()
        except FileNotFoundError:
            return False
        except BlockingIOError:  # whoever holds it is just starting the container, or cleaning up
            select.select([], [], [], 0.005)
            continue
        try:
            note_kill(container)
            clean(container)
            return False
        finally:
            os.close(lock)


def doom(container: Container) -> None:
    """SIGKILL to one that ``remove`` is called for soon: of many, all end while the first is waited for.

    Their monitors start no clean-up, each a Python of its own, where ours does it in a millisecond.
    """
    if os.path.exists(container.live) and container.exit() is None:
        try:
            signal(container, 9, cleaning=True)
        except Conflict:  # it has just ended, or is just starting
            pass


def remove(container: Container, force: bool) -> None:
    """Remove a stopped container; with ``force`` a running one too."""
    record = container.record()
    if os.path.exists(container.live) and container.exit() is None:
        if not force:
            raise Conflict(f"container {record['Name']} is running", "", f"minirun stop {record['Name']}, or rm -f")
        stop(container, 9, 10)
    _await_clean(container)
    forget(container, record["Name"])


def _await_clean(container: Container) -> None:
    """Wait for whoever holds the lock to clean up; if it died over that, do it."""
    try:
        lock = container.lock(wait=True)
    except FileNotFoundError:
        return
    try:
        note_kill(container)
        clean(container)
    finally:
        os.close(lock)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
