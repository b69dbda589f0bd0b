"""Steps and plans: what minirun does, as data that can say itself, do itself and undo itself.

A *step* is one change to the kernel or the disk. It is small and dumb: what it will do was decided before. A *plan*
is the list of steps of one container or one network. ``explain`` prints ``sh()`` of each step and stops; ``run`` does
the same objects in order. The plan is written down before its first effect, so that whoever comes after a crash can
undo it, and it is undone in reverse.
"""

from __future__ import annotations

from minirun.errors import InvalidDocument, MinirunError, StepFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, ClassVar

KINDS: dict[str, type[Step]] = {}


class Step:
    """One change. A subclass names its constructor's arguments in ``fields``; they must be JSON values.

    ``sh()`` returns the shell commands (one or more lines) that an administrator would type for the same effect.
    ``do()`` makes the change; it raises OSError or a MinirunError, having changed nothing or only what undo() clears.
    ``undo()`` takes it back; it tolerates both "never done" and "already gone", and raises only if the thing remains.
    """

    kind: ClassVar[str]
    fields: ClassVar[tuple[str, ...]]
    holders: list[int] | None = None  # descriptors that stay open as long as the container lives: a step may add one

    def __init_subclass__(cls) -> None:
        KINDS[cls.kind] = cls

    def __init__(self, *values: Any) -> None:
        for name, value in zip(self.fields, values, strict=True):
            setattr(self, name, value)

    def sh(self) -> str:
        raise NotImplementedError

    def do(self) -> None:
        raise NotImplementedError

    def undo(self) -> None:
        raise NotImplementedError

    def record(self) -> list[Any]:
        """The step as JSON: its kind, then its fields in their order."""
        return [self.kind, *(getattr(self, name) for name in self.fields)]


def load(record: Sequence[Any]) -> Step:
    """The step that ``record()`` described. The module that defines the kind must be imported already."""
    try:
        kind = KINDS[record[0]]
        return kind(*record[1:])
    except (KeyError, IndexError, TypeError, ValueError):
        raise InvalidDocument(f"step {record!r}", "not a step that this version knows") from None


def do_all(steps: Sequence[Step]) -> None:
    """Do the steps in order; if one fails, undo it and those before it in reverse, then raise StepFailed.

    A MinirunError that a step raises by itself keeps its class and exit code.
    """
    for number, step in enumerate(steps, 1):
        try:
            step.do()
        except BaseException as error:
            undo_all(steps[:number])
            if isinstance(error, OSError):
                raise _failure(number, step, error) from error
            raise


def undo_all(steps: Sequence[Step], report: Callable[[Step, Exception], None] | None = None) -> list[Exception]:
    """Undo the steps in reverse and never stop at the first error; return the errors (normally none)."""
    errors: list[Exception] = []
    for step in reversed(steps):
        try:
            step.undo()
        except (OSError, MinirunError) as error:
            errors.append(error)
            if report:
                report(step, error)
    return errors


def _failure(number: int, step: Step, error: OSError) -> StepFailed:
    first = step.sh().split("\n", 1)[0]
    return StepFailed(f"step {number} ({step.kind}) failed", f"{error}", f"by hand it would be: {first}")
