"""``--net container:NAME``: a container in the network namespace of another one.

The two share interfaces, ports and localhost, the host name, and the files that name the network. The namespace gets
the newcomer's name, too, and so lives on when the other one ends first, with nothing but lo in it: its addresses and
its cables go with the container that they were leased to.
"""

from __future__ import annotations

import os

from minirun import store
from minirun.engine import record as records
from minirun.engine.options import RunOptions
from minirun.engine.record import Container
from minirun.errors import Conflict, NotFound
from minirun.linux import syscalls
from minirun.network import helper, netns
from minirun.network.netns import Netns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar

MARK = "@"  # what lies in a container's plugs/ and is no network: this, and the id of who shares its namespace


class Joined:
    """The container whose network is shared: its places, and its record."""

    __slots__ = ("container", "record")

    def __init__(self, container: Container, record: dict[str, Any]) -> None:
        self.container, self.record = container, record

    def steps(self, identity: str, name: str) -> list[Join]:
        """What gives the container ``identity`` the namespace."""
        tag = netns.owner_tag(self.container.id)
        return [Join(name, tag, netns.netns_path(self.record["Name"]), self.container.live, identity)]


def decide(options: RunOptions) -> Joined | None:
    """Find the container that ``options`` mean, and take over what comes with its network; None if it has the host's.

    Raises NotFound, Conflict.
    """
    flag = f"--net container:{options.joined}"
    container = records.find(options.joined)
    record = _running(container, flag)
    mode, _, owner = record["NetworkMode"].partition(":")
    if mode == "container":  # it shares one, too
        container = Container(owner)
        record = _running(container, f"{flag}, which shares the network of {owner[:12]}")
    options.hostname = record["Hostname"]
    if mode == "host":
        options.network = "host"
        return None
    must_be_named(container, record, flag)
    options.joined = container.id
    return Joined(container, record)


def _running(container: Container, what: str) -> dict[str, Any]:
    try:
        record = container.record()
    except NotFound:
        record = None
    if record is None or not is_running(container):
        raise Conflict(what, "that container is not running", "minirun ps lists those that are")
    return record


def is_running(container: Container) -> bool:
    """Whether a container has begun and not ended. Whoever cleans up after it, begins after this has become false."""
    # In this order: of a container that vanishes, state.json goes before exit does.
    return not os.path.exists(f"{container.home}/exit") and os.path.exists(f"{container.live}/state.json")


def must_be_named(container: Container, record: dict[str, Any], what: str) -> None:
    """Raises Conflict if the name of a running container's network namespace was removed: nobody else gets in then."""
    name, state = record["Name"], container.state()
    if state is None or os.path.exists(netns.netns_path(name)) or not is_running(container):
        return
    why = f"its network namespace lost its name, {netns.netns_path(name)}"
    raise Conflict(what, why, f"give it back with: ip netns attach {name} {state['pid']}")


def make_folder(live: str) -> None:
    """Make the folder of what was plugged in later. Raises FileNotFoundError if the container is gone."""
    try:
        os.mkdir(f"{live}/plugs", 0o700)
    except FileExistsError:
        pass


def _ended(container: Container) -> Conflict:
    return Conflict(f"--net container:{container.id[:12]}", "that container has just ended")


class Join(Netns):
    """One more name for the network namespace of another container; a mark tells that one not to rely on its end."""

    kind = "join"
    fields: ClassVar[tuple[str, ...]] = ("name", "tag", "source", "place", "identity")
    source: str
    place: str
    identity: str

    def sh(self) -> str:
        path = netns.netns_path(self.name)
        return f"mkdir -p {self.place}/plugs\ntouch {self._mark()} {path}\nmount --bind {self.source} {path}"

    def do(self) -> None:
        # Marked first, and looked at after: either we see that it ends, or its end sees the mark.
        path, owner = netns.netns_path(self.name), Container(os.path.basename(self.place))
        try:
            make_folder(self.place)
            store.create_whole(self._mark(), "")
        except FileExistsError:  # by explain's script
            pass
        except FileNotFoundError:
            raise _ended(owner) from None
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
        except FileExistsError:
            raise Conflict(f"network namespace {self.name}", "it exists already", f"ip netns del {self.name}") from None
        if not is_running(owner):
            raise _ended(owner)
        helper.run(["mount", "--bind", self.source, path], "mount")
        if netns.inside(self.name, owner.id) is None:  # its name is another one's by now
            syscalls.netns_delete(path)
            raise _ended(owner)

    def undo(self) -> None:
        try:
            os.unlink(self._mark())
        except (FileNotFoundError, NotADirectoryError):
            pass
        super().undo()

    def _mark(self) -> str:
        return f"{self.place}/plugs/{MARK}{self.identity}"
