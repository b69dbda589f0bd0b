"""``minirun explain``: the plan that a command would do, as a script, without doing anything.

The steps are those that ``run`` makes, by the same functions; nothing is reserved, so the address is the one that
would be given now. The script is for ``sudo sh``.
"""

from __future__ import annotations

from minirun.engine import connect, plan
from minirun.engine import record as records
from minirun.engine.options import RunOptions
from minirun.engine.record import Container
from minirun.engine.run import new_id
from minirun.errors import NotFound
from minirun.image import layout
from minirun.network import bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minirun.network.creation import Wanted
    from minirun.step import Step


def run(options: RunOptions) -> str:
    """The script of ``minirun run``; the steps of a network that is not there yet come first, as a plan of its own."""
    image = layout.find(options.image)
    if image is None:
        raise NotFound(f"no such image: {options.image}", "", f"minirun image build {options.image}")
    container = Container(new_id())
    name = options.name or container.id[:12]
    records.check_free(name)
    text, endpoints, joined = "", [], None
    if options.network == "container":
        from minirun.engine import joining

        joined = joining.decide(options)
    if options.network == "bridge":
        networks = []
        for wanted in options.networks:
            network, missing = bridge.decide(wanted.network)
            if options.forward == "allow":
                from minirun.network.foreign import gate

                missing = [*missing, *gate.steps(network)]
            networks.append(network)
            text += _numbered(missing, f"the network {network.name}, which is not there yet") if missing else ""
        plan.decide_ports(image, options, networks, reserve=False)
        endpoints = connect.endpoints(container.id, name, options, networks, connect.propose)
    elif options.ports or options.publish_all:
        raise plan.no_ports(options)
    steps = plan.make(container, name, image, options, endpoints, joined).steps
    return _HEAD + f"export id={container.id}\n" + _shorten(text + _numbered(steps, "the container"), container.id)


def network(wanted: Wanted) -> str:
    """The script of ``minirun network create``."""
    return _HEAD + _numbered(bridge.decide(wanted.name, wanted)[1], f"the network {wanted.name}")


_HEAD = "#!/bin/sh\nset -e\n"


def _numbered(steps: Sequence[Step], title: str) -> str:
    """Each step under its number and kind, as error messages cite them: each plan has its own."""
    parts = [f"\n# -- {title} --"]
    for number, step in enumerate(steps, 1):
        parts += [f"\n# {number} {step.kind}", step.sh()]
    return "\n".join(parts) + "\n"


def _shorten(text: str, identity: str) -> str:
    """The container's id, 64 digits wherever it occurs, as a variable; not within quotes, where it would be none."""
    return "\n".join(_shorten_line(line, identity) for line in text.split("\n"))


def _shorten_line(line: str, identity: str) -> str:
    parts = line.split("'")
    if len(parts) % 2 == 0:  # a quotation goes over several lines
        return line
    parts[::2] = [part.replace(identity, "$id") for part in parts[::2]]
    return "'".join(parts)
