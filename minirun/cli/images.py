"""``minirun images`` and ``minirun image build|ls|inspect|rm|tag``."""

from __future__ import annotations

import sys

from minirun.cli import table
from minirun.cli.arguments import Option, Values, help_text, parse, store
from minirun.cli.run import progress
from minirun.errors import MinirunError, NotFound, UsageError
from minirun.image import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

OPTIONS = [
    Option("-q --quiet", "", store("quiet"), "only ids"),
    Option("--no-trunc", "", store("whole"), "do not shorten ids"),
    Option("--format", "json", store("format"), "one JSON object a line"),
]
USAGE = "image build NAME... | ls | inspect NAME... | rm NAME... | tag NAME NEW"


def images(argv: Sequence[str]) -> int:
    """``minirun images``."""
    if "--help" in argv:
        sys.stdout.write(help_text("images [-q] [--format json]", "List the images in the store.", OPTIONS))
        return 0
    target = Values(quiet=False, whole=False, format="table")
    wanted = parse(argv, OPTIONS, target)
    table.check_format(target.format)
    only = [layout.find(name) for name in wanted]
    found = [image for image in layout.listing() if not wanted or any(o and o.id == image.id for o in only)]
    if target.quiet:
        sys.stdout.write("".join(f"{image.id if target.whole else image.id[7:19]}\n" for image in found))
        return 0
    rows = []
    for image in found:
        for name in image.names or ["<none>:<none>"]:
            repository, _, tag = name.rpartition(":")
            rows.append((repository, tag, image))
    if target.format == "json":
        table.json_lines(
            {"Repository": r, "Tag": t, "ID": image.id, "CreatedAt": image.created, "Size": image.size}
            for r, t, image in rows
        )
    else:
        cells = [
            [r, t, image.id if target.whole else image.id[7:19], image.created or "", table.size(image.size)]
            for r, t, image in rows
        ]
        table.write(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], cells)
    return 0


def _build(argv: Sequence[str]) -> int:
    names = parse(argv, [], Values())
    from minirun.image import recipes

    if not names:
        raise UsageError("image build", "a recipe is missing", f"known: {', '.join(recipes.known())}")
    for name in names:
        image = recipes.build(name, progress)
        sys.stdout.write(f"{image.id}\n")
    return 0


def _remove(argv: Sequence[str]) -> int:
    names = parse(argv, [], Values())
    from minirun.engine import record as records
    from minirun.errors import Conflict

    code = 0
    for name in names:
        try:
            image = layout.find(name)
            if image is None:
                raise NotFound(f"no such image: {name}", "", "minirun images lists them")
            users = [r["Name"] for r in records.all_records() if r.get("ImageId") == image.id]
            if users:
                raise Conflict(f"image {name} is in use", f"by {', '.join(users)}", f"minirun rm {users[0]}")
            layout.remove(name)
            sys.stdout.write(f"{name}\n")
        except MinirunError as error:
            table.complain(error)
            code = error.exit_code
    return code


def _tag(argv: Sequence[str]) -> int:
    names = parse(argv, [], Values())
    if len(names) != 2:
        raise UsageError("image tag", "takes two names", "minirun image tag NAME NEW")
    layout.tag(names[0], names[1])
    return 0


def _inspect(names: Sequence[str]) -> int:
    from minirun.cli import inspect

    return inspect.run(["--type", "image", *names])


VERBS = {"build": _build, "ls": images, "list": images, "inspect": _inspect, "rm": _remove, "tag": _tag}


def run(argv: Sequence[str]) -> int:
    """``minirun image``."""
    if not argv or argv[0] in ("--help", "-h") or "--help" in argv[1:]:
        sys.stdout.write(help_text(USAGE, "Build, list, inspect, remove and name images.", []))
        return 0 if argv else 125
    verb = VERBS.get(argv[0])
    if verb is None:
        raise UsageError(f"image {argv[0]}", "unknown", f"minirun {USAGE}")
    return verb(argv[1:])
