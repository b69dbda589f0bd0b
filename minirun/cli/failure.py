"""What an exception means to whoever called the program: an exit code, and one clean line."""

from __future__ import annotations

from minirun.errors import MinirunError


def describe(error: BaseException) -> tuple[int, str]:
    """(exit code, text); no text where the caller knows already, as after Ctrl-C."""
    if isinstance(error, MinirunError):
        return error.exit_code, str(error)
    if isinstance(error, BrokenPipeError):
        return 141, ""
    if isinstance(error, KeyboardInterrupt):
        return 130, ""
    if isinstance(error, OSError):
        return 125, f"{error.filename or 'system call'}: {error.strerror or error}"
    if isinstance(error, RecursionError):
        return 125, "nested too deeply"
    # A defect of ours: still one line, and the traceback for whoever asks.
    kind = type(error).__name__
    return 125, f"internal error: {kind}: {error}; please report it with the output of --debug"


def clean(text: str) -> str:
    """``text`` in one line, with nothing in it that a terminal obeys: it may quote what somebody else wrote."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
