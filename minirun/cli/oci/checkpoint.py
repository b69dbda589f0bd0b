"""``checkpoint restore``: options that criu understands, for minirun/runtime/checkpoint.py."""

from __future__ import annotations

import os

from minirun.cli.arguments import Option, Values
from minirun.cli.arguments import store as put
from minirun.cli.oci.lifecycle import CREATE, CREATE_DEFAULTS, FOREGROUND, create_options
from minirun.cli.oci.verb import Verb, one_id, one_of
from minirun.errors import Unsupported
from minirun.runtime import checkpoint, process
from minirun.runtime import container as runtime
from minirun.runtime.container import Bundled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Switches that criu has under the same name.
_PASSED = (
    ("--tcp-established", "allow open TCP connections"),
    ("--tcp-skip-in-flight", "leave out TCP connections that are being made"),
    ("--ext-unix-sk", "allow Unix sockets that lead outside"),
    ("--shell-job", "allow a terminal that is not the container's"),
    ("--file-locks", "allow file locks"),
    ("--link-remap", "allow files that have no name any more"),
    ("--auto-dedup", "drop memory that was dumped twice"),
)
_MODES = ("soft", "full", "strict", "ignore", "none", "props", "cg-only")


def _pass(word: str) -> Callable[[Any, Any], None]:
    def apply(target: Any, value: Any) -> None:
        target.words = [one for one in target.words if one != word] + ([word] if value else [])

    return apply


def _images() -> list[Option]:
    return [
        Option("--image-path", "DIR", put("images"), "the checkpoint (default: ./checkpoint)"),
        Option("--work-path", "DIR", put("work"), "criu's log and statistics (default: the same)"),
        *(Option(name, "", _pass(name), text) for name, text in _PASSED),
    ]


CHECKPOINT = [
    *_images(),
    Option("--leave-running", "", put("leave_running"), "let the container run on"),
    Option("--parent-path", "DIR", put("parent"), "an earlier checkpoint, relative to this one"),
    Option("--manage-cgroups-mode", "MODE", one_of("--manage-cgroups-mode", "mode", _MODES), "what is kept of cgroups"),
]
RESTORE = [*_images(), *CREATE, *FOREGROUND]


def _places(target: Values) -> tuple[str, str]:
    images = os.path.abspath(target.images)
    return images, os.path.abspath(target.work or images)


def _checkpoint(target: Values, operands: list[str]) -> int:
    words = [*target.words, f"--manage-cgroups={target.mode}"]
    words += ["--prev-images-dir", target.parent, "--track-mem"] if target.parent else []
    checkpoint.dump(Bundled(one_id(operands), target.root), *_places(target), words, target.leave_running)
    return 0


def _restore(target: Values, operands: list[str]) -> int:
    identity, bundle = one_id(operands), os.path.abspath(target.bundle)
    if target.console_socket:
        raise Unsupported("--console-socket", "a terminal cannot be restored", "checkpoint with --shell-job")
    options = create_options(target)
    container, pid = checkpoint.restore(identity, bundle, target.root, options, *_places(target), target.words)
    if target.detach:
        return 0
    status = runtime.wait(pid)
    container.delete(force=True, warn=target.warn)
    return process.exit_code(status)


_DEFAULTS: dict[str, Any] = {"images": "checkpoint", "work": "", "words": []}
TABLE = {
    "checkpoint": Verb(
        "ID", CHECKPOINT, _checkpoint, {**_DEFAULTS, "leave_running": False, "parent": "", "mode": "soft"}
    ),
    "restore": Verb("ID", RESTORE, _restore, {**_DEFAULTS, **CREATE_DEFAULTS, "detach": False, "ignored": False}),
}
