"""A store of its own for every test, a tree to pack, and a canary."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from minirun import store


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store's directory, in the test's own temporary directory."""
    if os.geteuid() != 0:
        pytest.skip("unpacking layers needs root: owners, whiteouts")
    monkeypatch.setattr(store, "root", str(tmp_path / "root"))
    return tmp_path / "root"


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    """A small tree with one of everything that a layer can hold."""
    tree = tmp_path / "rootfs"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/tool").write_bytes(b"\x7fELF" * 1000)
    os.chown(tree / "bin/tool", 12, 34)
    (tree / "bin/tool").chmod(0o4755)
    os.setxattr(tree / "bin/tool", "user.note", b"kept \xff")
    (tree / "bin/link").symlink_to("tool")
    os.link(tree / "bin/tool", tree / "bin/twin")
    (tree / "tmp").mkdir()
    (tree / "tmp").chmod(0o1777)
    (tree / "etc").mkdir()
    (tree / "etc/ünïcode").write_text("x" * 513)
    for path in ("bin/tool", "etc/ünïcode", "bin", "tmp", "etc"):
        os.utime(tree / path, (1_600_000_000, 1_600_000_000))
    return tree


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A file outside that no archive may touch: its content, times, owner and links are the same afterwards."""
    path = tmp_path / "outside" / "canary"
    path.parent.mkdir()
    path.write_text("alive")
    before, listing = path.stat(), os.listdir(path.parent)
    yield path
    after = path.stat()
    assert path.read_text() == "alive"
    for field in ("st_mode", "st_uid", "st_gid", "st_nlink", "st_mtime_ns", "st_ctime_ns", "st_ino"):
        assert getattr(after, field) == getattr(before, field), field
    assert os.listdir(path.parent) == listing
