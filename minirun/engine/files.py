"""The step that writes a container's own files: hosts, hostname, resolv.conf, and where its layers are joined."""

from __future__ import annotations

import os

from minirun import store
from minirun.step import Step


class Files(Step):
    """Write the container's own small files and the directories that its root file system is joined from."""

    kind = "files"
    fields = ("directories", "texts")
    directories: list[str]
    texts: list[list[str]]  # path, text

    def sh(self) -> str:
        lines = ["mkdir -p " + " ".join(self.directories)]
        for path, text in self.texts:
            lines.append(f"cat > {path} <<'END'\n{text}END")
        return "\n".join(lines)

    def do(self) -> None:
        for directory in self.directories:
            store.directory(directory, mode=0o755)
        for path, text in self.texts:
            store.create(path, text, 0o644)

    def undo(self) -> None:
        for path, _ in self.texts:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
