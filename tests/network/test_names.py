"""resolv.conf and hosts of a container, and the flags that shape them."""

from __future__ import annotations

from pathlib import Path

import pytest

from minirun.errors import UsageError
from minirun.network import names


@pytest.fixture
def host_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    own = tmp_path / "resolv.conf"
    monkeypatch.setattr(names, "RESOLV_CONF", str(own))
    return own


def test_the_gateways_are_asked_with_the_hosts_options(host_file: Path) -> None:
    host_file.write_text("# mine\nnameserver 192.0.2.53\nnameserver 2001:db8::53\noptions ndots:2 edns0\n")
    assert names.resolv_conf(["10.201.0.1", "fd00::1"]) == (
        "nameserver 10.201.0.1\nnameserver fd00::1\noptions ndots:2 edns0\n"
    )
    assert names.resolv_conf(["10.201.0.1"], options=["timeout:1"]) == "nameserver 10.201.0.1\noptions timeout:1\n"
    assert names.resolv_conf(["10.201.0.1"], options=[]) == "nameserver 10.201.0.1\n"
    assert names.resolv_conf(["10.0.0.1", "10.1.0.1", "10.2.0.1", "10.3.0.1"]).count("nameserver") == 3


def test_our_own_domain_is_searched_before_others(host_file: Path) -> None:
    host_file.write_text("search old.example\ndomain lan\nsearch corp.example lan\nnameserver 127.0.0.53\n")
    assert "search minirun.internal corp.example lan\n" in names.resolv_conf(["10.201.0.1"])
    assert "search minirun.internal a.example\n" in names.resolv_conf(["10.201.0.1"], ["a.example"])
    assert "search" not in names.resolv_conf(["10.201.0.1"], ["."])
    assert "search" not in names.resolv_conf(["10.201.0.1"], internal=True)
    host_file.write_text("nameserver 127.0.0.53\n")
    assert "search" not in names.resolv_conf(["10.201.0.1"])


def test_without_a_network_there_is_nobody_to_ask(host_file: Path) -> None:
    host_file.write_text("nameserver 192.0.2.53\n")
    assert names.resolv_conf([]) == ""


def test_a_host_without_resolv_conf(host_file: Path) -> None:
    assert names.resolv_conf(["10.201.0.1"]) == "nameserver 10.201.0.1\n"


def test_hosts() -> None:
    assert names.hosts("box", "web", ["10.201.0.2"]) == "127.0.0.1\tlocalhost\n10.201.0.2\tbox web\n"
    assert names.hosts("web", "web", []) == "127.0.0.1\tlocalhost\n127.0.0.1\tweb\n"
    both = names.hosts("web", "web", ["10.201.0.2", "fd00::2"])
    assert both == ("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.201.0.2\tweb\nfd00::2\tweb\n")


def test_added_hosts() -> None:
    added = [names.parse_host(text) for text in ("db:192.0.2.7", "up:host-gateway", "six:[2001:db8::7]", "bare:::7")]
    text = names.hosts("web", "web", ["10.201.0.2"], added, "10.201.0.1")
    assert text.endswith("192.0.2.7\tdb\n10.201.0.1\tup\n2001:db8::7\tsix\n::7\tbare\n")
    with pytest.raises(UsageError, match="no gateway"):
        names.hosts("web", "web", [], added)
    assert names.parse_host("db=192.0.2.7") == ("db", "192.0.2.7")


@pytest.mark.parametrize(
    "text", ["", "db", "db:", ":1.2.3.4", "d b:1.2.3.4", "db:1.2.3", "db:1.2.3.4\n1.1.1.1 x", "a\tb:1.1.1.1"]
)
def test_bad_hosts(text: str) -> None:
    with pytest.raises(UsageError):
        names.parse_host(text)


def _alias(text: str) -> str:
    return names.parse_alias(text, f"--network-alias {text}")


def test_flags_cannot_write_lines_of_their_own() -> None:
    for parse, good, bad in (
        (names.parse_server, ("192.0.2.1", "::1"), ("dns.example", "1.2.3.4\n", "1.2.3.4 5")),
        (names.parse_domain, (".", "corp.example", "lan"), ("", "a b", "a\nnameserver 1.1.1.1", "a..b", "x" * 64)),
        (names.parse_option, ("ndots:2", "edns0", "no-tld-query"), ("", "a b", "a\nb", "ndots:1:2")),
        (
            lambda text: names.parse_alias(text, text),
            ("db", "db.example", "my_db-1"),
            ("", "a b", "-\n", "x" * 64, "a..b"),
        ),
    ):
        for text in good:
            assert parse(text) == text
        for text in bad:
            with pytest.raises(UsageError):
                parse(text)
