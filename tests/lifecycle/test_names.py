"""Real containers find each other by name, with the libraries that images have; what they know of names is right."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lifecycle.machine import Machine


@pytest.fixture
def networked(host: Machine) -> Iterator[Machine]:
    """A host on which ``web`` runs, alias www, and which itself knows a search domain and no resolver."""
    host.path("/run/resolv.conf").write_text("search corp.example\noptions timeout:1\n")
    host.run(["mount", "--bind", "/run/resolv.conf", "/etc/resolv.conf"])
    host.out("run", "-d", "--name", "web", "--network-alias", "www", "alpine", "sleep", "1000")
    yield host
    host.sweep()


def run(host: Machine, image: str, script: str, *options: str) -> str:
    return host.out("run", "--rm", *options, image, "sh", "-c", script)


def address(host: Machine, name: str) -> str:
    return str(host.inspect(name)["NetworkSettings"]["Networks"]["br0"]["IPAddress"])


@pytest.mark.parametrize("name", ["web", "www", "web.br0", "web.minirun.internal"])
def test_musl_finds_a_sibling_though_no_resolver_is_there(networked: Machine, name: str) -> None:
    """With a search domain, which nobody answers for, tried before the plain name."""
    assert run(networked, "alpine", f"getent hosts {name}").split()[0] == address(networked, "web")


def test_short_ids_and_reverse_names(networked: Machine) -> None:
    web, short = address(networked, "web"), networked.inspect("web")["Id"][:12]
    assert run(networked, "alpine", f"getent hosts {short}").split()[0] == web
    assert f"{'.'.join(reversed(web.split('.')))}.in-addr.arpa\tname = web\n" in run(
        networked, "alpine", f"nslookup {web} 10.201.0.1"
    )
    assert run(networked, "alpine", "getent hosts nobody || echo unknown") == "unknown"


def test_a_container_finds_itself_and_whoever_comes_later(networked: Machine) -> None:
    assert run(networked, "alpine", "getent hosts me", "--name", "me").startswith("10.201.0.")
    networked.out("run", "-d", "--name", "late", "alpine", "sleep", "1000")
    assert networked.out("exec", "web", "getent", "hosts", "late").startswith(address(networked, "late"))


def test_what_a_container_knows_of_names(networked: Machine) -> None:
    shown = run(networked, "busybox", "cat /etc/resolv.conf; netstat -ln | grep -c LISTEN; true")
    assert shown == "nameserver 10.201.0.1\nsearch minirun.internal corp.example\noptions timeout:1\n0"
    own = run(networked, "busybox", "cat /etc/hosts", "--hostname", "box", "--name", "me")
    assert own.split("\n")[0] == "127.0.0.1\tlocalhost"
    assert own.endswith("\tbox me") and "\n10.201.0." in own
    alone = run(networked, "busybox", "cat /etc/resolv.conf /etc/hosts", "--net", "none", "--hostname", "box")
    assert alone.startswith("127.0.0.1\tlocalhost\n127.0.0.1\tbox ")
    networked.minirun("network", "create", "--internal", "dark")
    dark = run(networked, "busybox", "cat /etc/resolv.conf", "--net", "dark")
    assert dark.startswith("nameserver ") and "search" not in dark


def test_any_command_brings_a_killed_name_server_back(networked: Machine) -> None:
    (pid,) = set(networked.processes(every=True)) - set(networked.processes())
    networked._end(pid)
    networked.out("ps", "-q")
    assert networked.out("exec", "web", "getent", "hosts", "www").startswith(address(networked, "web"))
