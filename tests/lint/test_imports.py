"""What a start of a container may import: each module on the list is paid for by every `minirun run`.

The times are in docs/decisions/0008-no-argparse-no-json-on-the-hot-path.md. A count does not depend on how busy the
machine is, so it can be a test where a time cannot.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.fakehost import REPOSITORY
from tests.lifecycle.machine import Machine
from tests.network.plugin import Plugin

# Python's own: what `python -IS` has loaded before the first line of ours, and what costs next to nothing.
START = """
    __main__ _abc _codecs _collections_abc _frozen_importlib _frozen_importlib_external _imp _io _signal _stat _thread
    _warnings _weakref abc builtins codecs encodings encodings.aliases encodings.utf_8 genericpath io marshal os os.path
    posix posixpath stat sys time zipimport
"""
CHEAP = """
    __future__ _cffi_backend _json _sha256 _sha2 _socket _struct binascii errno fcntl select
"""
NEVER = """
    re json argparse socket subprocess pathlib dataclasses pyroute2 typing enum functools contextlib hashlib tempfile
    logging shutil collections ctypes cffi asyncio threading inspect warnings struct shlex string random uuid datetime
    prctl signal ipaddress urllib http ssl tarfile zipfile
"""
COMMANDS = {
    "run": ["run", "--rm", "--net", "none", "busybox", "true"],
    "run with a network and a port": ["run", "--rm", "--net", "br0", "-p", "8080:80", "busybox", "true"],
}

RUNNER = """
import os, sys
output, launcher, paths = sys.argv[1], sys.argv[2], sys.argv[3].split(":")
sys.argv[:] = [launcher, *sys.argv[4:]]
sys.path += paths
leave = os._exit
def note(code):
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(descriptor, "\\n".join(sys.modules).encode())
    leave(code)
os._exit = note
from minirun.cli.{entry} import main
main()
"""


def imported(host: Machine, tmp_path: Path, *arguments: str) -> set[str]:
    """The modules that a command has loaded when it ends, in the Python that our launcher starts."""
    runner, output = tmp_path / "runner.py", tmp_path / "modules"
    runner.write_text(RUNNER.replace("{entry}", "main"))
    packages = [str(REPOSITORY), *(path for path in sys.path if path.endswith("-packages"))]
    words = [str(runner), str(output), str(REPOSITORY / ".venv/bin/minirun"), ":".join(packages), *arguments]
    host.run([sys.executable, "-IS", *words])
    return set(output.read_text().split())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_start_imports_nothing_heavy(host: Machine, tmp_path: Path, command: str) -> None:
    host.minirun(*COMMANDS[command])  # the first one makes the network and compiles the seccomp filter
    modules = imported(host, tmp_path, *COMMANDS[command])
    foreign = {name for name in modules if name.split(".")[0] != "minirun"}
    assert not foreign & set(NEVER.split())
    assert foreign <= {*START.split(), *CHEAP.split()}


def test_ps_and_version_are_as_light(host: Machine, tmp_path: Path) -> None:
    for command in (["ps", "-q"], ["version"]):
        foreign = {name for name in imported(host, tmp_path, *command) if name.split(".")[0] != "minirun"}
        assert not foreign & {*NEVER.split()}, command


def test_the_budget_of_our_own_modules(host: Machine, tmp_path: Path) -> None:
    """How many modules of ours a start loads: each costs 0.1 to 0.4 ms. Raise the number only with a measurement.

    One of them, network.claim, is loaded for ``-p`` alone.
    """
    command = COMMANDS["run with a network and a port"]
    host.minirun(*command)
    ours = {name for name in imported(host, tmp_path, *command) if name.split(".")[0] == "minirun"}
    assert len(ours) <= 61, json.dumps(sorted(ours), indent=1)
    assert not ours & {"minirun.linux.seccomp_compiler", "minirun.runtime.explain", "minirun.image.writer"}


@pytest.mark.parametrize(("command", "budget"), [("ADD", 46), ("DEL", 39)])
def test_the_cni_plugin_is_as_light(host: Machine, tmp_path: Path, command: str, budget: int) -> None:
    """A runtime starts it twice for each container; network.claim is loaded for published ports alone."""
    plugin, runner, output = Plugin(host), tmp_path / "runner.py", tmp_path / "modules"
    plugin.namespace("one")
    plugin.add("one")
    if command == "ADD":
        plugin.delete("one")
    runner.write_text(RUNNER.replace("{entry}", "cni"))
    packages = ":".join([str(REPOSITORY), *(path for path in sys.path if path.endswith("-packages"))])
    words = plugin.words(command, "one", "eth0", "/run/netns/one")
    host.run(
        [*words[:-1], sys.executable, "-IS", str(runner), str(output), words[-1], packages], stdin=plugin.document()
    )
    plugin.delete("one")
    host.run(["ip", "netns", "del", "one"])
    modules = set(output.read_text().split())
    foreign = {name for name in modules if name.split(".")[0] != "minirun"}
    assert foreign <= {*START.split(), *CHEAP.split()}
    assert len(modules - foreign) <= budget, json.dumps(sorted(modules - foreign), indent=1)
