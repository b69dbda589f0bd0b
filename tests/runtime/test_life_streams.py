"""Who holds the streams of a container: a client reads them to their end and only then deletes it."""

from __future__ import annotations

import os
import select

from tests.fakehost import TIMEOUT
from tests.lifecycle.machine import open_files
from tests.runtime.bundles import RuntimeHost


def holders(box: RuntimeHost, descriptor: int) -> set[int]:
    """The processes of the host that have the pipe of a descriptor open."""
    wanted = os.readlink(f"/proc/self/fd/{descriptor}")
    return {pid for pid in box.processes() if wanted in open_files(pid)}


def rest(descriptor: int) -> bytes:
    """What is read up to the end of a pipe."""
    text = b""
    while select.select([descriptor], [], [], TIMEOUT)[0] and (part := os.read(descriptor, 65536)):
        text += part
    assert select.select([descriptor], [], [], 0)[0], "somebody holds the pipe open"
    os.close(descriptor)
    return text


def test_they_are_the_programs_alone_and_end_with_it(box: RuntimeHost) -> None:
    box.configure(["sh", "-c", "echo last words"])
    reading, writing = os.pipe()
    box.oci("create", "box", stdout=writing, stderr=writing)
    os.close(writing)
    assert holders(box, reading) == {box.told()["pid"]}
    box.oci("start", "box")
    assert rest(reading) == b"last words\n"
    box.oci("delete", "--force", "box")


def test_those_of_a_detached_exec_are_its_own(box: RuntimeHost) -> None:
    box.oci("run", "-d", "box")
    reading, writing = os.pipe()
    words = ["--pid-file", "/run/pid", "box", "sh", "-c", "while ! test -e /go; do :; done; echo last words"]
    box.oci("exec", "--detach", *words, stdout=writing, stderr=writing)
    os.close(writing)
    assert holders(box, reading) == {int(box.path("/run/pid").read_text())}
    box.path(f"{box.bundle}/rootfs/go").touch()
    assert rest(reading) == b"last words\n"
    box.path(f"{box.bundle}/rootfs/go").unlink()
