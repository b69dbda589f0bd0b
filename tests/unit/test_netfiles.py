"""The files that name a container's network, whatever the container wrote to them."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minirun import store
from minirun.engine import netfiles

RECORD = {"Name": "web", "Hostname": "box", "DnsSearch": [], "DnsOptions": []}
NEW = SimpleNamespace(addresses=["10.78.0.9/24"], nameservers=["10.78.0.1"], gateways=["10.78.0.1"])


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A container with files of its own, on a host whose network has the gateway 10.77.0.1."""
    pool = SimpleNamespace(gateway="10.77.0.1")
    monkeypatch.setattr(netfiles.networks, "listing", lambda: [SimpleNamespace(pools=[pool])])
    (tmp_path / "hosts").write_text("127.0.0.1\tlocalhost\n10.77.0.2\tbox web\n192.0.2.8 mine\n")
    (tmp_path / "resolv.conf").write_text("nameserver 10.77.0.1\noptions debug\n")
    return SimpleNamespace(live=str(tmp_path))


def update(container: Any) -> list[bytes]:
    netfiles.update(container, RECORD, [NEW])  # type: ignore[list-item]
    return [(Path(container.live) / name).read_bytes() for name in ("hosts", "resolv.conf")]


def test_our_lines_change(container: Any) -> None:
    hosts, conf = update(container)
    assert hosts == b"127.0.0.1\tlocalhost\n10.78.0.9\tbox web\n192.0.2.8 mine\n"
    assert conf == b"nameserver 10.78.0.1\noptions debug\n"


@pytest.mark.parametrize(
    "text",
    [b"nameserver \n", b"nameserver\n", b"nameserver  \t\nnameserver x", b"\xff\0\x0b\x1c\x85\n\xfe", b"\n" * 100],
)
def test_what_the_container_wrote_stays(container: Any, text: bytes) -> None:
    for name in ("hosts", "resolv.conf"):
        (Path(container.live) / name).write_bytes(text)
    hosts, conf = update(container)
    assert conf == text
    assert text.removesuffix(b"\n") in hosts and b"10.78.0.9\tbox web\n" in hosts
    (Path(container.live) / "resolv.conf").write_bytes(text + b"\nnameserver 10.77.0.1\n")
    conf = update(container)[1]
    assert conf.startswith(b"nameserver 10.78.0.1\n") and text.strip(b"\n") in conf and b"10.77" not in conf


def test_what_is_no_small_file_is_left_alone(container: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("nameserver 10.77.0.1\n")
    for name in ("hosts", "resolv.conf"):
        path = tmp_path / name
        for make in (
            lambda path=path: os.symlink(other, path),
            lambda path=path: os.mkfifo(path),
            lambda path=path: os.mknod(path, 0o20600, os.makedev(1, 7)),  # /dev/full
            lambda path=path: os.mkdir(path),
            lambda path=path: (path.touch(), os.truncate(path, 1 << 40)),
        ):
            path.unlink()
            make()
            netfiles.update(container, RECORD, [NEW])  # type: ignore[list-item]
            if path.is_dir():
                path.rmdir()
                path.touch()
    assert other.read_text() == "nameserver 10.77.0.1\n"


def test_a_kill_leaves_no_empty_file(container: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    for module, name in ((store, "write_all"), (os, "ftruncate")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, kill)
            with pytest.raises(Killed):
                update(container)
        assert b"localhost" in (Path(container.live) / "hosts").read_bytes()
    hosts = update(container)[0]
    assert hosts == b"127.0.0.1\tlocalhost\n10.78.0.9\tbox web\n192.0.2.8 mine\n"
