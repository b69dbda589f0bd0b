"""``minirun run``: decide, write the plan down, do it, start, and stay with it or not."""

from __future__ import annotations

import os

from minirun import step, store, strict_json
from minirun.engine import lifecycle, plan
from minirun.engine import record as records
from minirun.engine.options import RunOptions
from minirun.engine.record import Container
from minirun.errors import MinirunError, NotFound, UsageError
from minirun.image import layout
from minirun.linux import syscalls
from minirun.network import bridge, ipam, ports
from minirun.runtime.process import Spawn, start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minirun.image.layout import Image


def find_image(reference: str, progress: Callable[[str], None]) -> Image:
    """The image from the store; a known recipe is built when it is absent. (A registry will stand between the two.)"""
    image = layout.find(reference)
    if image is not None:
        return image
    from minirun.image import recipes
    from minirun.image.reference import parse

    wanted, known = str(parse(reference)), recipes.known()
    for name in known:
        if wanted == str(parse(name)):
            return recipes.build(name, progress)
    raise NotFound(
        f"no such image: {reference}", "it is not in the store", f"`minirun image build` knows {', '.join(known)}"
    )


class Started:
    """A container that runs: its id, its plan, and the socket to its monitor."""

    __slots__ = ("container", "lock", "oom", "spawn", "steps")

    def __init__(self, container: Container, steps: list[step.Step], spawn: Spawn, lock: int) -> None:
        self.container, self.steps, self.spawn, self.lock = container, steps, spawn, lock
        self.oom = False

    def follow(self) -> int:
        """Stay until the end, clean up, and return the exit code (128+n for a death by signal n)."""
        terminal = 0 if "--tty" in self.spawn.options and os.isatty(0) else -1
        ended = syscalls.follow(self.spawn.control, terminal, True)
        if ended is None:
            lifecycle.note_kill(self.container)
        lifecycle.clean(self.container, self.steps[:-1])  # the last step, the process, has ended
        os.close(self.spawn.control)
        if ended is None:
            raise MinirunError("the monitor died", "", "the container was killed with it")
        self.oom = ended[1]
        return exit_code(ended[0])


def exit_code(status: int) -> int:
    """A wait status as shells show it."""
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8


def new_id() -> str:
    """64 hexadecimal digits, as docker's."""
    return os.urandom(32).hex()


def start(image: Image, options: RunOptions, argv0: list[str]) -> Started:
    """Make and start a container; on any error everything is undone and the error raised.

    ``argv0`` are the words that run this command again, for the monitor's clean-up.
    """
    container = Container(new_id())
    lock = container.lock(create=True)  # from here on a crash leaves a lock that nobody holds
    try:
        return _start(container, image, options, lock, argv0)
    except BaseException:
        lifecycle.discard(container)
        os.close(lock)
        raise


def _start(container: Container, image: Image, options: RunOptions, lock: int, argv0: list[str]) -> Started:
    store.directory(store.state, "containers")
    os.mkdir(container.live, 0o700)
    name = options.name or container.id[:12]
    store.directory(store.root, "containers")
    os.mkdir(container.home, 0o700)
    records.take_name(name, container.id)

    network = address = None
    if options.network not in ("none", "host"):
        network = bridge.ensure(options.network)
        if options.ports:
            ports.check(options.ports)
        address = ipam.allocate(network, container.id)
    elif options.ports:
        raise UsageError("-p", f"--net {options.network} publishes nothing", "use a bridge network")
    decided = plan.make(container, name, image, options, network, address)

    store.write_json(f"{container.live}/plan.json", [s.record() for s in decided.steps])
    store.create(f"{container.live}/config.json", strict_json.dumps(decided.config) + "\n")
    record = records.describe(container, name, image, options, decided)
    store.write_json(f"{container.home}/container.json", record)
    return perform(container, decided.steps, options, lock, argv0)


def perform(container: Container, steps: list[step.Step], options: RunOptions, lock: int, argv0: list[str]) -> Started:
    """Do the plan, note the process, start it."""
    spawn = steps[-1]
    if not isinstance(spawn, Spawn):
        raise TypeError("a container's plan ends with its process")
    spawn.attach = not options.detach
    spawn.cleanup = [*argv0, "cleanup", container.id, str(lock)]
    spawn.inherit = [lock]
    step.do_all(steps)
    state: dict[str, Any] = {"pid": spawn.pid, "start": start_time(spawn.pid), "status": "created"}
    store.write_json(f"{container.live}/state.json", state)
    if options.tty and not options.detach and os.isatty(0):
        rows, columns = syscalls.terminal_size(0)
        syscalls.send(spawn.control, syscalls.Message.WINSIZE, rows, columns)
    try:
        spawn.start()
    except BaseException:
        spawn.undo()
        raise
    store.write_json(f"{container.live}/state.json", {**state, "status": "running"})
    return Started(container, steps, spawn, lock)
