"""``minirun run``: decide, write the plan down, do it, start, and stay with it or not."""

from __future__ import annotations

import os

from minirun import step, store, strict_json
from minirun.engine import connect, lifecycle, plan
from minirun.engine import record as records
from minirun.engine.options import RunOptions
from minirun.engine.record import Container
from minirun.errors import MinirunError, NotFound
from minirun.image import layout
from minirun.linux import syscalls
from minirun.network import bridge, ipam
from minirun.runtime import process
from minirun.runtime.process import Spawn, start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from minirun.engine.joining import Joined
    from minirun.image.layout import Image
    from minirun.network.endpoint import Endpoint


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

    __slots__ = ("container", "lock", "oom", "record", "spawn", "steps")

    def __init__(
        self, container: Container, steps: list[step.Step], record: dict[str, Any], spawn: Spawn, lock: int
    ) -> None:
        self.container, self.steps, self.record, self.spawn, self.lock = container, steps, record, spawn, lock
        self.oom = False

    def follow(self) -> int:
        """Stay until the end, clean up, and return the exit code (128+n for a death by signal n)."""
        ended = syscalls.follow(self.spawn.control, self.spawn.terminal)
        if ended is None:
            lifecycle.note_kill(self.container)
        lifecycle.clean(self.container, self.steps[:-1], self.record)  # the last step, the process, has ended
        os.close(self.spawn.control)
        if ended is None:
            raise MinirunError("the monitor died", "", "the container was killed with it")
        self.oom = ended[1]
        return process.exit_code(ended[0])


def new_id() -> str:
    """64 hexadecimal digits, as docker's."""
    return os.urandom(32).hex()


def start(image: Image, options: RunOptions, argv0: list[str], warn: Callable[[str], None]) -> Started:
    """Make and start a container; on any error everything is undone and the error raised.

    ``argv0`` are the words that run this command again, for the monitor's clean-up. ``warn`` gets a line for what works
    but will hurt.
    """
    container = Container(new_id())
    lock = container.lock(create=True)  # from here on a crash leaves a lock that nobody holds
    try:
        return _start(container, image, options, lock, argv0, warn)
    except BaseException:
        lifecycle.discard(container)
        os.close(lock)
        raise


def _start(
    container: Container,
    image: Image,
    options: RunOptions,
    lock: int,
    argv0: list[str],
    warn: Callable[[str], None],
) -> Started:
    name = options.name or container.id[:12]
    store.directory(container.live)
    store.directory(container.home)
    records.take_name(name, container.id)

    endpoints: list[Endpoint] = []
    joined: Joined | None = None
    if options.network == "container":
        from minirun.engine import joining

        joined = joining.decide(options)
    if options.network == "bridge":
        networks = [bridge.ensure(wanted.network) for wanted in options.networks]
        plan.decide_ports(image, options, networks)
        connect.pass_firewalls(networks, options.ports, options.forward, warn)
        endpoints = connect.endpoints(container.id, name, options, networks, ipam.allocate)
    elif options.ports or options.publish_all:
        raise plan.no_ports(options)
    decided = plan.make(container, name, image, options, endpoints, joined)

    store.write_json(f"{container.live}/plan.json", [s.record() for s in decided.steps])
    store.create(f"{container.live}/config.json", strict_json.dumps(decided.config) + "\n")
    record = records.describe(container, name, image, options, decided)
    store.write_json(f"{container.home}/container.json", record)
    spawn = perform(container, decided.steps, options, lock, argv0)
    return Started(container, decided.steps, record, spawn, lock)


def perform(container: Container, steps: list[step.Step], options: RunOptions, lock: int, argv0: list[str]) -> Spawn:
    """Do the plan, note the process, start it."""
    spawn = steps[-1]
    if not isinstance(spawn, Spawn):
        raise TypeError("a container's plan ends with its process")
    spawn.attach = not options.detach
    spawn.cleanup = [*argv0, "cleanup", container.id, str(lock)]
    spawn.inherit = holders = [lock]
    for each in steps:
        each.holders = holders
    if options.tty and not options.detach and os.isatty(0):
        spawn.terminal = syscalls.Terminal(0)
    step.do_all(steps)
    # Written before the program runs: from then on nobody may doubt that the process is the container's. Should we die
    # before we say MR_START, the monitor kills it.
    state = {"pid": spawn.pid, "start": start_time(spawn.pid), "status": "running"}
    store.write_json(f"{container.live}/state.json", state)
    if not options.detach:
        syscalls.hold_signals()
    try:
        spawn.start()
    except BaseException:
        spawn.undo()
        raise
    return spawn
