"""The root of a container's tree: which op takes it, which op makes it "/", and what is left of that on the host."""

from __future__ import annotations

import os

from minirun.errors import NotFound
from minirun.linux import mounts, syscalls
from minirun.runtime import namespaces
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Op = list[str]


def path(config: dict[str, Any], bundle: str) -> str:
    """The directory of ``root.path``, links resolved. Raises NotFound."""
    found = os.path.realpath(os.path.join(bundle, config["root"]["path"]))
    if not os.path.isdir(found):
        raise NotFound(f"config.json: root.path: {found}", "no such file or directory")
    return found


def root_op(config: dict[str, Any], bundle: str) -> Op:
    """The op that takes the root file system."""
    return ["root", path(config, bundle)]


def pivot_op(config: dict[str, Any], no_pivot: bool) -> str:
    """The op that makes it "/"."""
    if "mount" not in namespaces.kinds(config):
        return "chroot"
    return "move-root" if no_pivot else "pivot"


def host_steps(config: dict[str, Any], bundle: str) -> list[Step]:
    """What must be undone on the host: only without a mount namespace does anything of the mounts outlive init."""
    if "mount" in namespaces.kinds(config):
        return []
    root = path(config, bundle)
    return [HostMounts(root, [number for number, _ in _below(root)])]


def _below(root: str) -> list[tuple[int, str]]:
    return [(number, at) for number, at in mounts.points() if at == root or at.startswith(f"{root}/")]


class HostMounts(Step):
    """The mounts of a container that has no mount namespace: init makes them, in the host's, at or below ``root``.

    ``known`` are the ids of the mounts that were there before, and are somebody else's.
    """

    kind = "host-mounts"
    fields = ("root", "known")
    root: str
    known: list[int]

    def sh(self) -> str:
        return f"# init mounts in the host's own mount namespace, below {self.root}"

    def do(self) -> None:
        """Nothing: init does."""

    def undo(self) -> None:
        for number, at in reversed(_below(self.root)):  # what was mounted last lies on top
            if number not in self.known:
                syscalls.unmount(at)
