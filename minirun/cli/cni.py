"""``minirun-cni``: the CNI plugin. It reads the environment and standard input, and answers one JSON document.

Runtimes read standard output to its end, so nothing else may get there: what a helper prints goes to standard error.
"""

from __future__ import annotations

import os
import sys

from minirun import __version__, store, strict_json
from minirun.errors import Conflict, InvalidDocument, MinirunError, NotFound, Unsupported, UsageError
from minirun.network.cni import protocol
from minirun.network.cni.config import Config, config_version
from minirun.network.cni.protocol import CniError, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CODES: tuple[tuple[type[MinirunError], int], ...] = (
    (UsageError, protocol.BAD_CONFIG),
    (InvalidDocument, protocol.FAILED),
    (Conflict, protocol.TAKEN),
    (NotFound, protocol.FAILED),
    (Unsupported, protocol.NOT_AVAILABLE),
)


class Answer:
    """What the runtime will read: a document or nothing, in the version that it speaks, as soon as that is known."""

    __slots__ = ("version",)

    def __init__(self) -> None:
        self.version = protocol.NEWEST

    def to(self, request: Request, text: bytes) -> dict[str, Any] | None:
        """Do what is asked and return the document to print. Raises whatever goes wrong."""
        if request.command == "VERSION":
            return protocol.version_document(_lenient(text))
        document = _decoded(text)
        self.version = config_version(document if isinstance(document, dict) else {})
        since = protocol.COMMANDS[request.command]
        if not protocol.at_least(self.version, since):
            why = f"it is of version {since} and later"
            raise CniError(protocol.INCOMPATIBLE_VERSION, f"cniVersion {self.version} has no {request.command}", why)
        config = Config(document, whole=request.command not in ("DEL", "GC"))
        if request.command != "STATUS" and os.geteuid():
            raise CniError(protocol.FAILED, f"{request.command} needs root")
        return _perform(request, config)


def _perform(request: Request, config: Config) -> dict[str, Any] | None:
    if request.command == "ADD":
        from minirun.network.cni import add

        return add.add(request, config)
    if request.command in ("DEL", "GC"):
        from minirun.network.cni import end

        if request.command == "DEL":
            end.delete(request, config)
        else:
            end.collect(config)
    else:
        from minirun.network.cni import check

        if request.command == "CHECK":
            check.check(request, config)
        else:
            check.status(config)
    return None


def _decoded(text: bytes) -> Any:
    try:
        return strict_json.loads(text, "the network configuration")
    except InvalidDocument as error:
        raise CniError(protocol.NOT_DECODED, error.what, error.why) from None


def _lenient(text: bytes) -> Any:
    """What VERSION was sent; a runtime may send nothing."""
    try:
        return strict_json.loads(text)
    except InvalidDocument:
        return None


def _input() -> bytes:
    parts = []
    try:
        while part := os.read(0, 1 << 16):
            parts.append(part)
            if len(parts) << 16 > strict_json.MAX_SIZE:
                break
    except OSError as error:
        raise CniError(protocol.IO_FAILURE, "standard input cannot be read", error.strerror or "") from None
    return b"".join(parts)


def _as_document(error: BaseException) -> CniError:
    """Any error as one that CNI knows."""
    if isinstance(error, CniError):
        return error
    if isinstance(error, MinirunError):
        code = next((code for kind, code in _CODES if isinstance(error, kind)), protocol.FAILED)
        return CniError(code, error.what, "; ".join(part for part in (error.why, error.remedy) if part))
    from minirun.cli.failure import describe

    return CniError(protocol.FAILED, describe(error)[1] or type(error).__name__)


def main() -> None:
    """The whole plugin; it ends with os._exit, as ``minirun`` does."""
    from minirun.cli.failure import clean
    from minirun.cli.main import open_standard_streams

    open_standard_streams()
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"minirun-cni {__version__}\n")
        sys.stdout.flush()
        os._exit(0)
    output = os.dup(1)  # not inherited by any helper (PEP 446)
    os.dup2(2, 1)
    answer, code = Answer(), 0
    try:
        request = Request(os.environ)
        document = answer.to(request, _input())
    except BaseException as error:
        told = _as_document(error)
        document, code = protocol.error_document(answer.version, told), 1
        if os.environ.get("MINIRUN_CNI_DEBUG"):
            import traceback

            traceback.print_exc()
        else:
            sys.stderr.write(f"minirun-cni: {clean(str(told))}\n")
            sys.stderr.flush()
    try:
        if document is not None:
            store.write_all(output, (strict_json.dumps(document) + "\n").encode("utf-8", "backslashreplace"))
    except OSError:  # nobody reads us any more
        code = 1
    os._exit(code)
