"""Attaching and taking apart: what the steps say is what they do, and undo takes only what is theirs."""

from __future__ import annotations

import json
import re
import sys

from tests.fakehost import FakeHost
from tests.network.containers import ATTACH, Attached, at_once, identity

PLAN = """
import json, sys
from minirun.network import attach, bridge, endpoint, ports
identity, function = sys.argv[1:]
if function == "isolated":
    steps = attach.isolated_steps(identity, "web")
else:
    network, steps = bridge.decide("br0")
    published = ports.parse("0.0.0.0:8080:80") + ports.parse("127.0.0.1:53:53/udp")
    steps += attach.attach_steps(identity, "web", [endpoint.decide(network, identity, 0, ["10.201.0.2"])], published)
print(json.dumps([[s.record(), s.sh()] for s in steps]))
"""
# The kernel removes the cable some time after its namespace: the next one of that name must not mind.
AGAIN = """
import sys
from minirun import step
from minirun.network import attach, bridge, endpoint
plug = endpoint.decide(bridge.ensure(), sys.argv[1], 0, ["10.201.0.2"])
steps = attach.attach_steps(sys.argv[1], "web", [plug], [])
for _ in range(5):
    step.do_all(steps)
    assert not step.undo_all(steps)
step.do_all(steps)
print("done")
"""
PLAN_AND_DO = """
import sys
from minirun import step
from minirun.network import attach
step.do_all(attach.isolated_steps(*sys.argv[1:]))
"""
DO = """
import json, sys
from minirun import step
from minirun.network import attach, bridge
getattr(step, sys.argv[2])([step.load(record) for record in json.loads(sys.argv[1])])
"""
# An echo request on a datagram socket; prints the type of what comes back: 0, echo reply.
PING = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as client:
    client.settimeout(5)
    client.sendto(bytes([8, 0, 0, 0, 0, 0, 0, 1]), (sys.argv[1], 0))
    print(client.recv(100)[:1].hex())
"""
SETTINGS = (
    "net.ipv4.ip_forward net.ipv4.conf.br0.route_localnet net.ipv6.conf.br0.disable_ipv6 net.ipv6.conf.br0.accept_ra"
)
INSIDE = (
    "net.ipv4.conf.lo.tag net.ipv4.ping_group_range net.ipv6.conf.eth0.disable_ipv6 net.ipv6.conf.default.disable_ipv6"
)


def kernel_state(host: FakeHost, inside: str = INSIDE, settings: str = SETTINGS) -> dict[str, str]:
    """All that the steps change, without what the kernel chooses by chance: indexes and the MAC of the host's end."""
    veth = f"mr{identity('web')[:12]}"
    commands = {
        "links": "ip -d link; bridge -d link",
        "addresses": "ip address",
        "routes": "ip route show table all",
        "settings": f"sysctl -e {settings} net.ipv6.conf.{veth}.disable_ipv6",
        "inside": "ip -n web -d link; ip -n web address; ip -n web route show table all",
        "settings inside": f"nsenter --net=/run/netns/web sysctl -e {inside}",
        "nft": "nft list ruleset",
        "leases": f"grep -r . {host.state}/networks/br0/leases",
        "network": f"sed 's/created[^,]*//' {host.root}/networks/br0/network.json",
    }
    shown = {name: host.run(["sh", "-c", f"{command} 2>&1"], check=False).stdout for name, command in commands.items()}
    return {name: _without_chance(text) for name, text in shown.items()}


def _without_chance(text: str) -> str:
    text = re.sub(r"(?m)^\d+: ", "", text)
    text = re.sub(r"@if\d+|link-netnsid \d+|(hello|tcn|topology_change|gc)_timer +\S+|hold_timer +\S+", "", text)
    text = re.sub(r"(forward_delay|message_age)_timer +\S+", "", text)
    return re.sub(r"(mr[0-9a-f]{12}.*\n +link/ether) \S+", r"\1", text)


def plan(host: FakeHost, kind: str = "attach") -> list[tuple[list[object], str]]:
    return [(record, text) for record, text in json.loads(host.python(PLAN, identity("web"), kind))]


def apply(host: FakeHost, steps: list[tuple[list[object], str]], function: str = "do_all") -> None:
    host.python(DO, json.dumps([record for record, _ in steps]), function)
    host.settle()


def test_the_shell_commands_make_the_same_kernel_state(host: FakeHost) -> None:
    host.wait_until("! ip -6 address show tentative | grep -q inet6")  # the host's own addresses are looked for twice
    empty = kernel_state(host)
    steps = plan(host)
    apply(host, steps)
    done = kernel_state(host)
    assert done != empty
    apply(host, steps, "undo_all")
    host.sysctl("net.ipv4.ip_forward", "0")
    gone = kernel_state(host)
    assert gone["nft"] == empty["nft"]
    assert gone["leases"] == empty["leases"]
    host.run(["sh", "-e"], stdin="\n".join(text for _, text in steps))
    typed = kernel_state(host)
    for name, text in done.items():
        assert typed[name] == text, name
    apply(host, steps, "undo_all")
    host.sysctl("net.ipv4.ip_forward", "0")
    assert kernel_state(host) == gone


def test_net_none_has_lo_and_nothing_else(host: FakeHost) -> None:
    host.wait_until("! ip -6 address show tentative | grep -q inet6")  # the host's own addresses are looked for twice
    steps = plan(host, "isolated")
    apply(host, steps)
    links = json.loads(host.run(["ip", "-j", "-n", "web", "address"]).stdout)
    assert [(link["ifname"], "UP" in link["flags"]) for link in links if "UP" in link["flags"]] == [("lo", True)]
    done = kernel_state(host)
    apply(host, steps, "undo_all")
    host.run(["sh", "-e"], stdin="\n".join(text for _, text in steps))
    assert kernel_state(host) == done


def test_ip_netns_knows_the_container(host: FakeHost) -> None:
    web = Attached(host, "web", "br0")
    assert host.run(["ip", "netns", "list"]).stdout.split()[0] == "web"
    assert f"inet {web.address}/20" in host.run(["ip", "netns", "exec", "web", "ip", "address"]).stdout
    assert f"alias web {web.id[:12]}" in host.run(["ip", "link", "show", f"mr{web.id[:12]}"]).stdout


def test_ip_netns_add_of_somebody_else_is_no_obstacle(host: FakeHost) -> None:
    web = Attached(host, "web", "br0")
    host.run(["ip", "netns", "add", "foreign"])
    web.undo()
    assert host.run(["ip", "netns", "list"]).stdout == "foreign\n"


def test_many_first_namespaces_at_once_share_one_mount(host: FakeHost) -> None:
    crowd = [[identity(f"c{number}"), f"c{number}"] for number in range(8)]
    assert at_once(host, PLAN_AND_DO, crowd) == [""] * 8
    assert host.run(["grep", "-c", " /run/netns ", "/proc/self/mountinfo"]).stdout == "1\n"


def test_no_end_of_the_cable_speaks_ipv6(host: FakeHost) -> None:
    web = Attached(host, "web", "br0")
    assert "inet6" not in host.run(["ip", "address", "show", "master", "br0"]).stdout
    assert "inet6" not in web.run("ip", "address").stdout


def test_undo_of_what_was_never_done_and_undo_twice(host: FakeHost) -> None:
    host.wait_until("! ip -6 address show tentative | grep -q inet6")  # the host's own addresses are looked for twice
    steps = plan(host)
    before = kernel_state(host)
    apply(host, steps, "undo_all")
    assert kernel_state(host) == before
    apply(host, steps)
    apply(host, steps, "undo_all")
    host.sysctl("net.ipv4.ip_forward", "0")
    gone = kernel_state(host)
    apply(host, steps, "undo_all")
    assert kernel_state(host) == gone


def test_each_prefix_of_a_plan_can_be_undone(host: FakeHost) -> None:
    steps = plan(host)
    for length in range(1, len(steps)):
        apply(host, steps[:length])
        apply(host, steps, "undo_all")
        left = host.run(["find", "/run/netns", host.root, f"{host.state}/networks", "-type", "f"], check=False).stdout
        assert left == "", steps[:length][-1]
        assert "br0" not in host.run(["ip", "link"]).stdout
        assert host.run(["nft", "list", "ruleset"]).stdout == ""


def test_a_foreign_namespace_of_that_name_is_refused_and_stays(host: FakeHost) -> None:
    host.run(["ip", "netns", "add", "web"])
    steps = plan(host, "isolated")
    code = DO.replace("getattr(step", "import minirun.errors\ntry:\n    getattr(step") + (
        "except minirun.errors.Conflict as error:\n    print(error)\n"
    )
    said = host.python(code, json.dumps([record for record, _ in steps]), "do_all")
    assert said.startswith("network namespace web: it exists already")
    apply(host, steps, "undo_all")
    assert host.run(["ip", "netns", "list"]).stdout == "web\n"


def test_undo_spares_a_namespace_that_took_over_the_name(host: FakeHost) -> None:
    old = Attached(host, "web", "br0")
    host.run(["ip", "netns", "del", "web"])
    host.run(["ip", "netns", "add", "web"])
    old.undo()
    assert host.run(["ip", "netns", "list"]).stdout == "web\n"


def test_a_death_between_the_file_and_its_mount_leaves_no_name(host: FakeHost) -> None:
    steps = plan(host, "isolated")
    host.run(["sh", "-c", "mkdir -p /run/netns && : > /run/netns/web"])
    apply(host, steps, "undo_all")
    assert not host.path("/run/netns/web").exists()


def test_the_same_container_starts_again_at_once(host: FakeHost) -> None:
    assert host.python(AGAIN, identity("web")) == "done\n"
    host.run(["ip", "netns", "exec", "web", "ping", "-c1", "-W5", "10.201.0.1"])


def test_whoever_holds_the_namespace_loses_the_address(host: FakeHost) -> None:
    web = Attached(host, "web", "br0")
    held = host.popen(["nsenter", "--net=/run/netns/web", "sh", "-c", "echo ready; read line; ip address"], stdin=-1)
    assert held.stdout and held.stdout.readline() == "ready\n"
    web.undo()
    assert web.address not in held.communicate("go\n", timeout=10)[0]


def test_a_container_without_net_raw_can_ping(host: FakeHost) -> None:
    web = Attached(host, "web", "br0")
    unprivileged = ("setpriv", "--reuid=1000", "--clear-groups", "--bounding-set=-all")
    assert web.run(*unprivileged, sys.executable, "-c", PING, "10.201.0.1").stdout == "00\n"


def test_a_full_bridge_says_so(host: FakeHost) -> None:
    host.python("from minirun.network import bridge; bridge.ensure()")
    cables = [f"link add a{number} master br0 type veth peer name b{number}" for number in range(1022)]
    host.run(["ip", "-batch", "-"], stdin="\n".join(cables))
    Attached(host, "last", "br0")
    done = host.run([sys.executable, "-c", ATTACH, identity("late"), "late", "br0", ""], check=False)
    assert "bridge br0: it has 1023 ports, as many as the kernel allows; use another network" in done.stderr
    assert not host.path("/run/netns/late").exists()
