"""The readers of the C part under chance: op lists for minirun-init, the files of a container for minirun-oci.

Both are built with the sanitizers. The choices follow from a fixed seed, so a failure comes again. Everything runs on a
machine of its own: all that is there is read-only, but for one tmpfs.
"""

from __future__ import annotations

import os
import random
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.lint.test_c import CSRC, REPORT, SANITIZE, _programs, _run, init

__all__ = ["init"]

LISTS, FILES = 300, 250
PATHS = [
    "/fuzz/root",
    "/fuzz/file",
    "/fuzz/link",
    "/fuzz/fifo",
    "/fuzz/filter",
    "/",
    ".",
    "..",
    "",
    "/dev/pts/x",
    "/proc",
]
PATHS += [
    "/fuzz/root/../..",
    "/up",
    "/loop/x",
    "/a/b/c",
    "//a//./b/../c",
    "x" * 255,
    "/y" * 2047,
    "/z" * 3000,
    "\xff\xfe",
]
NUMBERS = ["0", "1", "-1", "7", "65534", "4294967295", "99999999999999999999", "0x1f", "zz", "", "1,2,3", "1," * 2000]
FLAGS = ["0", "20000", "4000000", "8000000", "20000000", "10000000", "zz", "ffffffffffffffff"]
OPTIONS = [
    "",
    "ro",
    "bind",
    "rbind,ro",
    "rro,rshared",
    "remount,bind,nosuid",
    "idmap",
    "size=1k,mode=7",
    "private," * 9,
]
OPTIONS += ["tmpcopyup", "tmpcopyup,mode=755", "nosuid,nodev,noexec", ",,,", "o," * 2100, "q" * 4095, 'context="a,b"']
KINDS = ["tmpfs", "proc", "sysfs", "mqueue", "devpts", "none", "bind", ""]
# Each op, and where its words come from. Not here: "wait", which waits; what the machine would feel.
WORDS: dict[str, list[list[str]]] = {
    **{key: [] for key in ("pivot", "chroot", "move-root", "session", "console-device", "undumpable", "dumpable")},
    **{key: [] for key in ("die-with-parent", "no-new-privs", "lookup", "ready", "be-root")},
    **{key: [PATHS] for key in ("root", "mkdir", "mask", "readonly", "cwd", "cwd-first", "inside", "filter", "fifo")},
    **{key: [NUMBERS] for key in ("console", "own-stdio", "umask", "bound", "sync", "home", "affinity", "personality")},
    **{key: [FLAGS] for key in ("unshare", "enter", "fork", "seccomp")},
    **{key: [PATHS] for key in ("hostname", "domainname", "env", "hook-arg", "hook-env", "keyring")},
    "propagation": [["rprivate", "private", "rslave", "unbindable", "", "r", "sideways"]],
    "tree": [PATHS, OPTIONS, ["-", "/proc/self/ns/user", "/fuzz/file"]],
    "mount": [PATHS, PATHS, KINDS, OPTIONS],
    "remount": [PATHS, OPTIONS],
    "overlay": [PATHS, OPTIONS],
    "symlink": [PATHS, PATHS],
    "node": [PATHS, ["c", "b", "p", "u", ""], ["1"], ["3", "5"], NUMBERS, NUMBERS, NUMBERS],
    "join": [["/proc/self/ns/net", "/proc/self/ns/uts", "/fuzz/file"], FLAGS],
    "write": [["/fuzz/file", "/fuzz/link", "/fuzz/root", ""], PATHS],
    "cgroup": [["/fuzz/file", "/fuzz/root"]],
    "report": [PATHS],
    "sysctl": [["net/ipv4/ip_forward", "../x", "", "a" * 5000], NUMBERS],
    "window": [NUMBERS, NUMBERS],
    "rlimit": [["4", "999", "zz"], NUMBERS, NUMBERS],
    "scheduler": [["0", "3", "77"], *[NUMBERS] * 6],
    "io-priority": [["2", "3", "9"], NUMBERS],
    "memory-policy": [["0", "zz"], NUMBERS],
    "user": [NUMBERS, NUMBERS, ["-", "keep", "1,2", "1," * 1100, ",,", ""]],
    "caps": [FLAGS] * 4,
    "hook-state": [PATHS, PATHS],
    "hook": [["/bin/true", "/bin/false", "/no/such", ""], ["0", "5", "-1", "99999999999999999999"]],
}
# A root file system of its own: of the machine's only programs and libraries, read-only. The lists come as shell words.
MACHINE = r"""
mount -t tmpfs -o nodev tmpfs "$1"
cd "$1"
mkdir -p fuzz/root/bin proc tmp dev
for name in bin lib lib64 usr; do
    mkdir $name
    mount --bind /$name $name
    mount -o remount,bind,ro $name
done
mount -t proc -o ro proc proc
cp "$2" fuzz/init
ln -s /usr fuzz/link; ln -s loop fuzz/root/loop; ln -s ../../../etc fuzz/root/up
printf '\\006\\0\\0\\0\\0\\0\\377\\177' > fuzz/filter; echo text > fuzz/file; mkfifo fuzz/fifo
exec chroot . sh -s
"""
ONE = "unshare --mount --uts --ipc --net --pid --fork /fuzz/init {words} > /dev/null 2> /tmp/said < /dev/null; echo $?"
LOOK = "grep -aE 'AddressSanitizer|runtime error|LeakSanitizer' /tmp/said"


def _list(chance: random.Random) -> list[str]:
    """One op list: mostly with a root, mostly whole."""
    words = ["root", "/fuzz/root"] if chance.random() < 0.7 else []
    for _ in range(chance.randint(1, 12)):
        name = chance.choice(sorted(WORDS))
        words += [name, *map(chance.choice, WORDS[name])]
    if chance.random() < 0.1:
        del words[chance.randrange(len(words))]
    return words + (["--", "/bin/true"] if chance.random() < 0.9 else [])


def test_init_comes_through_any_list(init: str, tmp_path: Path) -> None:
    chance = random.Random(3)
    lists = [_list(chance) for _ in range(LISTS)]
    script = "".join(f"{ONE.format(words=shlex.join(words))}; {LOOK}\n" for words in lists)
    namespaces = ["unshare", "--mount", "--propagation", "private", "--net", "--uts", "--ipc", "--pid", "--fork"]
    environment = {"PATH": os.environ["PATH"], "ASAN_OPTIONS": "detect_leaks=0"}
    done = _run([*namespaces, "sh", "-ec", MACHINE, "sh", str(tmp_path), init], input=script, env=environment)
    told = done.stdout.splitlines()
    wrong = [(code, words) for code, words in zip(told, lists, strict=False) if code not in ("0", "125", "126", "127")]
    assert not wrong and len(told) == LISTS, (wrong, done.stderr)
    assert {"0", "125", "127"} <= set(told)


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> str:
    """minirun-oci with the sanitizers, beside a program that stands for Python's."""
    target = tmp_path_factory.mktemp("front") / "minirun-oci"
    sources = [str(CSRC / name) for name in _programs()["minirun-oci"]]
    done = _run(["gcc", "-std=gnu11", *SANITIZE, *sources, "-o", str(target)])
    if done.returncode and "cannot find -lasan" in done.stderr:
        pytest.skip("gcc has no sanitizers here")
    assert done.returncode == 0, done.stderr
    (target.parent / "minirun").write_text("#!/bin/sh\nexit 77\n")
    (target.parent / "minirun").chmod(0o755)
    return str(target)


def _damaged(chance: random.Random, text: bytes) -> bytes:
    """A text with some bytes changed, doubled or cut off."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(text) + 1)
        piece = chance.choice(
            [b"", b"\0", b"\n", b" ", b"-", b"9" * 30, b"/" * 5000, b"%s%n", bytes(chance.randbytes(3))]
        )
        text = text[:at] + piece + text[at + chance.randint(0, 3) :]
    return text * chance.choice([1, 1, 1, 40])


def test_the_front_comes_through_any_file(front: str, tmp_path: Path) -> None:
    """It answers, or leaves the answer to Python; whose process and cgroup these are said to be does not exist."""
    chance = random.Random(5)
    box = tmp_path / "root/box"
    whole = {"process": b"2147483646 12345 ho /no/such/freezer\n", "annexe": b'"bundle": "/x"}\n'}
    whole["undo"] = f"owner\n{tmp_path}/a\n{tmp_path}/b\n".encode()
    codes = set()
    for _ in range(FILES):
        box.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root/@creating").mkdir(exist_ok=True)
        for name, text in whole.items():
            (box / name).write_bytes(_damaged(chance, text) if chance.random() < 0.6 else text)
        verb = chance.choice([["state"], ["start"], ["kill"], ["delete"]])
        done = subprocess.run([front, "--root", str(tmp_path / "root"), *verb, "box"], capture_output=True, timeout=20)
        assert not any(word.encode() in done.stderr for word in REPORT), done.stderr
        codes.add(done.returncode)
    assert codes == {0, 77}
