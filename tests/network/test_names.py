"""resolv.conf and hosts of a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from minirun.network import names


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    own, upstream = tmp_path / "resolv.conf", tmp_path / "upstream"
    monkeypatch.setattr(names, "RESOLV_CONF", str(own))
    monkeypatch.setattr(names, "UPSTREAM", str(upstream))
    return own, upstream


def test_real_servers_are_passed_on_with_their_options(files: tuple[Path, Path]) -> None:
    text = "# mine\nsearch example.org\nnameserver 192.0.2.53\nnameserver 2001:db8::53\noptions ndots:2\n"
    files[0].write_text(text)
    files[1].write_text("nameserver 203.0.113.1\n")
    assert names.resolv_conf() == text


@pytest.mark.parametrize("stub", ["127.0.0.53", "127.0.0.1", "::1"])
def test_a_stub_on_loopback_is_replaced_by_what_it_asks(files: tuple[Path, Path], stub: str) -> None:
    files[0].write_text(f"nameserver {stub}\noptions edns0\n")
    files[1].write_text("nameserver 192.0.2.53\nsearch lan\n")
    assert names.resolv_conf() == "nameserver 192.0.2.53\nsearch lan\n"


def test_of_a_mixture_the_reachable_remain(files: tuple[Path, Path]) -> None:
    files[0].write_text("nameserver 127.0.0.1\nnameserver 192.0.2.53\n")
    assert names.resolv_conf() == "nameserver 192.0.2.53\n"


def test_no_public_server_is_made_up(files: tuple[Path, Path]) -> None:
    assert "nameserver" not in names.resolv_conf()
    files[0].write_text("nameserver 127.0.0.53\nsearch lan\n")
    assert names.resolv_conf() == "search lan\n"


def test_hosts() -> None:
    assert names.hosts("box", "web", "10.201.0.2") == "127.0.0.1\tlocalhost\n10.201.0.2\tbox web\n"
    assert names.hosts("web", "web", None) == "127.0.0.1\tlocalhost\n127.0.0.1\tweb\n"
