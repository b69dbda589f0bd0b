"""Write the program ``minirun``: a few lines that start Python without its site module, and its modules in one file.

    launcher.py PROGRAM [CHECKOUT]

``python -IS`` starts in 8 ms, pip's own console script in 15 and more: ``site`` looks through every installed package
for .pth files. What it would have told is written into the launcher instead: where the packages are. Beside it lies
PROGRAM.modules (see minirun/preload.py). In a checkout, whose sources change, the launcher compares their times first.
The third file is minirun-oci, the front of the OCI runtime (csrc/oci.c).
"""

from __future__ import annotations

import importlib
import importlib.util
import marshal
import os
import shutil
import sys
import sysconfig
from pathlib import Path

# The search for cycles of garbage waits for more than a start makes: else it looks through all that was imported, again
# and again, for a process that is soon over, which takes one part in twenty of a start.
# The interpreter is named by its real path: by that of a virtual environment it would read pyvenv.cfg first, and look
# for itself. What else runs Python (pip) gets that of the environment.
LAUNCHER = """#!{interpreter} -IS
import gc
import sys
gc.set_threshold(100000)
sys.executable = {python!r}
sys.path += {paths!r}
{load}
from minirun.cli.main import main
main()
"""
LOAD = """import posix
from marshal import loads
file = posix.open({modules!r}, posix.O_RDONLY | posix.O_CLOEXEC)
finder, table = loads(posix.read(file, posix.fstat(file).st_size))
posix.close(file)
exec(finder)
install(table)
"""
LOAD_IF_FRESH = """import os
made = os.stat({modules!r}).st_mtime_ns if os.path.exists({modules!r}) else 0
if all(os.stat(path).st_mtime_ns < made for path in {sources!r}):
    from marshal import loads
    with open({modules!r}, "rb", 0) as file:
        finder, table = loads(file.read())
    exec(finder)
    install(table)
"""


EXTENSIONS = ("_cffi_backend", "_json", "_struct", "_socket")
HOT = (  # what is measured, and what it imports only when it needs it, as each start does
    *("cli.run", "cli.exec", "cli.oci", "cli.oci.lifecycle", "cli.oci.execute", "cli.oci.foreground", "cli.cleanup"),
    *("cli.main", "engine.run", "runtime.control"),
)


def hot_modules() -> dict[str, Path]:
    """Every module of ours that those commands import, __future__, which they all name, and extension modules."""
    for name in HOT:
        importlib.import_module(f"minirun.{name}")
    found = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    found["minirun.linux._shim"] = _shim_file()
    return {
        name: Path(file)
        for name, file in found.items()
        if file
        and (name.startswith("minirun") or name == "__future__" or (name in EXTENSIONS and file.endswith(".so")))
    }


def _shim_file() -> str:
    spec = importlib.util.find_spec("minirun.linux._shim")
    if spec is None or spec.origin is None:
        raise SystemExit("minirun.linux._shim is not built: python setup.py build_ext --inplace")
    return spec.origin


def compiled(path: Path) -> bytes:
    """The code of a module without docstrings, as marshal writes it."""
    return marshal.dumps(compile(path.read_bytes(), str(path), "exec", optimize=2, dont_inherit=True))


def write_modules(modules: Path) -> list[str]:
    """Write the hot modules into one file; returns the paths of our sources among them."""
    found = hot_modules()
    table = {
        name: (path.name == "__init__.py", str(path), compiled(path) if path.suffix == ".py" else b"")
        for name, path in found.items()
    }
    source = found["minirun"].parent / "preload.py"
    finder = compile(source.read_bytes(), str(source), "exec", optimize=2, dont_inherit=True)
    temporary = modules.with_name(f".{modules.name}.new")
    temporary.write_bytes(marshal.dumps((finder, table)))
    temporary.replace(modules)  # who is reading the old one reads on
    ours = [str(path) for name, path in found.items() if name.startswith("minirun") and path.suffix == ".py"]
    return [str(source), *ours]


def main() -> None:
    """Write the launcher for this interpreter's packages, and those of a checkout before them."""
    program = Path(sys.argv[1]).resolve()
    checkout = [Path(path).resolve() for path in sys.argv[2:]]
    installed = sysconfig.get_path("purelib")
    modules = program.with_name(program.name + ".modules")
    sys.path[0] = str(checkout[0]) if checkout else installed
    sources = write_modules(modules)
    load = (LOAD_IF_FRESH if checkout else LOAD).format(modules=str(modules), sources=sources)
    paths = [str(path) for path in checkout] + [installed]
    program.write_text(
        LAUNCHER.format(interpreter=os.path.realpath(sys.executable), python=sys.executable, paths=paths, load=load)
    )
    program.chmod(0o755)
    install_front(Path(sources[0]).parent / "libexec/minirun-oci", program.with_name("minirun-oci"))


def install_front(built: Path, program: Path) -> None:
    """Put the front of the OCI runtime beside the launcher, which it execs; by a rename, since it may be running."""
    temporary = program.with_name(f".{program.name}.new")
    shutil.copyfile(built, temporary)
    temporary.chmod(0o755)
    temporary.replace(program)


if __name__ == "__main__":
    main()
