"""A child process for a probe: what it does to itself, and to namespaces of its own, ends with it."""

from __future__ import annotations

import os
import signal

from minirun import strict_json
from minirun.doctor import kernel
from minirun.doctor.finding import Doubt
from minirun.errors import MinirunError, Unsupported
from minirun.linux.security import NAMESPACES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_ERRORS: dict[str, type[MinirunError]] = {"doubt": Doubt, "unsupported": Unsupported}


def run(act: Callable[[], str], *namespaces: str) -> str:
    """Do ``act`` in a child that has its own ``namespaces`` (runtime-spec's names); return or raise what it does."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, strict_json.dumps(_outcome(act, namespaces)).encode())
        os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    if not text:
        number = os.waitstatus_to_exitcode(status)
        by = signal.Signals(-number).name if number < 0 else f"exit {number}"
        raise Unsupported("the attempt was killed", by, "see: dmesg | tail")
    return _judge(strict_json.loads(text))


def _outcome(act: Callable[[], str], namespaces: tuple[str, ...]) -> list[Any]:
    try:
        _enter(namespaces)
        return ["ok", act()]
    except OSError as error:
        return ["errno", error.errno or 0, str(error.strerror), str(error.filename or "")]
    except MinirunError as error:
        return ["doubt" if isinstance(error, Doubt) else "unsupported", error.what, error.why, error.remedy]
    except BaseException as error:  # must not go on as a second copy of the whole program
        return ["unsupported", f"{type(error).__name__}: {error}", "", ""]


def _enter(namespaces: tuple[str, ...]) -> None:
    for name in namespaces:
        try:
            kernel.unshare(NAMESPACES[name])
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"unshare({name})") from None
    if "mount" in namespaces:  # no mount of the probe may reach the machine
        kernel.mount("none", "/", "", kernel.MS_REC | kernel.MS_PRIVATE)


def _judge(outcome: list[Any]) -> str:
    kind, *rest = outcome
    if kind == "ok":
        return str(rest[0])
    if kind == "errno":
        raise OSError(rest[0], rest[1], rest[2] or None)
    raise _ERRORS[kind](*rest)
