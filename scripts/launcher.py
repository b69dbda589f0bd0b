"""Write the program ``minirun``: a few lines that start Python without its site module, and its modules in one file.

    launcher.py PROGRAM [CHECKOUT]       beside PROGRAM appear minirun-cni, of the same kind, and minirun-oci

``python -IS`` starts in 8 ms, pip's own console script in 15 and more: ``site`` looks through every installed package
for .pth files. What it would have told is written into the launcher instead: where the packages are. Beside it lies
PROGRAM.modules (see minirun/preload.py). In a checkout, whose sources change, the launcher compares their times first.
minirun-cni, the CNI plugin, is a program of its own, since its modules are others; minirun-oci is the front of the OCI
runtime (csrc/oci.c).
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
from {entry} import main
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
    *("cli.main", "engine.run", "runtime.control", "network.claim"),
    *("network.foreign.gate", "network.foreign.opening"),  # where other firewalls drop what is forwarded
)

CNI_HOT = ("cli.cni", "cli.failure", "network.cni.add", "network.cni.check", "network.cni.end")


def hot_modules(hot: tuple[str, ...]) -> dict[str, Path]:
    """Every module of ours that those commands import, __future__, which they all name, and extension modules."""
    for name in [name for name in sys.modules if name.split(".")[0] == "minirun"]:
        del sys.modules[name]  # what another program imports
    for name in hot:
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


def write_modules(modules: Path, hot: tuple[str, ...]) -> list[str]:
    """Write the hot modules into one file; returns the paths of our sources among them."""
    found = hot_modules(hot)
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
    """Write the launchers for this interpreter's packages, and those of a checkout before them."""
    program = Path(sys.argv[1]).resolve()
    checkout = [Path(path).resolve() for path in sys.argv[2:]]
    sys.path[0] = str(checkout[0]) if checkout else sysconfig.get_path("purelib")
    sources = write_launcher(program, "minirun.cli.main", HOT, checkout)
    write_launcher(program.with_name("minirun-cni"), "minirun.cli.cni", CNI_HOT, checkout)
    install_front(Path(sources[0]).parent / "libexec/minirun-oci", program.with_name("minirun-oci"))


def write_launcher(program: Path, entry: str, hot: tuple[str, ...], checkout: list[Path]) -> list[str]:
    """Write one program, which runs ``main`` of the module ``entry``; returns the paths of its sources."""
    modules = program.with_name(program.name + ".modules")
    sources = write_modules(modules, hot)
    load = (LOAD_IF_FRESH if checkout else LOAD).format(modules=str(modules), sources=sources)
    paths = [str(path) for path in checkout] + [sysconfig.get_path("purelib")]
    interpreter = os.path.realpath(sys.executable)
    program.write_text(
        LAUNCHER.format(interpreter=interpreter, python=sys.executable, paths=paths, load=load, entry=entry)
    )
    program.chmod(0o755)
    return sources


def install_front(built: Path, program: Path) -> None:
    """Put the front of the OCI runtime beside the launcher, which it execs; by a rename, since it may be running."""
    temporary = program.with_name(f".{program.name}.new")
    shutil.copyfile(built, temporary)
    temporary.chmod(0o755)
    temporary.replace(program)


if __name__ == "__main__":
    main()
