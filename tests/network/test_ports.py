"""What -p means, and which ports are free."""

from __future__ import annotations

import os
import random
import socket
import sys

import pytest

from minirun.errors import UsageError
from minirun.network import holders, ports
from tests.fakehost import FakeHost
from tests.network.containers import Attached, Serve, at_once, identity

# Says what is published, each as the container's record has it, or why not. The lock ends with the process.
CLAIM = """
import random
import sys
from minirun.errors import MinirunError
from minirun.network import claim, ports
try:
    for port in claim.claim([port for text in sys.argv[1:] for port in ports.parse(text)], (32,)):
        print(port)
except MinirunError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", [":80/tcp"]),
        ("80/udp", [":80/udp"]),
        (":80", [":80/tcp"]),
        ("0:80", [":80/tcp"]),
        ("8080:80", ["8080:80/tcp"]),
        ("8080:80/TCP", ["8080:80/tcp"]),
        ("0.0.0.0:8080:80", ["0.0.0.0:8080:80/tcp"]),
        ("127.0.0.1:8080:80/udp", ["127.0.0.1:8080:80/udp"]),
        ("127.0.0.1::80", ["127.0.0.1::80/tcp"]),
        ("[::1]:8080:80", ["[::1]:8080:80/tcp"]),
        ("::1:8080:80", ["[::1]:8080:80/tcp"]),
        ("[fd00:0::1]:8080:80", ["[fd00::1]:8080:80/tcp"]),
        ("[::]::80", ["[::]::80/tcp"]),
        ("[::ffff:192.0.2.1]:8080:80", ["192.0.2.1:8080:80/tcp"]),
        ("5000:5000/sctp", ["5000:5000/sctp"]),
        ("8080-8082:80-82", ["8080:80/tcp", "8081:81/tcp", "8082:82/tcp"]),
        ("8000-8010:8000-8010", ["8000-8010:8000-8010/tcp"]),
        ("10000-20000:10000-20000/udp", ["10000-20000:10000-20000/udp"]),
        ("127.0.0.1:1-65535:1-65535", ["127.0.0.1:1-65535:1-65535/tcp"]),
        ("8000-8010:80", ["8000-8010:80/tcp"]),
        ("8000-8000:80", ["8000:80/tcp"]),
        ("80-81", [":80/tcp", ":81/tcp"]),
    ],
)
def test_parse(text: str, expected: list[str]) -> None:
    assert [str(port) for port in ports.parse(text)] == expected


@pytest.mark.parametrize("text", ["8080:80", "[::1]:8080:80/udp", "8000-8010:8000-8010"])
def test_a_record_gives_the_port_back(text: str) -> None:
    for port in ports.parse(text):
        assert str(ports.Port.from_record(port.record())) == str(port)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "'' is not a port"),
        ("a:80", "'a' is not a port"),
        ("80:", "'' is not a port"),
        ("0", "'0' is not within"),
        ("80:0", "'0' is not within"),
        ("65536:80", "'65536' is not within"),
        ("8080:80/icmp", "unknown protocol 'icmp'"),
        ("8080:80/", "unknown protocol ''"),
        ("8080:80/tcp/udp", "unknown protocol 'tcp/udp'"),
        ("1.2.3:80:80", "'1.2.3' is not an address"),
        ("01.2.3.4:80:80", "'01.2.3.4' is not an address"),
        ("[1.2.3.4]:80:80", "'[1.2.3.4]' is not an address"),
        ("300.1.1.1:80:80", "is not an address"),
        ("[fe80::1%eth0]:80:80", "is not an address"),
        ("[::1:80:80", "'[::1' is not an address"),
        ("localhost:80:80", "'localhost' is not an address"),
        ("127.0.0.1:80", "'127.0.0.1' is not a port"),
        (":::80", "':' is not an address"),
        ("80-82:80-81", "3 ports of the host for 2"),
        ("80:80-81", "1 port of the host for 2"),
        ("82-80:82-80", "'82-80' runs backwards"),
        ("1-2000:2-2001", "more than 1024 ports that do not keep their number"),
        ("1-2000", "more than 1024 ports that do not keep their number"),
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


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("8080:80", "8080:81", True),
        ("8080:80", "127.0.0.1:8080:80", True),
        ("8080:80", "[::1]:8080:80", True),
        ("0.0.0.0:8080:80", "[::]:8080:80", False),
        ("[::]:8080:80", "[fd00::1]:8080:80", True),
        ("127.0.0.1:8080:80", "192.0.2.1:8080:80", False),
        ("8080:80", "8080:80/udp", False),
        ("8000-8010:8000-8010", "8010-8020:8010-8020", True),
        ("8000-8010:8000-8010", "8011:80", False),
        ("127.0.0.1:8000-8010:8000-8010", "8005:80", True),
    ],
)
def test_which_ports_are_in_each_others_way(one: str, other: str, expected: bool) -> None:
    (first,), (second,) = ports.parse(one), ports.parse(other)
    assert first.overlaps(second) is second.overlaps(first) is expected


def test_a_range_is_one_element_and_a_shifted_one_single_ports() -> None:
    (block,) = ports.parse("0.0.0.0:10000-20000:10000-20000")
    assert block.elements(["10.0.0.2", "fd00::2"]) == [
        ["pub4_range", ["0.0.0.0/0", "tcp", "10000-20000"], ["10.0.0.2"]]
    ]
    (block,) = ports.parse("[fd00::1]:80-90:80-90/udp")
    assert block.elements(["10.0.0.2", "fd00::2"]) == [["pub6_range", ["fd00::1", "udp", "80-90"], ["fd00::2"]]]
    shifted = [port.elements(["10.0.0.2"]) for port in ports.parse("127.0.0.1:81-82:91-92")]
    assert shifted == [
        [["pub4", ["127.0.0.1", "tcp", "81"], ["10.0.0.2", "91"]]],
        [["pub4", ["127.0.0.1", "tcp", "82"], ["10.0.0.2", "92"]]],
    ]


def test_publish_all_leaves_what_is_published_already() -> None:
    asked = ports.parse("8080:80") + ports.parse("90-99:90-99")
    every = ports.publish_all(asked, ["80/tcp", "80/udp", "95/tcp", "100/tcp"])
    assert [str(port) for port in every[2:]] == [":80/udp", ":100/tcp"]
    assert ports.exposed("8000-8002/udp") == ["8000/udp", "8001/udp", "8002/udp"]
    for bad in ("", "a", "80/icmp", "0", "80:80", "1-2000"):
        with pytest.raises(UsageError, match=r"^--expose"):
            ports.exposed(bad)


@pytest.mark.parametrize("second", ["8080:81", "127.0.0.1:8080:80", "8000-8100:8000-8100"])
def test_one_command_cannot_publish_a_port_twice(host: FakeHost, second: str) -> None:
    assert "-p 0.0.0.0:8080:80/tcp of the same command has the port" in host.python(CLAIM, "8080:80", second)


@pytest.mark.parametrize(("kind", "suffix"), [("tcp", ""), ("udp", "/udp")])
@pytest.mark.parametrize("listening", ["0.0.0.0", "127.0.0.1", "::"])
def test_a_program_of_the_host_keeps_its_port(host: FakeHost, kind: str, suffix: str, listening: str) -> None:
    code = """
import socket, sys
address = sys.argv[2]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
server = socket.socket(family, socket.SOCK_STREAM if sys.argv[1] == "tcp" else socket.SOCK_DGRAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((address, 8080))
if sys.argv[1] == "tcp":
    server.listen()
print("ready", flush=True)
sys.stdin.read()
"""
    with host.popen([sys.executable, "-c", code, kind, listening], stdin=-1) as server:
        assert server.stdout and server.stdout.readline() == "ready\n"
        for text in ("8080:80", "127.0.0.1:8080:80", "8000-8100:8000-8100"):
            said = host.python(CLAIM, text + suffix)
            assert "python" in said and f"(pid {server.pid}) uses the port" in said, said
            assert "see: ss -lnp 'sport = 8080'" in said
        only = host.python(CLAIM, f"{host.address}:8080:80{suffix}")
        assert ("uses the port" in only) is (listening != "127.0.0.1")
        assert "uses" not in host.python(CLAIM, "8080:80" if suffix else "8080:80/udp", "8081:80")
        server.communicate()


@pytest.mark.parametrize(("address", "expected"), [("0.0.0.0", True), ("127.0.0.1", True), ("192.0.2.9", False)])
def test_who_uses_a_port_of_sctp(monkeypatch: pytest.MonkeyPatch, address: str, expected: bool) -> None:
    """As net/sctp/proc.c of the kernel writes it; not every kernel has SCTP."""
    with socket.socket() as held:
        inode = os.fstat(held.fileno()).st_ino
        text = " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n"
        text += f"ffff8880 ffff8881 2   10  16   5000      0 {inode:5} *127.0.0.1 {'0000:' * 7}0001 \n"
        read = holders.store.read
        monkeypatch.setattr(holders.store, "read", lambda path: text if path == "/proc/net/sctp/eps" else read(path))
        assert (f"(pid {os.getpid()})" in holders.of("sctp", address, 5000)) is expected
        assert holders.of("sctp", address, 5001) == ""


def test_ports_for_which_nobody_will_listen_are_free_again(host: FakeHost) -> None:
    code = """
from minirun.network import claim, ports
for _ in range(2):
    claim.claim(ports.parse("[::1]:8080:80"), (32, 128))
    print(len(claim.listeners))
    claim.close()
    claim.release()
claim.claim(ports.parse("[::1]:8080:80"), (32, 128))
claim._listen = None  # it fails
try:
    claim.claim(ports.parse("[::1]:8081:80") + ports.parse("[::1]:8082:80"), (32, 128))
except TypeError:
    print(len(claim.listeners))
"""
    assert host.python(code).split() == ["1", "1", "0"]


def test_an_address_of_another_machine_is_refused(host: FakeHost) -> None:
    assert host.python(CLAIM, "203.0.113.9:80:80") == (
        "-p 203.0.113.9:80:80/tcp: this machine has no address 203.0.113.9; see: ip addr\n"
    )


def test_a_network_without_ipv6_publishes_none(host: FakeHost) -> None:
    said = host.python(CLAIM, "[::]:8080:80")
    assert said == "-p [::]:8080:80/tcp: the network has no IPv6; minirun network create NAME --ipv6\n"


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
    assert host.python(CLAIM, "8080:80") == "0.0.0.0:8080:80/tcp\n"


def test_any_port_is_one_that_is_free(host: FakeHost, serve: Serve) -> None:
    host.sysctl("net.ipv4.ip_local_port_range", "40000 40003")
    serve(host, 40001)
    Attached(host, "web", "br0", "40002:80")
    said = host.python(CLAIM, "80", "127.0.0.1:40003:80")
    assert said == "127.0.0.1:40003:80/tcp\n0.0.0.0:40000:80/tcp\n"
    assert "no port is free" in host.python(CLAIM, "80", "81", "82")


def test_one_of_a_range_is_the_first_that_is_free(host: FakeHost, serve: Serve) -> None:
    serve(host, 8000)
    Attached(host, "web", "br0", "8001-8002:8001-8002")
    assert host.python(CLAIM, "8000-8004:80", "8000-8004:80") == "0.0.0.0:8003:80/tcp\n0.0.0.0:8004:80/tcp\n"
    assert "-p 8000-8003:80/tcp: no port is free" in host.python(CLAIM, "8000-8003:80", "8000-8003:80")


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        ("8080:80", "8080:81", True),
        ("8080:80", "127.0.0.1:8080:80", True),
        ("127.0.0.1:8080:80", "8080:80", True),
        ("127.0.0.1:8080:80", "198.51.100.2:8080:80", False),
        ("8080:80", "8080:80/udp", False),
        ("8080:80", "8081:80", False),
        ("8080:80", "8000-8100:8000-8100", True),
        ("127.0.0.1:8080:80", "8000-8100:8000-8100", True),
        ("127.0.0.1:8080:80", "198.51.100.2:8000-8100:8000-8100", False),
        ("8000-8100:8000-8100", "8080:80", True),
        ("8000-8100:8000-8100", "127.0.0.1:8080:80", True),
        ("127.0.0.1:8000-8100:8000-8100", "8080:80", True),
        ("127.0.0.1:8000-8100:8000-8100", "198.51.100.2:8080:80", False),
        ("8000-8100:8000-8100", "8100-8200:8100-8200", True),
        ("8000-8100:8000-8100", "127.0.0.1:7000-9000:7000-9000", True),
        ("127.0.0.1:8050-8060:8050-8060", "8000-8100:8000-8100", True),
        ("8000-8100:8000-8100", "8101-8200:8101-8200", False),
        ("8000-8100:8000-8100", "8000-8100:8000-8100/udp", False),
    ],
)
def test_a_port_has_one_container(host: FakeHost, first: str, second: str, refused: bool) -> None:
    Attached(host, "web", "br0", first)
    said = host.python(CLAIM, second)
    assert (f"container web {identity('web')[:12]} publishes this port already" in said) is refused, said
    if not refused:
        Attached(host, "late", "br0", second)


def test_of_many_starts_at_once_one_gets_the_port(host: FakeHost) -> None:
    """By their own kind and across the sets: one address, all addresses, a range."""
    code = """
import random
import sys
from minirun import step
from minirun.errors import Conflict
from minirun.network import attach, bridge, claim, endpoint, ipam, ports
network = bridge.ensure()
try:
    published = claim.claim(ports.parse(sys.argv[2]), (32,))
except Conflict as error:
    print("refused", error)
    sys.exit()
plug = endpoint.decide(network, sys.argv[1], 0, [ipam.allocate(network, sys.argv[1], [])])
step.do_all(attach.attach_steps(sys.argv[1], sys.argv[1][:8], [plug], published))
print("got", *published)
"""
    Attached(host, "first", "br0")
    kinds = ["8080:80", "127.0.0.1:8080:80", "8000-8100:8000-8100"] * 3
    said = at_once(host, code, [(identity(str(number)), kind) for number, kind in enumerate(kinds)])
    assert sorted(line.split()[0] for line in said) == ["got"] + ["refused"] * 8, said
    # Those that may have any never collide.
    host.sysctl("net.ipv4.ip_local_port_range", "40000 40007")
    said = at_once(host, code, [(identity(f"any{number}"), "80") for number in range(8)])
    assert len(set(said)) == 8 and all(line.startswith("got 0.0.0.0:4000") for line in said), said


def test_any_text_is_a_port_or_refused_in_one_line() -> None:
    """What is understood says itself so that it is understood the same again."""
    letters = random.Random(7)
    for _ in range(20_000):
        text = "".join(letters.choices("0123456789:::--[].//abcdtup%", k=letters.randrange(24)))
        try:
            found = ports.parse(text)
        except UsageError as error:
            assert str(error).startswith(f"-p {text}: ")
            continue
        for port in found:
            assert str(ports.parse(str(port))[0]) == str(port), text
