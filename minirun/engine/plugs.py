"""Networks that are connected to a container, or disconnected from it, while it lives.

    <live>/plugs/<network>.json    the steps of a network that was connected later, or is just being disconnected
    <live>/plugs/+ports.json       where the published ports lead, if not where the container's plan led them
    <live>/plugs/+changed          an address of the container's plan may be another's by now
    <live>/plugs/@<id>             another container shares the network namespace
    <state>/locks/<id>.plugs       held by who works on this; without a holder it is what a crash leaves

What counts is container.json: it says which networks the container has, and it changes at once. A journal is written
before the first effect, so whatever is in a journal and not in the record is undone (``settle``): by the command itself
if something fails, by the next one if it was killed, or at the container's end. That one marks itself first (the file
exit) and looks for journals then; we write a journal first and look for the mark then: one of us sees the other.
"""

from __future__ import annotations

import os

from minirun import step, store
from minirun.engine import connect as connecting
from minirun.engine import joining, netfiles
from minirun.engine import record as records
from minirun.engine.options import Attachment
from minirun.engine.record import Container
from minirun.errors import Conflict, MinirunError, NotFound, UsageError
from minirun.linux import netlink, syscalls
from minirun.network import attach, bridge, endpoint, ipam, nameservice, netns
from minirun.network import network as networks
from minirun.network.cable import Veth
from minirun.network.endpoint import Endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    from minirun.network.ports import Port
    from minirun.step import Step

PORTS, CHANGED = "+ports.json", "+changed"


class Hold:
    """The right to change a container's networks; ``stale`` if whoever had it last died over that."""

    def __init__(self, container: Container, wait: bool = True) -> None:
        self._path = f"{container.lock_path}{records.PLUGS}"
        self.stale = False
        while True:
            try:
                self._descriptor = syscalls.lock(self._path, create=True)
                return
            except FileExistsError:
                pass
            try:
                self._descriptor = syscalls.lock(self._path, wait=wait)
                self.stale = True
                return
            except FileNotFoundError:  # its holder has just finished
                continue

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        os.unlink(self._path)
        os.close(self._descriptor)


def connect(container: Container, wanted: Attachment, warn: Callable[[str], None]) -> Endpoint:
    """Plug a running container into one more network. Raises Conflict, NotFound, UsageError.

    ``warn`` gets a sentence if somebody else's firewall stops what the container sends there.
    """
    network = bridge.ensure(wanted.network)
    with Hold(container) as hold:
        record = _begin(container, hold)
        if network.name in (item["network"] for item in record["Networks"]):
            raise Conflict(f"container {record['Name']}", f"it is connected to network {network.name} already")
        journal = _journal(container, f"{network.name}.json")
        joining.make_folder(container.live)
        store.write_json(journal, [])  # from here on its end takes back what we do
        try:
            plug = _plug(container, record, wanted, network)
            connecting.pass_firewalls([network], _ports(record) if plug.gateways else [], "", warn)
            steps = attach.plug_steps(container.id, record["Name"], plug, netns.netns_path(record["Name"]))
            steps.append(nameservice.Names([network.name]))
            store.write_json(journal, [each.record() for each in steps])
            _must_run(container, record)
            step.do_all(steps)
            _change(container, record, [*_endpoints(record), plug])
        except BaseException:
            if joining.is_running(container):
                _change(container, record, [each for each in _endpoints(record) if each.network != network.name])
            else:
                _pull(container, f"{network.name}.json")
            raise
    return plug


def disconnect(container: Container, name: str) -> None:
    """Pull a running container out of a network. Raises Conflict, NotFound."""
    with Hold(container) as hold:
        record = _begin(container, hold)
        endpoints = _endpoints(record)
        plug = next((each for each in endpoints if each.network == name), None)
        if plug is None:
            what = f"network {name}" if networks.load(name) else f"network {name}, which does not exist"
            raise NotFound(f"container {record['Name']}", f"it is not connected to {what}")
        journal = _journal(container, f"{name}.json")
        if not os.path.exists(journal):
            joining.make_folder(container.live)
            steps = attach.plug_steps(container.id, record["Name"], plug, netns.netns_path(record["Name"]))
            store.write_json(journal, [each.record() for each in steps])
        store.create(_journal(container, CHANGED), "")
        _must_run(container, record)
        _change(container, record, [each for each in endpoints if each is not plug])


def recover(identity: str) -> None:
    """Finish what a command that died had begun; if the container is ending, leave that to its end.

    Raises BlockingIOError if somebody works on it.
    """
    container = Container(identity)
    with Hold(container, wait=False):
        _sweep(container)
        record = store.read_json(f"{container.home}/container.json")
        if record and joining.is_running(container):
            settle(container, record)


def undo_all(container: Container) -> list[Exception]:
    """Undo all of it when the container ends, before its plan is undone; waits for who works on it."""
    with Hold(container):
        ipam.forget(container.id)
        names = store.entries(f"{container.live}/plugs")
        steps: list[Step] = []
        unnoted = []
        for name in names:
            if name.endswith(".json") and name != PORTS:
                found = _steps(container, name)
                steps += found
                unnoted += [] if found else [name.removesuffix(".json")]
        # Undone first: no port of the host may lead to an address that is free. Those of the plan are the plan's, but
        # the address to which they lead may be in a journal here.
        steps += _steps(container, PORTS) if PORTS in names else _loaded(_published(container))
        failures = step.undo_all(steps)
        for network in unnoted:
            _release(container, network)
        if any(name.startswith(joining.MARK) for name in names):  # the namespace lives on, and would keep the cables
            failures += _cut(steps + _load(f"{container.live}/plan.json"))
    return failures


def disconnect_all(network: str, tell: Callable[[Container], None]) -> None:
    """Pull every container out of a network; who is no container, or ends just now, is passed over.

    ``tell`` hears of each that was pulled out. What else fails is raised when all have been asked.
    """
    failures: list[Exception] = []
    for owner in sorted(set(ipam.leases(network).values())):
        try:
            container = records.find(owner)
            disconnect(container, network)
            tell(container)
        except (Conflict, NotFound, UsageError):
            continue
        except (MinirunError, OSError) as error:
            failures.append(error)
    if failures:
        raise failures[0]


def settle(container: Container, record: dict[str, Any]) -> None:
    """Make everything as the record says: ports, then networks that it has not are undone, then ways out and files.

    The ports first, so that none leads to an address that was given back. If they cannot be published anew they are
    not published, the rest is done, and that is raised.
    """
    endpoints = _endpoints(record)
    failure = _publish(container, record, endpoints)
    known = {f"{each.network}.json" for each in endpoints} | {PORTS}
    for name in store.entries(f"{container.live}/plugs"):
        if name.endswith(".json") and name not in known:
            _pull(container, name)
    socket = netns.inside(record["Name"], container.id)
    if socket is not None:  # else it has ended meanwhile
        _ways_out(socket, endpoints)
    netfiles.update(container, record, endpoints)
    if failure:
        raise failure


def _begin(container: Container, hold: Hold) -> dict[str, Any]:
    """The record of a container whose networks may be changed. Raises Conflict."""
    record = container.record()
    name, mode = record["Name"], record["NetworkMode"]
    if not joining.is_running(container):
        raise Conflict(f"container {name} is not running", "only a living one has networks", "minirun run --net ...")
    if mode == "host":
        raise Conflict(f"container {name}", "it is in the host's network namespace, which is not ours to change")
    if mode.startswith("container:"):
        owner = mode.removeprefix("container:")[:12]
        raise Conflict(f"container {name}", f"its network is that of container {owner}", f"name that one: {owner}")
    joining.must_be_named(container, record, f"container {name}")
    if hold.stale:
        _sweep(container)
        settle(container, record)
    return record


def _must_run(container: Container, record: dict[str, Any]) -> None:
    if not joining.is_running(container):
        raise _ended(record)


def _ended(record: dict[str, Any]) -> Conflict:
    return Conflict(f"container {record['Name']} has just ended")


def _plug(container: Container, record: dict[str, Any], wanted: Attachment, network: networks.Network) -> Endpoint:
    """Decide about the new plug: the first free cable and interface, and the leased addresses."""
    endpoints = _endpoints(record)
    socket = netns.inside(record["Name"], container.id)
    if socket is None:
        raise _ended(record)
    links = [netlink.Link(body).name for body in socket.ask(netlink.get_links())]
    if wanted.interface in links:
        raise Conflict(f"--interface-name {wanted.interface}", f"container {record['Name']} has such an interface")
    ports = {each.port for each in endpoints}
    numbers = range(endpoint.MAX_NETWORKS)
    place = next((number for number in numbers if endpoint.host_end(container.id, number) not in ports), None)
    if place is None:
        raise Conflict(f"container {record['Name']}", f"it has {endpoint.MAX_NETWORKS} networks, which is the most")
    interface = connecting.interfaces([wanted.interface], links)[0]
    plug = connecting.plug(
        container.id, record["Name"], place, wanted, interface, network, ipam.allocate, record["Dns"]
    )
    endpoint.keep_one_default_route([*endpoints, plug])
    return plug


def _change(container: Container, record: dict[str, Any], endpoints: list[Endpoint]) -> None:
    """Give the container these networks: the record first, then all that follows from it."""
    for each in endpoints:
        network = networks.load(each.network)
        each.gateways = [] if network is None or network.internal else list(each.nameservers)
    endpoint.keep_one_default_route(endpoints)
    record["Networks"] = [each.record() for each in endpoints]
    store.write_json(f"{container.home}/container.json", record)
    settle(container, record)


def _ways_out(socket: netlink.Socket, endpoints: Iterable[Endpoint]) -> None:
    """Give a namespace the default routes that it should have and has not; others that it has stay."""
    for each in endpoints:
        for gateway in each.gateways:
            family = netlink.AF_INET6 if ":" in gateway else netlink.AF_INET
            found = [r for r in netlink.routes(socket, family) if not r.prefix and r.type == netlink.RTN_UNICAST]
            link = netlink.find_link(socket, each.interface)
            if not found and link:
                socket.ask(netlink.add_default_route(link.index, gateway))


def _publish(container: Container, record: dict[str, Any], endpoints: list[Endpoint]) -> Exception | None:
    """Let the published ports lead to the container on its way out, wherever that is now; without one, nowhere.

    Raises what keeps them from leading to where they led; returns what keeps them from leading to where they should.
    """
    if not record["Ports"]:
        return None
    from minirun.network import claim
    from minirun.network.addresses import bits

    ports = _ports(record)
    new: list[Step] = []
    if any(each.gateways for each in endpoints):
        state = container.state()
        process = (state["pid"], state["start"]) if state else None
        new = attach.publish_steps(container.id, record["Name"], endpoints, ports, process)
    journal = _journal(container, PORTS)
    was = store.read_json(journal) or {"old": [], "new": _published(container)}
    wanted = [each.record() for each in new]
    if was == {"old": [], "new": wanted}:
        return None
    joining.make_folder(container.live)
    old = [*was["old"], *was["new"]]
    try:
        if wanted and not old:  # they were given back: somebody else may have them by now
            claim.claim(ports, sorted({bits(port.address) for port in ports}))
        store.write_json(journal, {"old": old or wanted, "new": wanted})  # an "old" says that it is not done yet
        failures = step.undo_all(_loaded(old))
        if failures:
            raise failures[0]
        old = []
        step.do_all(new)
    except (MinirunError, OSError) as error:
        if old:
            raise
        return error
    finally:
        claim.close()
        claim.release()
    store.write_json(journal, {"old": [], "new": wanted})
    return None


def _ports(record: dict[str, Any]) -> list[Port]:
    if not record["Ports"]:
        return []
    from minirun.network.ports import Port

    return [Port.from_record(item) for item in record["Ports"]]


def _published(container: Container) -> list[Any]:
    plan = store.read_json(f"{container.live}/plan.json") or []
    return [item for item in plan if item[0] in ("publish", "proxy")]


def _pull(container: Container, name: str) -> None:
    """Undo one journal: the cable first, so that nobody speaks through a port whose claims are gone."""
    steps = _steps(container, name)
    failures = _cut(steps) + step.undo_all(steps)
    if failures:
        raise failures[0]
    if not steps:
        _release(container, name.removesuffix(".json"))
    try:
        os.unlink(_journal(container, name))
    except FileNotFoundError:  # gone with the container
        pass


def _release(container: Container, network: str) -> None:
    """Give back what was leased when the journal had no steps yet; it costs a look at every lease of the network."""
    ipam.reconcile(network, lambda lease: lease.owner != container.id)


def _cut(steps: Iterable[Step]) -> list[Exception]:
    failures: list[Exception] = []
    for cable in steps:
        if isinstance(cable, Veth):
            try:
                cable.cut()
            except (OSError, MinirunError) as error:
                failures.append(error)
    return failures


def _sweep(container: Container) -> None:
    """Remove what ``store.write`` had not given its name yet."""
    for folder, begin in ((f"{container.live}/plugs", ""), (container.home, "container.json.")):
        for name in store.entries(folder):
            if name.startswith(begin) and name.rpartition(".")[2].isdigit():
                os.unlink(f"{folder}/{name}")


def _endpoints(record: dict[str, Any]) -> list[Endpoint]:
    return [Endpoint.from_record(item) for item in record["Networks"]]


def _journal(container: Container, name: str) -> str:
    return f"{container.live}/plugs/{name}"


def _steps(container: Container, name: str) -> list[Step]:
    """The steps of a journal."""
    if name != PORTS:
        return _load(_journal(container, name))
    found = store.read_json(_journal(container, name)) or {"old": [], "new": []}
    return _loaded([*found["old"], *found["new"]])


def _load(path: str) -> list[Step]:
    return _loaded(store.read_json(path) or [])


def _loaded(items: Sequence[Any]) -> list[Step]:
    if any(item[0] == "proxy" for item in items):
        from minirun.network import proxy  # noqa: F401  (a step of it)
    return [step.load(item) for item in items]
