"""Published ports as the engine's commands show them; which packets pass is tested in tests/network."""

from __future__ import annotations

import json

from tests.lifecycle.machine import Machine


def test_port_ps_and_inspect_tell_what_was_decided(host: Machine) -> None:
    host.sysctl("net.ipv4.ip_local_port_range", "40000 40000")
    asked = ["-p", "80", "-p", "127.0.0.1:53:53/udp", "-p", "9000-9001:9000-9001", "--expose", "443"]
    host.out("run", "-d", "--name", "web", *asked, "busybox", "sleep", "600")
    assert host.out("port", "web").split("\n") == [
        "53/udp -> 127.0.0.1:53",
        "9000/tcp -> 0.0.0.0:9000",
        "9001/tcp -> 0.0.0.0:9001",
        "80/tcp -> 0.0.0.0:40000",
    ]
    assert host.out("port", "web", "80") == "0.0.0.0:40000"
    assert host.out("port", "web", "53/udp") == "127.0.0.1:53"
    assert "port 53/tcp of web: it is not published" in host.refused("port", "web", "53")
    (row,) = map(json.loads, host.out("ps", "--format", "json").splitlines())
    assert row["Ports"] == ("127.0.0.1:53->53/udp, 0.0.0.0:9000-9001->9000-9001/tcp, 0.0.0.0:40000->80/tcp, 443/tcp")
    shown = host.inspect("web")
    ports = shown["NetworkSettings"]["Ports"]
    assert ports["9001/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": "9001"}]
    assert ports["443/tcp"] is None
    assert shown["Config"]["ExposedPorts"] == {"443/tcp": {}}
    host.out("stop", "-t", "0", "web")
    assert host.out("port", "web") == ""
    assert host.inspect("web")["NetworkSettings"]["Ports"] == {}
    assert host.inspect("web")["HostConfig"]["PortBindings"]["53/udp"] == [{"HostIp": "127.0.0.1", "HostPort": "53"}]


def test_publish_all_publishes_what_is_exposed(host: Machine) -> None:
    host.sysctl("net.ipv4.ip_local_port_range", "40000 40001")
    host.out("run", "-d", "--name", "web", "-P", "--expose", "80-82", "-p", "8081:81", "busybox", "sleep", "600")
    lines = sorted(host.out("port", "web").split("\n"))
    assert {line.split()[0] for line in lines} == {"80/tcp", "81/tcp", "82/tcp"}
    assert sorted(line.split()[2] for line in lines) == ["0.0.0.0:40000", "0.0.0.0:40001", "0.0.0.0:8081"]


def test_a_taken_port_is_refused_before_anything_starts(host: Machine) -> None:
    host.out("run", "-d", "--name", "web", "-p", "8080:80", "busybox", "sleep", "600")
    said = host.refused("run", "-d", "--name", "late", "-p", "8000-8100:8000-8100", "busybox", "sleep", "600")
    assert said.startswith("minirun: -p 8000-8100:8000-8100/tcp: container web ")
    assert "publishes this port already; choose another one" in said
    assert host.out("ps", "-aq").count("\n") == 0
    assert "publishes nothing" in host.refused("run", "--rm", "--net", "none", "-P", "busybox", "true")
