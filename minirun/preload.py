"""The modules of a start in one file, so that importing them costs no look-ups.

Python finds each module by a dozen system calls, a quarter of a millisecond; a start of a container imports fifty of
ours, and all of that together would take as long as the container itself. The launcher (scripts/launcher.py) writes
them, compiled, into one file; this finder takes them from there, and knows where the extension modules are. What is
not in the file is imported as always.

The file is one marshalled tuple: the code of this module, and ``{name: (is a package, path, marshalled code)}``, the
code empty for an extension module. It fits one interpreter and one state of the sources. This module cannot have
``from __future__ import annotations``: that would be the first import, from the disk.
"""

import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


class Finder:
    """A finder and loader of sys.meta_path (PEP 451) for the modules of a table."""

    def __init__(self, table: "dict[str, tuple[bool, str, bytes]]") -> None:
        self.table = table

    def find_spec(self, name: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        entry = self.table.get(name)
        if entry is None:
            return None
        is_package, file, code = entry
        loader = self if code else ExtensionFileLoader(name, file)
        spec = ModuleSpec(name, loader, origin=file, is_package=is_package)  # type: ignore[arg-type]
        spec.has_location = True  # so that the module has its __file__
        if is_package:
            spec.submodule_search_locations = [file.rpartition("/")[0]]
        return spec

    def create_module(self, spec: ModuleSpec) -> "ModuleType | None":
        return None

    def exec_module(self, module: "ModuleType") -> None:
        exec(loads(self.table[module.__name__][2]), module.__dict__)  # noqa: S102, S302


def install(table: "dict[str, tuple[bool, str, bytes]]") -> None:
    """Let the modules of ``table`` be imported from it, before any other place is asked."""
    sys.meta_path.insert(0, Finder(table))
