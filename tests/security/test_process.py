"""Who a process is and what it may ask the kernel (E13, E16, E17), and what others see of us (N04, N10)."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.lifecycle.machine import MINIRUN
from tests.security.conftest import Target

UNFILTERED = ("--security-opt", "seccomp=unconfined")
# Python is the host's, entered by chroot(2): the filter stays.
IOCTL = """
import fcntl
try:
    fcntl.ioctl(0, 0x5412, b"x")  # TIOCSTI puts a character into the terminal
except OSError as error:
    print(error.errno)
"""
KEYRING = """
import ctypes, os
number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
text = ctypes.create_string_buffer(200)
print(ctypes.CDLL(None, use_errno=True).syscall(number, 6, -3, text, 200) > 0 and text.value.decode())
"""


def by_host_python(host: Target, code: str, *options: str) -> str:
    command = ["chroot", "/host", "/usr/bin/python3", "-I", "-c", code]
    return host.out("run", "--rm", "--net", "none", "-v", "/:/host:ro", *options, "busybox", *command)


def test_e13_no_characters_are_put_into_a_terminal(host: Target) -> None:
    assert by_host_python(host, IOCTL) == "1"  # EPERM, from the filter
    assert by_host_python(host, IOCTL, *UNFILTERED) == "25"  # the control: ENOTTY, from the kernel


def test_e13_a_keyring_of_its_own(host: Target) -> None:
    assert by_host_python(host, KEYRING) == "False"  # keyctl(2) is not for containers
    described = by_host_python(host, KEYRING, *UNFILTERED)
    if described == "False":
        pytest.skip("this kernel has no keyrings")
    assert described.startswith("keyring;0;0;") and described.endswith(";minirun")


def test_e13_no_core_files(host: Target) -> None:
    assert host.sh("ulimit -c; ulimit -Hc; ulimit -c 1 2> /dev/null || echo refused") == "0\n0\nrefused"


def test_e13_devices_of_the_host_cannot_be_opened(host: Target) -> None:
    """Even a program that may make nodes opens none but those of the list."""
    script = (
        "mknod /zero c 1 5 && head -c 1 /zero | wc -c; mknod /kmsg c 1 11 && head -c 1 /kmsg > /x && echo open; true"
    )
    assert host.sh(f"({script}) 2> /dev/null", "--cap-add", "MKNOD") == "1"


@pytest.mark.parametrize(
    "user",
    [
        "2147483648",
        "4294967295",
        "4294967296",
        "99999999999999999999",
        "-1",
        "0:4294967296",
        "0:-1",
        "nobody:nogroup!",
        ":",
        "1:2:3",
        "\u0661",
    ],
)
def test_e16_what_is_no_user_is_refused(host: Target, user: str) -> None:
    host.refused("run", "--rm", "--net", "none", "-u", user, "busybox", "id")


def test_e16_a_number_is_a_number(host: Target, layer: Path) -> None:
    """An image that calls its root ``1`` and a user ``0``."""
    (layer / "etc").mkdir()
    (layer / "etc/passwd").write_text("1:x:0:0::/:/bin/sh\n0:x:5:5::/:/bin/sh\nreal:x:7:8::/home:/bin/sh\n")
    (layer / "etc/group").write_text("root:x:0:real\nextra:x:9:real,other\n")
    image = host.image("users", layer)
    assert host.sh("id -u; id -g", "-u", "1", image=image) == "1\n0"
    assert host.sh("id -u", "-u", "0", image=image) == "0"
    assert host.sh("id -u; id -g; id -G; echo $HOME", "-u", "real", image=image).split("\n") == [
        "7",
        "8",
        "8 0 9",
        "/home",
    ]


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "huge"])
def test_e16_a_passwd_that_is_no_file(host: Target, canary: None, layer: Path, kind: str) -> None:
    (layer / "etc").mkdir()
    passwd = layer / "etc/passwd"
    if kind == "fifo":
        passwd.write_text("to be replaced")
    elif kind == "folder":
        passwd.mkdir()
    elif kind == "link":
        passwd.symlink_to("/run/canary/ptmx")
    else:
        passwd.write_text("user:x:5:5::/:/bin/sh\n" * 60000)
    image = host.image(kind, layer)
    if kind == "fifo":  # which our own writer refuses
        for path in host.path(f"{host.root}/layers").glob("*/etc/passwd"):
            if not path.is_symlink() and path.read_text(errors="replace") == "to be replaced":
                path.unlink()
                os.mkfifo(path)
    done = host.minirun("run", "--rm", "--net", "none", "-u", "user", image, "id", check=False, timeout=20)
    assert done.returncode == 125 and "not in the container's /etc/passwd" in done.stderr


def test_e16_a_fifo_in_a_running_container(host: Target) -> None:
    host.ready("box", "rm -f /etc/passwd; mkfifo /etc/passwd; echo ready; exec sleep 1000")
    assert "/etc/passwd" in host.refused("exec", "-u", "user", "box", "id", timeout=20)


def test_e17_the_groups_are_exactly_these(host: Target) -> None:
    """Whoever calls brings none of his own along."""
    caller = ["setpriv", "--groups", "4,5,6", *MINIRUN, "run", "--rm", "--net", "none", "-u", "1000:1000"]
    script = ["busybox", "sh", "-c", "grep Groups /proc/self/status"]
    assert host.run([*caller, *script]).stdout.split() == ["Groups:", "1000"]
    assert host.run([*caller, "--group-add", "77", *script]).stdout.split() == ["Groups:", "77", "1000"]
    # The control: the caller has them.
    shown = host.run(["setpriv", "--groups", "4,5,6", "grep", "Groups", "/proc/self/status"]).stdout
    assert shown.split() == ["Groups:", "4", "5", "6"]


def test_capabilities_are_the_eleven_and_none_is_inheritable(host: Target) -> None:
    status = dict(re.findall(r"(Cap\w+|NoNewPrivs|Seccomp):\s*(\w+)", host.sh("cat /proc/self/status")))
    assert status["CapBnd"] == status["CapEff"] == status["CapPrm"] and bin(int(status["CapBnd"], 16)).count("1") == 11
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


def test_n04_state_is_for_root_alone(host: Target) -> None:
    identity = host.start("busybox", "sleep", "1000")
    for place in (f"{host.state}/containers/{identity}", f"{host.root}/containers/{identity}"):
        inner = host.path(place)
        assert inner.stat().st_mode & 0o077 == 0, place
    reading = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "cat"]
    for file in ("config.json", "hosts", "state.json"):
        path = f"{host.state}/containers/{identity}/{file}"
        assert host.run(["cat", path]).stdout  # the control: root can
        assert host.run([*reading, path], check=False).returncode != 0


def test_n04_no_abstract_sockets(host: Target) -> None:
    def abstract() -> list[str]:
        return re.findall(r" (@\S+)$", Path(f"/proc/{host.pid}/net/unix").read_text(), re.M)

    host.start("busybox", "sleep", "1000")
    host.out("run", "-d", "--name", "inner", "--net", "host", "busybox", "sleep", "1000")
    assert abstract() == []
    code = "import socket; s = socket.socket(socket.AF_UNIX); s.bind(b'\\0seen'); print(open('/proc/net/unix').read())"
    assert "@seen" in host.python(code)  # the control


@pytest.mark.parametrize(
    "name",
    ["", "-x", "--rm", ".", "..", "../x", "a/b", "/a", "a b", "a\nb", "a\tb", "\u00e4", "a;b", "$(id)", "a" * 129],
)
def test_n10_names(host: Target, canary: None, name: str) -> None:
    done = host.minirun("run", "-d", "--net", "none", f"--name={name}", "busybox", "true", check=False)
    assert (done.returncode, done.stdout) == (125, "") and done.stderr.startswith("minirun: ")
    for command in ("inspect", "rm", "kill", "logs"):
        assert host.minirun(command, "--", name, check=False).returncode == 125
    network = host.minirun("network", "create", "--", name, check=False)
    assert network.returncode == 125 and network.stdout == ""


def test_n10_the_longest_name(host: Target) -> None:
    name = "a" * 128
    host.start("--name", name, "busybox", "sleep", "1000")
    assert host.inspect(name)["Name"] == name


@pytest.mark.parametrize("entry", ["PATH", "HOSTNAME_ONLY", "=x", ""])
def test_an_image_does_not_import_the_callers_variables(host: Target, layer: Path, entry: str) -> None:
    with pytest.raises(pytest.fail.Exception, match="is not NAME=value"):
        host.image("env", layer, Env=[entry, "GOOD=1"])
    image = host.image("env", layer, Env=["GOOD=1"])  # the control
    shown = host.run(["env", "HOSTNAME_ONLY=secret", *MINIRUN, "run", "--rm", "--net", "none", image, "env"]).stdout
    assert "secret" not in shown and "GOOD=1" in shown
