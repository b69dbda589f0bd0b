"""The C part: strict warnings by every compiler that is here, and minirun-init under the sanitizers."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CSRC = REPOSITORY / "csrc"
SOURCES = sorted(CSRC.glob("*.c"))
STRICT = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wvla", "-Wstrict-prototypes", "-Wformat=2"]
COMPILERS = [name for name in ("gcc", "clang", "musl-gcc") if shutil.which(name)]
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1"]
REPORT = ("AddressSanitizer", "runtime error", "LeakSanitizer")


def _programs() -> dict[str, list[str]]:
    """The programs and their sources, from the table in setup.py."""
    for node in ast.parse((REPOSITORY / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "PROGRAMS":
            found: dict[str, list[str]] = ast.literal_eval(node.value)
            return found
    raise AssertionError("setup.py has no PROGRAMS")


def _run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    settings: dict[str, object] = {"capture_output": True, "text": True, "timeout": 120} | options
    return subprocess.run(command, **settings)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
@pytest.mark.parametrize("compiler", COMPILERS)
def test_no_warnings(compiler: str, source: Path, tmp_path: Path) -> None:
    include = ["-idirafter", "/usr/include", "-idirafter", f"/usr/include/{os.uname().machine}-linux-gnu"]
    flags = STRICT + (include if compiler == "musl-gcc" else [])
    done = _run([compiler, *flags, "-O2", "-c", str(source), "-o", str(tmp_path / "out.o")])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_the_analyzer_finds_nothing(source: Path, tmp_path: Path) -> None:
    """gcc -fanalyzer follows paths through a function; what it takes for a leak in a program that execs is not one."""
    quiet = ["-Wno-analyzer-fd-leak", "-Wno-analyzer-malloc-leak", "-Wno-analyzer-fd-use-without-check"]
    if "CMSG_FIRSTHDR" in source.read_text():  # of a buffer that is large enough it is never NULL
        quiet.append("-Wno-analyzer-null-dereference")
    done = _run(["gcc", *STRICT, "-O1", "-fanalyzer", *quiet, "-c", str(source), "-o", str(tmp_path / "out.o")])
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> str:
    """minirun-init, built with the address and undefined-behaviour sanitizers."""
    target = tmp_path_factory.mktemp("sanitized") / "minirun-init"
    sources = [str(CSRC / name) for name in _programs()["minirun-init"]]
    done = _run(["gcc", "-std=gnu11", *SANITIZE, *sources, "-o", str(target)])
    if done.returncode and "cannot find -lasan" in done.stderr:
        pytest.skip("gcc has no sanitizers here")
    assert done.returncode == 0, done.stderr
    return str(target)


def _unshared(init: str, words: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Run init in namespaces of its own, so that a mount it makes is nobody's; its report must be its own line."""
    namespaces = ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--propagation", "private"]
    environment = {"PATH": os.environ["PATH"], "ASAN_OPTIONS": "detect_leaks=0"}
    done = _run([*namespaces, init, *words], env=environment, **options)
    assert not any(word in done.stderr for word in REPORT), done.stderr
    return done


RIGHTS = [
    *("undumpable", "session", "rlimit", "4", "0", "0", "bound", "1"),
    *("user", "65534", "65534", "7,8", "caps", "0", "0", "0", "0"),
]
GOOD = {
    "nothing but a program": (["--", "/bin/echo", "hello"], "hello\n"),
    "a host name": (["hostname", "box", "--", "/bin/uname", "-n"], "box\n"),
    "an environment": (["env", "A=1", "env", "B=2", "--", "/usr/bin/env"], "A=1\nB=2\n"),
    "a program by PATH": (["env", "PATH=/nowhere:/bin:/usr/bin", "lookup", "--", "echo", "found"], "found\n"),
    "limits and rights": (
        [*RIGHTS, "umask", "27", "no-new-privs", "--", "/usr/bin/id", "-G"],
        "65534 7 8\n",
    ),
    "ready and sync have nobody to wait for": (["ready", "sync", "1", "--", "/bin/echo", "on"], "on\n"),
    "another process goes on": (["fork", "0", "be-root", "--", "/bin/echo", "on"], "on\n"),
    "a user namespace": (["fork", "10000000", "--", "/usr/bin/id", "-u"], "65534\n"),
    "CPUs": (["affinity", "0", "--", "/usr/bin/nproc"], "1\n"),
    "a hook": (
        [
            *("hook-state", '{"pid": ', "}", "hook-arg", "sh", "hook-arg", "-c", "hook-env", "A=1"),
            *("hook-arg", 'read -r state; test "$A $state" = \'1 {"pid": 1}\'', "hook", "/bin/sh", "9"),
            *("--", "/bin/echo", "on"),
        ],
        "on\n",
    ),
    "a home": (["home", "0", "--", "/usr/bin/env"], "HOME=/root\n"),
    "a home of nobody known": (["home", "4123456789", "--", "/usr/bin/env"], "HOME=/\n"),
    "a working directory for root": (
        [
            "cwd-first",
            "/root",
            "user",
            "65534",
            "65534",
            "-",
            "caps",
            "0",
            "0",
            "0",
            "0",
            "cwd",
            "/root",
            "--",
            "/bin/pwd",
        ],
        "/root\n",
    ),
    "working directory": (["cwd", "/usr", "--", "/bin/pwd"], "/usr\n"),
}

TMPFS = ["mount", "x", "/lib", "tmpfs"]
BAD = {  # words, exit code, what the complaint names
    "no such op": (["fly", "--", "/bin/true"], 125, "op 0 (fly)"),
    "too few words": (["hostname", "--", "/bin/true"], 125, "op 0 (hostname)"),
    "too few words at the end": (["env", "A=1", "mount", "proc", "--", "/bin/true"], 125, "op 1 (mount)"),
    "no program": (["hostname", "x"], 125, "(--)"),
    "an empty program": (["--", ""], 127, "(exec)"),
    "a program that is missing": (["--", "/no/such"], 127, "(exec)"),
    "a directory as a program": (["--", "/tmp"], 126, "(exec)"),
    "an op before its root": (["mkdir", "/x", "--", "/bin/true"], 125, "op 0 (mkdir)"),
    "pivot without a root": (["pivot", "--", "/bin/true"], 125, "op 0 (pivot)"),
    "an unknown propagation": (["propagation", "sideways", "--", "/bin/true"], 125, "op 0 (propagation)"),
    "an empty word": (["propagation", "", "--", "/bin/true"], 125, "op 0 (propagation)"),
    "options of more than a page": (
        ["root", "/usr", *TMPFS, "o," * 2100, "--", "/bin/true"],
        125,
        "(mount)",
    ),
    "too many words about propagation": (["root", "/usr", *TMPFS, "private," * 9, "--", "/bin/true"], 125, "(mount)"),
    "a tree of nothing": (["tree", "/no/such", "bind", "-", "--", "/bin/true"], 125, "op 0 (tree)"),
    "ids of no namespace": (["tree", "/usr", "bind,idmap", "/etc/passwd", "--", "/bin/true"], 125, "op 0 (tree)"),
    "another tree than the next": (
        ["tree", "/usr", "bind", "-", "root", "/bin", "--", "/bin/true"],
        125,
        "op 1 (root)",
    ),
    "a root that is missing": (["root", "/no/such", "--", "/bin/true"], 125, "op 0 (root)"),
    "move-root without a root": (["move-root", "--", "/bin/true"], 125, "op 0 (move-root)"),
    "chroot without a root": (["chroot", "--", "/bin/true"], 125, "op 0 (chroot)"),
    "a path that is too long": (["root", "/usr", "mkdir", "/" + "x/" * 3000, "--", "/bin/true"], 125, "op 1 (mkdir)"),
    "a name that is too long": (["root", "/usr", "symlink", "t", "/" + "x" * 300, "--", "/bin/true"], 125, "(symlink)"),
    "too many groups": (["user", "0", "0", ",".join("1" for _ in range(1025)), "--", "/bin/true"], 125, "op 0 (user)"),
    "groups that are no numbers": (
        ["user", "0", "0", "-", "join", "/etc/passwd", "0", "--", "/bin/true"],
        125,
        "(join)",
    ),
    "a namespace of another kind": (["join", "/proc/self/ns/net", "4000000", "--", "/bin/true"], 125, "op 0 (join)"),
    "namespaces that there are not": (["fork", "1", "--", "/bin/true"], 125, "op 0 (fork)"),
    "a hook that is missing": (["hook", "/no/such", "0", "--", "/bin/true"], 125, "op 0 (hook)"),
    "a hook that fails": (
        ["hook-arg", "sh", "hook-arg", "-c", "hook-arg", "exit 1", "hook", "/bin/sh", "0", "--", "/bin/true"],
        125,
        "op 3 (hook)",
    ),
    "a hook without an end": (
        ["hook-arg", "sleep", "hook-arg", "99", "hook", "/bin/sleep", "1", "--", "/x"],
        125,
        "(hook)",
    ),
    "too many words for a hook": (["hook-arg", "x"] * 1025 + ["--", "/bin/true"], 125, "op 1024 (hook-arg)"),
    "a scheduler that there is not": (["scheduler", "77", *"000000", "--", "/bin/true"], 125, "op 0 (scheduler)"),
    "an I/O class that there is not": (["io-priority", "7", "0", "--", "/bin/true"], 125, "op 0 (io-priority)"),
    "CPUs that are no numbers": (["affinity", "0,x", "--", "/bin/true"], 125, "op 0 (affinity)"),
    "a CPU that there cannot be": (["affinity", "99999", "--", "/bin/true"], 125, "op 0 (affinity)"),
    "a file that cannot be written": (["write", "/proc/version", "x", "--", "/bin/true"], 125, "op 0 (write)"),
    "a filter that is a directory": (["filter", "/tmp", "--", "/bin/true"], 125, "op 0 (filter)"),
    "a filter of the wrong size": (["filter", "/etc/hostname", "--", "/bin/true"], 125, "op 0 (filter)"),
    "a fifo that is missing": (["fifo", "/no/such", "--", "/bin/true"], 125, "op 0 (fifo)"),
    "a limit that is none": (["rlimit", "999", "1", "1", "--", "/bin/true"], 125, "op 0 (rlimit)"),
    "enter without a pidfd": (["enter", "20000", "--", "/bin/true"], 125, "op 0 (enter)"),
    "a sysctl that is none": (["root", "/usr", "sysctl", "../../etc/x", "1", "--", "/bin/true"], 125, "(sysctl)"),
}


@pytest.mark.parametrize("name", GOOD)
def test_init_by_hand(init: str, name: str) -> None:
    words, output = GOOD[name]
    done = _unshared(init, words)
    assert (done.returncode, done.stdout) == (0, output), done.stderr


@pytest.mark.parametrize("name", BAD)
def test_init_refuses_with_one_line(init: str, name: str) -> None:
    words, code, complaint = BAD[name]
    done = _unshared(init, words)
    assert done.returncode == code, done
    assert done.stderr.startswith("minirun-init: ") and complaint in done.stderr and done.stderr.count("\n") == 1


def test_init_makes_a_root(init: str, tmp_path: Path) -> None:
    """A whole file system by hand: the static busybox, its own /proc and /dev, masked and read-only paths."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed: scripts/provision.sh run brings it")
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    for applet in ("sh", "cat", "ls"):
        shutil.copy(busybox, root / "bin" / applet)
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/note").write_text("shared\n")
    (root / "old/deep").mkdir(parents=True)
    (root / "old/deep/file").write_text("kept\n")
    (root / "old/link").symlink_to("../missing/at/all")
    words = f"""
        tree {root} rbind,rslave - hostname box propagation rslave root {root}
        mount proc /proc proc nosuid,nodev,noexec mount tmpfs /dev tmpfs nosuid,mode=755,size=64k
        mount {tmp_path}/volume /data none rbind,ro,rnosuid,rslave,rshared
        mount tmpfs /old tmpfs tmpcopyup,ro,shared mount {tmp_path}/volume/note /old/link none bind
        mount none /data none remount,bind,nodev node /dev/null c 1 3 666 0 0 symlink /proc/self/fd /dev/fd
        mkdir /work/deep readonly /proc/sys mask /proc/version mask /no/such pivot remount / ro cwd /work/deep
    """.split()
    script = """
        cat /data/note /old/deep/file /missing/at/all /proc/version; ls / /dev; pwd
        for file in /data/x /x /proc/sys/vm/swappiness; do (echo 1 > $file) 2> /dev/null || echo no $file; done
    """
    done = _unshared(init, [*words, "--", "/bin/sh", "-c", script])
    listed = "shared kept shared /: bin data dev missing old proc work /dev: fd null"
    refused = "no /data/x no /x no /proc/sys/vm/swappiness"
    assert " ".join(done.stdout.split()) == f"{listed} /work/deep {refused}", done.stderr
    assert sorted(path.name for path in root.iterdir()) == ["bin", "data", "dev", "missing", "old", "proc", "work"]
    assert not os.path.ismount(root)


@pytest.mark.parametrize(
    "content",
    [b"", b"no NUL at the end", b"\0", bytes(70000), b"env\0A=1\0", b"hostname\0" + b"x" * 5000 + b"\0--\0/true\0"],
    ids=["empty", "unterminated", "one empty word", "many empty words", "no program", "a name of 5000 bytes"],
)
def test_init_survives_a_malformed_list(init: str, content: bytes, tmp_path: Path) -> None:
    """As its spawner starts it: the words on descriptor 4, the control socket on 3. It says which op, and ends."""
    code = """
import os, socket, struct, sys
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
ops = os.memfd_create("ops")
os.write(ops, open(sys.argv[2], "rb").read())
pid = os.fork()
if not pid:
    high = os.dup(ops), os.dup(theirs.fileno())
    os.dup2(high[1], 3); os.dup2(high[0], 4)
    os.execv(sys.argv[1], ["minirun-init", "--spawned", "0"])
theirs.close()
message = ours.recv(100)
_, status = os.waitpid(pid, 0)
print(*struct.unpack("iiii", message)[:3], os.waitstatus_to_exitcode(status))
"""
    (tmp_path / "ops").write_bytes(content)
    namespaces = ["unshare", "--mount", "--uts", "--net"]
    environment = {"ASAN_OPTIONS": "detect_leaks=0"}
    done = _run([*namespaces, sys.executable, "-c", code, init, str(tmp_path / "ops")], env=environment)
    assert not any(word in done.stderr for word in REPORT), done.stderr
    kind, _, errno, exit_code = map(int, done.stdout.split())
    assert (kind, exit_code) == (3, 125) and errno > 0, done  # MR_FAILED
