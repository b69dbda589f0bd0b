"""kill -9 of the CNI plugin at every call that changes something: whoever comes next finds nothing left.

Its runtime heard no answer. It may call DEL, ADD again, or GC; it may have died, too, and then any command of minirun
cleans up. strace(1) makes the moments exact, as in tests/lifecycle/test_crash.py.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakehost import FakeHost
from tests.network.plugin import Plugin

CHANGING = "mkdir|rename|linkat|unlink|write|sendmsg|sendto|flock|setns|openat|vfork|clone|clone3|setsockopt|ftruncate"
NEW = 'rm -r "$@"; nft flush ruleset; ip link del pods; sysctl -qw net.ipv4.ip_forward=0'  # a host without a network
PUBLISHED: dict[str, Any] = {"runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}}


def again(plugin: Plugin) -> None:
    """ADD for the same container; a runtime calls DEL first if the first one may have come to its end."""
    plugin.delete("one")
    plugin.check("one", plugin.add("one", **PUBLISHED))
    plugin.delete("one")


def other(plugin: Plugin) -> None:
    """ADD of another container, which wants the same port."""
    plugin.namespace("two")
    plugin.collect()
    plugin.add("two", **PUBLISHED)
    plugin.delete("two")
    plugin.host.run(["ip", "netns", "del", "two"])


def command(plugin: Plugin) -> None:
    """Any command of minirun; the lock is what tells it."""
    locked = list(plugin.host.path(f"{plugin.host.state}/cni/locks").glob("*"))
    plugin.host.minirun("ps")
    if not locked:  # killed after its last change, or before the first
        plugin.delete("one")


FOLLOWERS: list[Callable[[Plugin], None]] = [
    lambda plugin: plugin.delete("one"),
    again,
    command,
    lambda plugin: plugin.collect(),
    other,
]


def traced(plugin: Plugin, what: str, *options: str) -> int:
    keys = PUBLISHED if what == "ADD" else {}
    words = plugin.words(what, "one", "eth0", "/run/netns/one")
    words = [*words[:-1], "strace", *options, words[-1]]
    return plugin.host.run(words, check=False, stdin=plugin.document(**keys)).returncode


def calls(plugin: Plugin, what: str) -> list[str]:
    """The changing calls that an ADD or a DEL makes, in their order; reading the program's own modules is none."""
    traced(plugin, what, f"--trace=/^({CHANGING})$", "--output=/run/trace")
    lines = plugin.host.path("/run/trace").read_text().splitlines()
    return [found[1] for line in lines if (found := re.match(r"(\w+)\(", line))]


@pytest.mark.parametrize(("what", "fresh"), [("ADD", True), ("ADD", False), ("DEL", False)])
def test_the_plugin_is_killed(host: FakeHost, what: str, fresh: bool) -> None:
    """``fresh``: the network has to be made, too."""
    plugin = Plugin(host)
    plugin.namespace("one")
    plugin.add("one", **PUBLISHED)
    if what == "ADD":
        plugin.delete("one")
    if fresh:
        host.run(["sh", "-c", NEW, "sh", host.state, host.root])
    names = calls(plugin, what)
    plugin.delete("one")
    assert len(names) > 20, names
    positions = [n for n, name in enumerate(names) if name != "openat" or n % 4 == 0]  # most of these only read
    for position in positions[:: 3 if fresh else 2]:
        name = names[position]
        if what == "DEL":
            plugin.add("one", **PUBLISHED)
        elif fresh:
            host.run(["sh", "-c", NEW, "sh", host.state, host.root])
        number = names[: position + 1].count(name)
        code = traced(
            plugin, what, f"--inject={name}:signal=KILL:when={number}", f"--trace={name}", "--output=/dev/null"
        )
        assert code == -signal.SIGKILL, f"there is no {name} number {number} in {what}: {code}"
        FOLLOWERS[position % len(FOLLOWERS)](plugin)
        assert plugin.left() == [], f"{what}, killed at call {position}, {name} number {number}"
