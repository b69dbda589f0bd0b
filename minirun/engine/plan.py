"""The plan of one container: everything is decided here, and nothing is done.

``explain`` prints the plan, ``run`` does it: the same objects, made by the same function.
"""

from __future__ import annotations

import os

from minirun import store
from minirun.engine import spec, users
from minirun.engine.files import Files
from minirun.engine.options import RunOptions
from minirun.engine.record import Container
from minirun.errors import NotFound, UsageError
from minirun.linux import cgroup, seccomp
from minirun.network import attach, names
from minirun.network.netns import netns_path
from minirun.runtime import init_ops, namespaces, resources
from minirun.runtime.process import Spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minirun.engine.joining import Joined
    from minirun.image.layout import Image
    from minirun.network.endpoint import Endpoint
    from minirun.network.network import Network
    from minirun.step import Step


def mount_point() -> str:
    """Where every container's root file system is mounted: each in its own mount namespace, so one directory does."""
    return f"{store.state}/rootfs"


class Decided:
    """What was decided about one container before its plan was made."""

    __slots__ = ("config", "endpoints", "steps")

    def __init__(self, config: dict[str, Any], endpoints: Sequence[Endpoint], steps: list[Step]) -> None:
        self.config, self.endpoints, self.steps = config, endpoints, steps


def make(
    container: Container,
    name: str,
    image: Image,
    options: RunOptions,
    endpoints: Sequence[Endpoint],
    joined: Joined | None = None,
) -> Decided:
    """The plan for ``container``; there are no ``endpoints`` without a network of ours, or with one that is joined."""
    user = users.resolve(
        image.config.get("User", "") if options.user is None else options.user,
        users.reader(reversed(image.layers)),
        options.groups,
    )
    for source, _, _ in options.volumes:
        if not os.path.exists(source):
            raise NotFound(f"-v {source}", "no such file or directory on this machine", f"mkdir -p {source}")
    netns = None if options.network == "host" else netns_path(name)
    cgroup_path = f"{cgroup.parent}/{container.id}"
    files = joined.container.live if joined else container.live
    config = spec.config(container.id, image.config, options, user, files, netns, f"/{cgroup_path}")
    limits = resources.plan(cgroup_path, config["linux"]["resources"])
    steps: list[Step] = [_files(container, name, config["hostname"], options, endpoints)]
    if endpoints:
        steps += attach.attach_steps(container.id, name, endpoints, options.ports)
    elif joined:
        steps += joined.steps(container.id, name)
    elif netns:
        steps += attach.isolated_steps(container.id, name)
    steps += [limits, *resources.device_filters(limits, config["linux"]["resources"])]
    steps += [_spawn(container, config, options, image, limits)]
    return Decided(config, endpoints, steps)


def no_ports(options: RunOptions) -> UsageError:
    """Ports are published without a network of ours, in words."""
    return UsageError("-p", f"--net {options.network} publishes nothing", "use a bridge network")


def decide_ports(image: Image | None, options: RunOptions, networks: Sequence[Network], reserve: bool = True) -> None:
    """Decide which ports of the host are published; until they are, or we end, nobody else gets them, if asked so.

    Raises Conflict, UsageError.
    """
    if options.publish_all:
        from minirun.network import ports

        listed = image.config.get("ExposedPorts") or {} if image else {}
        names = [name for text in listed for name in ports.exposed(text, "the image's port")]
        options.ports = ports.publish_all(options.ports, [*names, *options.expose])
    if not options.ports:
        return
    from minirun.network import claim

    families = {pool.subnet.bits for network in networks if not network.internal for pool in network.pools}
    if not families:
        remedy = "connect the container to another network, too"
        raise UsageError("-p", f"network {networks[0].name} is internal and publishes nothing", remedy)
    options.ports = (claim.claim if reserve else claim.propose)(options.ports, sorted(families))


def _files(
    container: Container,
    name: str,
    hostname: str,
    options: RunOptions,
    endpoints: Sequence[Endpoint],
) -> Files:
    texts = []
    own = [address.partition("/")[0] for each in endpoints for address in each.addresses]
    servers = [server for each in endpoints for server in each.nameservers]
    internal = not any(each.gateways for each in endpoints)
    if options.network not in ("host", "container"):
        texts = [
            [f"{container.live}/hosts", names.hosts(hostname, name, own, options.hosts, *servers[:1])],
            [f"{container.live}/hostname", f"{hostname}\n"],
            [
                f"{container.live}/resolv.conf",
                names.resolv_conf(servers, options.dns_search, options.dns_options, internal),
            ],
        ]
    elif options.network == "host":
        texts = [
            [f"{container.live}/hosts", names.hosts_of_host(options.hosts)],
            [f"{container.live}/hostname", f"{hostname}\n"],
            [
                f"{container.live}/resolv.conf",
                names.resolv_conf_of_host(options.dns, options.dns_search, options.dns_options),
            ],
        ]
    directories = [container.live, mount_point(), f"{container.home}/upper", f"{container.home}/work"]
    return Files(directories, texts)


def _spawn(
    container: Container, config: dict[str, Any], options: RunOptions, image: Image, limits: resources.Cgroup
) -> Spawn:
    layout = cgroup.layout()
    flags = namespaces.spawn_flags(namespaces.kinds(config))
    profile = config["linux"].get("seccomp")
    # A thread of v1 moves itself by `tasks`; in v2 it is born in its cgroup (CLONE_INTO_CGROUP).
    joined = [] if layout.unified else [f"{directory}/tasks" for directory in limits.directories]
    setting = init_ops.Setting(
        _overlay(container, image, options),
        joined,
        seccomp.filter_path(profile) if profile else None,
        [["ready"], ["die-with-parent"]],
    )
    ops = init_ops.create_ops(config, setting)
    words = ["--id", container.id[:12], "--namespaces", hex(flags), "--log", f"{container.home}/log"]
    words += ["--exit", f"{container.home}/exit", "--socket", f"{container.live}/monitor.sock"]
    words += ["--needed", container.live, "--oom", _oom_file(layout, limits)]
    if layout.unified:
        words += ["--cgroup", limits.directories[0]]
    words += ["--tty"] if options.tty else []
    words += ["--stdin"] if options.interactive else []
    return Spawn(words, ops, config["process"]["args"])


def _overlay(container: Container, image: Image, options: RunOptions) -> list[str]:
    """The layers and the container's own, joined in its mount namespace only: a crash leaves no mount on the host.

    ``volatile`` (Linux 5.10) spares the sync of everything at the end, for a layer that is deleted then anyway.
    """
    home = container.home
    data = f"lowerdir={':'.join(reversed(image.layers))},upperdir={home}/upper,workdir={home}/work"
    return ["overlay", mount_point(), data + (",volatile" if options.remove else "")]


def _oom_file(layout: cgroup.Layout, limits: resources.Cgroup) -> str:
    if layout.unified:
        return f"{limits.directories[0]}/memory.events"
    return next((f"{d}/memory.oom_control" for d in limits.directories if "/memory/" in d), "/dev/null")
