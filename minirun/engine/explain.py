"""``minirun explain``: the plan that a command would do, as a script, without doing anything.

The steps are those that ``run`` makes, by the same functions; nothing is reserved, so the address is the one that
would be given now. The script is for ``sudo sh``.
"""

from __future__ import annotations

from minirun.engine import plan
from minirun.engine.options import RunOptions
from minirun.engine.record import Container
from minirun.engine.run import new_id
from minirun.errors import NotFound
from minirun.image import layout
from minirun.network import bridge, ipam

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minirun.step import Step


def run(options: RunOptions) -> str:
    """The script of ``minirun run``; the steps that make the network come first, if it is not there yet."""
    image = layout.find(options.image)
    if image is None:
        raise NotFound(f"no such image: {options.image}", "", f"minirun image build {options.image}")
    container = Container(new_id())
    name = options.name or container.id[:12]
    steps: list[Step] = []
    network = address = None
    if options.network not in ("none", "host"):
        network, steps = bridge.decide(options.network)
        address = ipam.propose(network)
    steps += plan.make(container, name, image, options, network, address).steps
    return script(steps, container.id)


def network(name: str, subnet: str | None) -> str:
    """The script of ``minirun network create``."""
    return script(bridge.decide(name, subnet)[1])


def script(steps: Sequence[Step], identity: str = "") -> str:
    """A shell script, each step under its number and kind, as error messages cite them.

    The container's id, 64 digits wherever it occurs, is written once.
    """
    parts = []
    for number, step in enumerate(steps, 1):
        parts += ["", f"# {number} {step.kind}", step.sh()]
    text = "\n".join(parts) + "\n"
    head = "#!/bin/sh\nset -e\n"
    return f"{head}export id={identity}\n{text.replace(identity, '$id')}" if identity else head + text
