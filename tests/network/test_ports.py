"""What -p means, and which ports are free."""

from __future__ import annotations

import sys

import pytest

from minirun.errors import Conflict, UsageError
from minirun.network import ports
from tests.fakehost import FakeHost
from tests.network.containers import Serve

CHECK = """
import sys
from minirun.errors import Conflict
from minirun.network import ports
try:
    ports.check([port for text in sys.argv[1:] for port in ports.parse(text)])
except Conflict as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:80", ["0.0.0.0:8080:80/tcp"]),
        ("0.0.0.0:8080:80", ["0.0.0.0:8080:80/tcp"]),
        ("127.0.0.1:8080:80/udp", ["127.0.0.1:8080:80/udp"]),
        ("5000:5000/sctp", ["0.0.0.0:5000:5000/sctp"]),
        ("8080-8082:80-82", ["0.0.0.0:8080:80/tcp", "0.0.0.0:8081:81/tcp", "0.0.0.0:8082:82/tcp"]),
    ],
)
def test_parse(text: str, expected: list[str]) -> None:
    assert [str(port) for port in ports.parse(text)] == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("80", "the host's port is missing"),
        ("", "the host's port is missing"),
        ("a:80", "'a' is not a port"),
        ("80:", "'' is not a port"),
        (":80", "'' is not a port"),
        ("0:80", "'0' is not within"),
        ("65536:80", "'65536' is not within"),
        ("8080:80/icmp", "unknown protocol 'icmp'"),
        ("8080:80/", "unknown protocol ''"),
        ("1.2.3:80:80", "'1.2.3' is not an IPv4 address"),
        ("[::1]:80:80", "is not an IPv4 address"),
        ("300.1.1.1:80:80", "is not an IPv4 address"),
        ("80-82:80-81", "3 ports of the host for 2"),
        ("82-80:82-80", "'82-80' runs backwards"),
        ("1-2000:1-2000", "more than 1024 ports"),
        ("-80:80", "'-80' is not a port"),
        ("٣:80", "is not a port"),
    ],
)
def test_bad_input_names_the_flag(text: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        ports.parse(text)
    assert str(caught.value).startswith(f"-p {text}: ")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_command_cannot_publish_a_port_twice() -> None:
    for first, second in (("8080:80", "8080:81"), ("8080:80", "127.0.0.1:8080:80")):
        with pytest.raises(Conflict, match="is the same port of the host"):
            ports.check(ports.parse(first) + ports.parse(second))


@pytest.mark.parametrize(("kind", "suffix"), [("tcp", ""), ("udp", "/udp")])
def test_a_program_of_the_host_keeps_its_port(host: FakeHost, serve: Serve, kind: str, suffix: str) -> None:
    serve(host, 8080, kind)
    for address in ("", "127.0.0.1:", f"{host.address}:"):
        said = host.python(CHECK, f"{address}8080:80{suffix}")
        assert "a program of this machine uses the port; see: ss -ln 'sport = 8080'" in said
    assert host.python(CHECK, "8080:80" if suffix else "8080:80/udp", "8081:80") == ""


def test_an_address_of_another_machine_is_refused(host: FakeHost) -> None:
    assert host.python(CHECK, "203.0.113.9:80:80") == (
        "-p 203.0.113.9:80:80/tcp: this machine has no address 203.0.113.9\n"
    )


def test_connections_that_ended_lately_do_not_keep_a_port(host: FakeHost) -> None:
    code = """
import socket
server = socket.create_server(("127.0.0.1", 8080))
client = socket.create_connection(("127.0.0.1", 8080))
peer, _ = server.accept()
peer.close()  # this side closes first and keeps TIME_WAIT on port 8080
assert client.recv(1) == b""
client.close()
server.close()
"""
    host.run([sys.executable, "-c", code])
    assert "TIME-WAIT" in host.run(["ss", "-tan"]).stdout
    assert host.python(CHECK, "8080:80") == ""
