"""What is plugged into a container, and pulled out of it, while it lives.

<live>/plugs/<network>.json    the steps of a network that was connected later, or is being disconnected
<live>/plugs/@<id>             another container shares the network namespace
"""

from __future__ import annotations

from minirun import step, store
from minirun.engine import joining
from minirun.engine.record import Container
from minirun.errors import MinirunError
from minirun.network.attach import Veth

TYPE_CHECKING = False
if TYPE_CHECKING:
    from minirun.step import Step


def undo_all(container: Container) -> list[Exception]:
    """Undo all of it when the container ends, before its plan is undone."""
    names = store.entries(f"{container.live}/plugs")
    steps = [found for name in names if not name.startswith(joining.MARK) for found in _journal(container, name)]
    failures = step.undo_all(steps)
    if any(name.startswith(joining.MARK) for name in names):  # the namespace lives on, and would keep the cables
        failures += _cut(steps + _load(f"{container.live}/plan.json"))
    return failures


def _cut(steps: list[Step]) -> list[Exception]:
    failures: list[Exception] = []
    for cable in steps:
        if isinstance(cable, Veth):
            try:
                cable.cut()
            except (OSError, MinirunError) as error:
                failures.append(error)
    return failures


def _journal(container: Container, name: str) -> list[Step]:
    return _load(f"{container.live}/plugs/{name}")


def _load(path: str) -> list[Step]:
    return [step.load(item) for item in store.read_json(path) or []]
