"""The OCI runtime's command line, as runc and crun have it: ``minirun-oci VERB``, which is ``minirun oci VERB``.

conmon, containerd's shim and CRI-O call it; what they parse (states, messages, exit codes) is in docs/reference/oci.md.
The plain cases of `state`, `start`, `kill` and `delete` are answered without Python, by csrc/oci.c.
"""

from __future__ import annotations

import os
import sys

from minirun import __version__
from minirun.cli.arguments import Values, help_text, parse
from minirun.cli.failure import describe
from minirun.cli.oci import settings
from minirun.cli.oci.log import Log
from minirun.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from minirun.cli.oci.verb import Verb

# verb: (module, one line of help); a module is imported when a verb of it is called
VERBS: dict[str, tuple[str, str]] = {
    "create": ("lifecycle", "make a container from a bundle; its program waits for start"),
    "run": ("lifecycle", "create and start a container, and wait for its end"),
    "start": ("lifecycle", "let a created container's program go"),
    "state": ("lifecycle", "print a container's state as JSON"),
    "kill": ("lifecycle", "send a signal to a container"),
    "delete": ("lifecycle", "remove what create made"),
    "exec": ("execute", "run another process in a container"),
    "ps": ("show", "list the processes of a container"),
    "list": ("show", "list containers"),
    "pause": ("limits", "freeze a container"),
    "resume": ("limits", "thaw a container"),
    "update": ("limits", "change the limits of a container"),
    "events": ("show", "print what a container uses, again and again, as JSON"),
    "spec": ("show", "write an example config.json"),
    "features": ("show", "print what this runtime knows as JSON"),
    "checkpoint": ("checkpoint", "write a container's processes to disk, by criu"),
    "restore": ("checkpoint", "bring a container back from a checkpoint, by criu"),
}
USAGE = "oci [OPTIONS] VERB [OPTIONS] [ID] ..."


def run(argv: Sequence[str], name: str = "minirun") -> int:
    """``minirun oci``. It reports its own errors, since engines say where they want them."""
    log = Log(name)
    target = Values(**settings.DEFAULTS)
    try:
        code = _dispatch(argv, target, log)
        _flush()
        return code
    except BaseException as error:
        code, text = describe(error)
        if text:
            _set_log(log, target)
            if target.debug:
                import traceback

                traceback.print_exc()
            log.error(text)
        return _exit_code(code, target)


def _flush() -> None:
    """Here, where an error can still go into the log."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # or what could not be written is tried once more at the end
        raise OSError(error.errno, error.strerror, "standard output") from None


def _exit_code(code: int, target: Any) -> int:
    """As runc has them: 1, and 255 of exec, whose smaller codes are the program's own."""
    if code not in (125, 126, 127):  # a death by signal
        return code
    return 255 if target.verb == "exec" else 1 if code == 125 else code


def _dispatch(argv: Sequence[str], target: Any, log: Log) -> int:
    words = parse(argv, settings.FIRST, target, operands_first=False)
    if target.version:
        return _version()
    if target.help or words[:1] in ([], ["help"]):
        sys.stdout.write(_usage())
        return 0 if target.help or words else 1
    name = words[0]
    if name not in VERBS:
        raise UsageError(f"unknown verb {name!r}", "", "see --help")
    verb = find(name)
    target.verb = name
    target.__dict__.update(values(verb).__dict__)
    operands = parse(words[1:], [*settings.OPTIONS, *verb.options], target, operands_first=not verb.program)
    if target.help:
        sys.stdout.write(
            help_text(f"oci {name} {verb.usage}", f"{VERBS[name][1][0].upper()}{VERBS[name][1][1:]}.", verb.options)
        )
        return 0
    target.root = os.path.abspath(target.root) if target.root else settings.default_root()
    _set_log(log, target)
    target.warn = log.warn
    return verb.call(target, operands)


def values(verb: Verb) -> Values:
    """What a verb's options begin with; lists and dictionaries new for each call, since options fill them."""
    fresh = {name: value.copy() if isinstance(value, (list, dict)) else value for name, value in verb.defaults.items()}
    return Values(**fresh)


def _set_log(log: Log, target: Values) -> None:
    log.file, log.form, log.level = target.log, target.log_format, target.log_level


def find(name: str) -> Verb:
    """The verb of this name."""
    module = __import__(f"minirun.cli.oci.{VERBS[name][0]}", fromlist=["TABLE"])
    verb: Verb = module.TABLE[name]
    return verb


def _version() -> int:
    """As runc says it: engines parse the first line and `spec:`."""
    from minirun.oci import defaults

    sys.stdout.write(f"minirun version {__version__}\nspec: {defaults.VERSION}\n")
    return 0


def _usage() -> str:
    text = help_text(USAGE, "Be an OCI runtime, as runc is one.", settings.FIRST)
    verbs = "".join(f"  {name:<11}{line}\n" for name, (_, line) in VERBS.items())
    root = f"The default root is {settings.default_root()}. `minirun oci VERB --help` tells more.\n"
    return f"{text}\nverbs:\n{verbs}\n{root}"
