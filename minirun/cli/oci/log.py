"""Where errors and warnings of the OCI runtime go: standard error, and the file of ``--log``.

Engines read them back: containerd's shim and podman take ``msg`` of the JSON lines, and look for words in it.
"""

from __future__ import annotations

import os
import sys
import time

from minirun import store, strict_json
from minirun.cli.failure import clean

LEVELS = ("trace", "debug", "info", "warning", "error", "fatal", "panic")


class Log:
    """``name`` is what the program was called; the rest are the global options of these names."""

    __slots__ = ("file", "form", "level", "name")

    def __init__(self, name: str) -> None:
        self.name, self.file, self.form, self.level = name, "", "text", "info"

    def warn(self, text: str) -> None:
        """Something that the caller should know, and that stops nobody."""
        if LEVELS.index(self.level) > LEVELS.index("warning"):
            return
        if not (self.file and self._append("warning", text)):
            self._say(f"{self.name}: warning: {clean(text)}\n" if self.form == "text" else _line("warning", text))

    def error(self, text: str) -> None:
        """Why the command failed: on standard error in any case, where a person or conmon reads it."""
        logged = self.file and self._append("error", text)
        plain = logged or self.form == "text"
        self._say(f"{self.name}: {clean(text)}\n" if plain else _line("error", text))

    def _append(self, level: str, text: str) -> bool:
        """Whether the line got into the file. It is opened only now: mostly there is nothing to say."""
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOCTTY | os.O_CLOEXEC
            descriptor = os.open(self.file, flags, 0o644)
            try:
                line = _line(level, text) if self.form == "json" else f"{self.name}: {level}: {clean(text)}\n"
                store.write_all(descriptor, line.encode("utf-8", "backslashreplace"))
            finally:
                os.close(descriptor)
        except OSError as error:
            self._say(f"{self.name}: warning: --log {clean(self.file)}: {error.strerror}\n")
            return False
        return True

    def _say(self, text: str) -> None:
        try:
            sys.stdout.flush()
        except OSError:  # what could not be written is perhaps what we complain of
            pass
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            pass


def _line(level: str, text: str) -> str:
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    text = text.encode("utf-8", "backslashreplace").decode()
    return strict_json.dumps({"level": level, "msg": text, "time": moment}) + "\n"
