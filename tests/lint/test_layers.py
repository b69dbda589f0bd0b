"""The layers of docs/architecture.md: who may import whom, and who may print. Read from the syntax, nothing is run."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# The first name that fits counts. A module may import its own layer and those below, except a sibling of its layer.
LAYERS = {
    "minirun.cli": 4,
    "minirun.__main__": 4,
    "minirun.engine": 3,
    "minirun.doctor": 3,
    "minirun.runtime": 2,
    "minirun.image": 2,
    "minirun.network": 2,
    "minirun.step": 1,
    "minirun.oci": 1,
    "minirun.linux": 0,
    "minirun.store": 0,
    "minirun.errors": 0,
    "minirun.strict_json": 0,
    "minirun.bundle": 0,
    "minirun": 0,  # the package itself: its version
}
SIBLINGS = ("minirun.runtime", "minirun.image", "minirun.network")

# Imports against the rule that are meant, (importer, imported): the reason. A list that should stay empty.
EXCEPTIONS: dict[tuple[str, str], str] = {}

# What only one module may import.
SOLE_IMPORTERS = {
    "minirun.linux._shim": {"minirun.linux.syscalls"},
    "minirun.linux._seccomp": {"minirun.linux.seccomp_compiler"},
}


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Every module of the package by its dotted name, but build scripts, which run before there is a package."""
    found = {}
    for path in sorted(REPOSITORY.glob("minirun/**/*.py")):
        if not path.name.endswith("_build.py"):
            name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
            found[name] = ast.parse(path.read_text(), str(path))
    return found


def _for_the_type_checker(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _walk(tree: ast.AST) -> Iterator[ast.AST]:
    """ast.walk without what stands below ``if TYPE_CHECKING``: that is never executed."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        if not _for_the_type_checker(node):
            todo += ast.iter_child_nodes(node)


def imports(name: str) -> set[str]:
    """What a module imports, at its top or anywhere inside, by dotted name."""
    found = set()
    for node in _walk(modules()[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            dotted = {f"{node.module}.{alias.name}" for alias in node.names}
            inner = {one for one in dotted if one in modules() or one in SOLE_IMPORTERS}
            found |= inner or {node.module}
    return found


def _part(name: str) -> str:
    return next(known for known in LAYERS if name == known or name.startswith(f"{known}."))


@pytest.mark.parametrize("name", modules())
def test_imports_go_downward(name: str) -> None:
    wrong = []
    for imported in imports(name):
        if imported.split(".")[0] != "minirun" or (name, imported) in EXCEPTIONS:
            continue
        here, there = _part(name), _part(imported)
        if LAYERS[there] > LAYERS[here]:
            wrong.append(f"{imported} is in a higher layer")
        elif here != there and here in SIBLINGS and there in SIBLINGS:
            wrong.append(f"{imported} is a sibling")
    assert not wrong, f"{name}: {wrong}"


def test_every_exception_is_still_needed() -> None:
    unneeded = [pair for pair in EXCEPTIONS if pair[0] not in modules() or pair[1] not in imports(pair[0])]
    assert not unneeded


@pytest.mark.parametrize("extension", SOLE_IMPORTERS)
def test_one_module_alone_imports_an_extension(extension: str) -> None:
    importers = {name for name in modules() if any(one.startswith(extension) for one in imports(name))}
    assert importers <= SOLE_IMPORTERS[extension]


@pytest.mark.parametrize("library", ["pyroute2", "prctl"])
def test_one_module_at_most_imports_a_heavy_library(library: str) -> None:
    importers = {name for name in modules() if any(one.split(".")[0] == library for one in imports(name))}
    assert len(importers) <= 1, f"{library} is imported by {sorted(importers)}"


def _speaks(node: ast.AST) -> str:
    """The name of what prints or exits: print(), exit(), sys.exit, sys.stdout, sys.stderr, os._exit; or nothing."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id if node.func.id in ("print", "exit", "quit") else ""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        name = f"{node.value.id}.{node.attr}"
        return name if name in ("sys.exit", "sys.stdout", "sys.stderr", "os._exit") else ""
    return ""


def test_only_the_cli_prints_or_exits() -> None:
    """doctor's probes fork; a child of theirs ends by os._exit, and with it nothing of the program."""
    wrong = [
        f"{name}:{getattr(node, 'lineno', 0)} {word}"
        for name, tree in modules().items()
        if LAYERS[_part(name)] < 4
        for node in _walk(tree)
        if (word := _speaks(node)) and not (word == "os._exit" and name.startswith("minirun.doctor."))
    ]
    assert not wrong


def test_nothing_in_oci_touches_the_kernel() -> None:
    """Documents are pure: no file, no process, no module of layer 0 but the errors and the JSON reader."""
    allowed = ("minirun.oci", "minirun.errors", "minirun.strict_json", "__future__", "collections", "typing")
    for name in modules():
        if name.startswith("minirun.oci"):
            wrong = [one for one in imports(name) if one != "minirun" and not one.startswith(allowed)]
            wrong += [
                node.func.id
                for node in _walk(modules()[name])
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open"
            ]
            assert not wrong, f"{name}: {wrong}"


def test_no_shell_is_ever_started() -> None:
    """argv lists only: a name from outside can then be no command (SECURITY, N10)."""
    wrong = []
    for name, tree in modules().items():
        for node in _walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                wrong.append(name)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                wrong += [name] if (node.value.id, node.attr) in {("os", "system"), ("os", "popen")} else []
    assert not wrong
