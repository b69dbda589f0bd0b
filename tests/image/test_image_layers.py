"""Layers: what an archive holds is what the directory gets, and a hostile archive gets nothing."""

from __future__ import annotations

import gzip
import io
import os
import stat
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from minirun.errors import InvalidDocument
from minirun.image import layers, stream, tree
from tests.image.archives import archive, entry

SYM, LNK, DIR, CHR, BLK, FIFO = (
    *(tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE),
    *(tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE),
)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "layer"
    path.mkdir()
    return path


def below(tmp_path: Path) -> list[str]:
    path = tmp_path / "below"
    path.mkdir(exist_ok=True)
    return [str(path)]


def describe(directory: Path) -> dict[str, tuple[object, ...]]:
    """All that a tree says: names, kinds, content, owners, modes, times, links, extended attributes."""
    result: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(directory))
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = (path.read_bytes(), first.setdefault(status.st_ino, name))
        xattrs = {
            key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
        }
        result[name] = (status.st_mode, status.st_uid, status.st_gid, int(status.st_mtime), content, xattrs)
    return result


def test_a_packed_tree_unpacks_to_the_same_tree(rootfs: Path, target: Path) -> None:
    packed = io.BytesIO()
    layers.pack(str(rootfs), packed, 2_000_000_000)
    packed.seek(0)
    layers.unpack(packed, str(target))
    assert describe(target).keys() == describe(rootfs).keys()
    for name, expected in describe(rootfs).items():
        if name != "bin/link":  # a symbolic link's time is the time of the test
            assert describe(target)[name] == expected, name
    assert layers.size(str(target)) == layers.size(str(rootfs))


def test_packing_gives_the_same_bytes_and_no_time_after_the_newest(rootfs: Path) -> None:
    first, second = io.BytesIO(), io.BytesIO()
    layers.pack(str(rootfs), first, 1_500_000_000)
    for path in rootfs.rglob("*"):
        os.utime(path, follow_symlinks=False)
    layers.pack(str(rootfs), second, 1_500_000_000)
    assert first.getvalue() == second.getvalue()
    first.seek(0)
    with tarfile.open(fileobj=first) as tar:
        entries = tar.getmembers()
    assert max(entry.mtime for entry in entries) == 1_500_000_000
    assert [entry.name for entry in entries] == sorted(entry.name for entry in entries)


def test_other_readers_agree_with_us(rootfs: Path, tmp_path: Path) -> None:
    with (tmp_path / "layer.tar").open("wb") as target:
        layers.pack(str(rootfs), target, 2_000_000_000)
    (tmp_path / "theirs").mkdir()
    subprocess.run(
        ["tar", "-xpf", tmp_path / "layer.tar", "-C", tmp_path / "theirs", "--xattrs", "--numeric-owner"], check=True
    )
    assert describe(tmp_path / "theirs")["bin/tool"] == describe(rootfs)["bin/tool"]


HOSTILE = {
    "parent by ..": [entry("../outside/canary", content=b"dead")],
    "parent by .. in the middle": [entry("a/../../outside/canary", content=b"dead")],
    "symlink, then write through it": [entry("a", SYM, "../outside"), entry("a/canary", content=b"dead")],
    "absolute symlink, then write through it": [entry("a", SYM, "OUTSIDE"), entry("a/canary", content=b"dead")],
    "symlink to a symlink": [
        *(entry("a", SYM, "b"), entry("b", SYM, "OUTSIDE"), entry("a/canary", content=b"dead")),
    ],
    "directory through a symlink": [entry("a", SYM, "OUTSIDE"), entry("a/b/c", DIR)],
    "hard link out by ..": [entry("a", LNK, "../outside/canary"), entry("a", content=b"dead")],
    "hard link through a symlink": [entry("s", SYM, "OUTSIDE"), entry("a", LNK, "s/canary")],
    "hard link to an absolute path": [entry("a", LNK, "OUTSIDE/canary")],
    "whiteout through a symlink": [entry("a", SYM, "OUTSIDE"), entry("a/.wh.canary")],
    "opaque through a symlink": [entry("a", SYM, "OUTSIDE"), entry("a/.wh..wh..opq")],
    "whiteout of ..": [entry("a/.wh...")],
    "whiteout of nothing": [entry("a/.wh.")],
    "fifo through a symlink": [entry("a", SYM, "OUTSIDE"), entry("a/pipe", FIFO)],
    "symlink through a symlink": [entry("a", SYM, "OUTSIDE"), entry("a/new", SYM, "x")],
    "a file as a directory": [entry("a"), entry("a/b", content=b"x")],
    "too deep": [entry("d/" * 300 + "f")],
    "a name too long": [entry("n" * 300)],
    "hard link to a directory": [entry("d", DIR), entry("a", LNK, "d")],
    "the root as a file": [entry("./", content=b"x")],
    "an unknown type": [entry("a", b"Z")],
    "a time that is no number": [entry("a", pax_headers={"mtime": "nan"})],
    "a huge owner": [entry("a", uid=2**40)],
    "sparse": [entry("a", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**60)})],
    "a huge header": [entry("a", pax_headers={"comment": "x" * 2_000_000})],
    "a number that takes tarfile for ever": [entry("a", pax_headers={"comment": "1" * 60_000})],
    "a NUL in a link": [entry("a", SYM, pax_headers={"linkpath": "b\0c"})],
    "a NUL in a name": [entry("a", pax_headers={"path": "b\0c"})],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_and_touch_nothing(name: str, target: Path, canary: Path, tmp_path: Path) -> None:
    entries = []
    for info, content in HOSTILE[name]:
        info.linkname = info.linkname.replace("OUTSIDE", str(canary.parent))
        entries.append((info, content))
    with pytest.raises(InvalidDocument) as refusal:
        layers.unpack(archive(*entries), str(target), below(tmp_path))
    assert "layer archive refused" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_tarfile_itself_follows_such_a_link(tmp_path: Path) -> None:
    """The positive control: the same archive, unpacked by a careless reader, reaches the outside."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    with tarfile.open(fileobj=archive(entry("a", SYM, str(outside)), entry("a/new", content=b"dead"))) as tar:
        # Python 3.11.3 and older have no such argument, and always behave so.
        tar.extractall(inside, **({"filter": "fully_trusted"} if hasattr(tarfile, "fully_trusted_filter") else {}))
    assert (outside / "new").exists()


def test_an_absolute_name_is_inside_the_root(target: Path, canary: Path) -> None:
    layers.unpack(archive(entry(f"/{canary}", content=b"inside"), entry("//etc/x", content=b"y")), str(target))
    assert (target / str(canary).lstrip("/")).read_text() == "inside"
    assert (target / "etc/x").read_text() == "y"


def test_device_nodes_are_left_out_even_one_that_would_forge_a_whiteout(target: Path, tmp_path: Path) -> None:
    nodes = [entry("sda", BLK, devmajor=8), entry("null", CHR, devmajor=1, devminor=3), entry("wh", CHR)]
    layers.unpack(archive(*nodes, entry("f")), str(target), below(tmp_path))
    assert os.listdir(target) == ["f"]


def test_attributes_that_overlayfs_obeys_are_left_out(target: Path) -> None:
    headers = {
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.user.kept": "1",
    }
    layers.unpack(archive(entry("d", DIR, pax_headers=headers), entry("f", pax_headers=headers)), str(target))
    assert os.listxattr(target / "d") == os.listxattr(target / "f") == ["user.kept"]


def test_whiteouts_take_overlayfs_form(target: Path, tmp_path: Path) -> None:
    layers.unpack(archive(entry("d/.wh.gone"), entry("o/.wh..wh..opq"), entry("o/new")), str(target), below(tmp_path))
    assert tree.is_whiteout((target / "d/gone").lstat())
    assert os.getxattr(target / "o", tree.OPAQUE) == b"y"
    assert not list(target.rglob(".wh*"))


def test_whiteouts_in_the_lowest_layer_leave_no_mark(target: Path) -> None:
    layers.unpack(archive(entry("d/.wh.gone"), entry("d/.wh..wh.plnk")), str(target))
    assert not list(target.rglob("*gone*"))


@pytest.mark.parametrize("whiteout_first", [True, False])
def test_a_directory_and_its_whiteout_in_one_layer_replace_the_one_below(
    whiteout_first: bool, target: Path, tmp_path: Path
) -> None:
    entries = [entry(".wh.d"), entry("d", DIR)]
    layers.unpack(archive(*(entries if whiteout_first else entries[::-1])), str(target), below(tmp_path))
    assert os.getxattr(target / "d", tree.OPAQUE) == b"y"


def test_overlayfs_shows_what_the_layers_say(tmp_path: Path) -> None:
    lower, upper, merged = (tmp_path / name for name in ("lower", "upper", "merged"))
    for path in (lower, upper, merged):
        path.mkdir()
    layers.unpack(archive(entry("d/gone"), entry("d/kept"), entry("o/old"), entry("f", content=b"1")), str(lower))
    change = archive(entry("d/.wh.gone"), entry("o/.wh..wh..opq"), entry("o/new"), entry("f", content=b"2"))
    layers.unpack(change, str(upper), [str(lower)])
    script = f"mount -t overlay none -o lowerdir={upper}:{lower} {merged} && cd {merged} && echo d/* o/* $(cat f)"
    result = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["d/kept", "o/new", "2"]


def test_later_entries_win(target: Path) -> None:
    later = [
        *(entry("a", content=b"1"), entry("a", content=b"22")),
        *(entry("d/x/y"), entry("d", SYM, "a"), entry("s", SYM, "a"), entry("s", content=b"file")),
        *(entry("e"), entry("e", DIR), entry("e/f"), entry("e", DIR, mode=0o700)),
    ]
    layers.unpack(archive(*later), str(target))
    assert (target / "a").read_bytes() == b"22"
    assert os.readlink(target / "d") == "a"
    assert not (target / "s").is_symlink()
    assert (target / "e/f").exists()
    assert stat.S_IMODE((target / "e").stat().st_mode) == 0o700


def test_a_directory_not_mentioned_is_as_in_the_layers_below(target: Path, tmp_path: Path) -> None:
    (lower,) = below(tmp_path)
    (tmp_path / "below/tmp").mkdir()
    os.chown(tmp_path / "below/tmp", 5, 6)
    (tmp_path / "below/tmp").chmod(0o1777)
    (tmp_path / "below/link").symlink_to("/etc")
    layers.unpack(archive(entry("tmp/x"), entry("new/x")), str(target), [lower])
    status = (target / "tmp").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (5, 6, 0o1777)
    assert stat.S_IMODE((target / "new").stat().st_mode) == 0o755
    with pytest.raises(InvalidDocument, match="symbolic link in a layer below"):
        layers.unpack(archive(entry("link/x")), str(target), [lower])


def test_entries_and_bytes_are_limited(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MAX_ENTRIES", 5)
    with pytest.raises(InvalidDocument, match="more than 5 entries"):
        layers.unpack(archive(*(entry(f"f{number}") for number in range(6))), str(target))
    monkeypatch.setattr(layers, "MAX_BYTES", 10)
    with pytest.raises(InvalidDocument, match="more than 10 bytes"):
        layers.unpack(archive(entry("f", content=b"x" * 11)), str(target))


def test_a_huge_size_in_a_short_archive_is_refused(target: Path) -> None:
    info, _ = entry("big")
    info.size = 2**62
    with pytest.raises(InvalidDocument, match="more than"):
        layers.unpack(io.BytesIO(info.tobuf()), str(target))


def test_truncated_archives_are_refused(target: Path) -> None:
    whole = archive(entry("f", content=b"x" * 5000)).getvalue()
    for length in (100, 600, 3000):
        with pytest.raises(InvalidDocument):
            layers.unpack(io.BytesIO(whole[:length]), str(target))
    with pytest.raises(EOFError):
        read_all(stream.Gunzip(io.BytesIO(gzip.compress(whole)[:-10])))


def test_a_gzip_bomb_is_stopped_and_memory_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "FREE_SIZE", 4 << 20)
    bomb = gzip.compress(bytes(64 << 20))
    tracemalloc.start()
    with pytest.raises(InvalidDocument, match="times its size"):
        read_all(stream.Gunzip(io.BytesIO(bomb)))
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()


def test_gzip_of_several_members_reads_as_one() -> None:
    data = os.urandom(200_000)
    packed = b"".join(gzip.compress(data[start : start + 70_000]) for start in range(0, len(data), 70_000))
    source = stream.Gunzip(io.BytesIO(packed))
    assert b"".join(iter(lambda: source.read(1000), b"")) == data


def test_many_entries_need_little_memory(target: Path) -> None:
    """In a process of its own: 30 000 entries that are one directory, within 60 MB more than at its start."""
    code = """
import io, resource, sys, tarfile
from minirun.image import layers
info = tarfile.TarInfo("d")
info.type = tarfile.DIRTYPE
header = info.tobuf()
class Endless:
    left = 30_000
    def read(self, size, /):
        assert size in (1, 512), size
        self.left -= 1
        return header if self.left > 0 else bytes(size)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
layers.unpack(Endless(), sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    result = subprocess.run([sys.executable, "-c", code, str(target)], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 60_000  # kilobytes


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number, name in enumerate(HOSTILE):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(InvalidDocument):
            layers.unpack(archive(*HOSTILE[name]), str(tmp_path / str(number)), below(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == before


def read_all(source: stream.Readable) -> None:
    while source.read(1 << 16):
        pass
