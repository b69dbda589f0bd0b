"""The options of ``run`` that say what the program finds: environment, user, directories, mounts."""

from __future__ import annotations

import pytest

from tests.lifecycle.machine import Machine

RUN = ("run", "--rm", "--net", "none")


def test_the_environment(host: Machine) -> None:
    lines = set(
        host.sh(
            "env", "-e", "A=1", "-e", "A=2", "--env=B=x=y", "-e", "EMPTY=", "-e", "MINIRUN_STATE", "-e", "UNSET"
        ).splitlines()
    )
    assert {"A=2", "B=x=y", "EMPTY=", f"MINIRUN_STATE={host.state}", "HOME=/root"} <= lines
    assert any(line.startswith("PATH=/usr/local/sbin:") for line in lines)
    assert not any(line.startswith(("UNSET", "PYTHONPATH", "MINIRUN_ROOT")) for line in lines)


def test_the_environment_may_hold_anything(host: Machine) -> None:
    assert (
        host.sh('printf %s "$ODD"', "-e", "ODD=two\nlines 'and' \"quotes\" \\ ü \033[1m")
        == "two\nlines 'and' \"quotes\" \\ ü \033[1m"
    )


def test_arguments_may_hold_anything(host: Machine) -> None:
    odd = ["", " ", "--rm", "-it", "ü", "a\nb", "$(id)", "'\"\\", "--"]
    assert host.out(*RUN, "busybox", "printf", "[%s]", *odd) == "".join(f"[{word}]" for word in odd)


def test_arguments_that_are_not_text(host: Machine) -> None:
    """File names are bytes; so are arguments."""
    command = host.spawn(*RUN, "busybox", "printf", "%s", b"\xff\xfe", text=False)
    output, errors = command.communicate(timeout=20)
    assert (output, errors) == (b"\xff\xfe", b"")
    host.start("busybox", "printf", b"\xff")  # type: ignore[arg-type]
    assert "printf" in host.out("ps", "-a")


def test_the_working_directory_is_made_if_missing(host: Machine) -> None:
    assert host.sh("pwd; stat -c %u:%g:%a .", "-w", "/new/deep place") == "/new/deep place\n0:0:755"
    assert host.sh("pwd", "-w", "/etc/../etc/./") == "/etc"
    assert "absolute" in host.refused(*RUN, "-w", "relative", "busybox", "true")
    assert "not a directory" in host.refused(*RUN, "-w", "/bin/busybox/x", "busybox", "true", code=126)


@pytest.mark.parametrize(
    ("user", "shown"),
    [
        ("0", "0 0 0 1 2 3 4 6 10 11 20 26 27"),
        ("1", "1 1 1 2 3"),
        ("nobody", "65534 65534 65534"),
        ("nobody:12", "65534 12 12"),
        ("guest:www-data", "405 82 82"),
        ("1234", "1234 0 0"),
        ("1234:5678", "1234 5678 5678"),
        ("0:7", "0 7 7"),
        ("2147483647:2147483647", "2147483647 2147483647 2147483647"),
    ],
)
def test_users(host: Machine, user: str, shown: str) -> None:
    assert host.sh("echo $(id -u) $(id -g) $(id -G)", "-u", user, image="alpine") == shown


def test_groups_are_exactly_those_of_the_image_and_the_options(host: Machine) -> None:
    """None of ours leaks in; naming a group drops those of /etc/group, as with docker."""
    assert host.sh("id -G", image="alpine") == "0 1 2 3 4 6 10 11 20 26 27"
    assert host.sh("id -G", "-u", "0:0", image="alpine") == "0"
    assert set(
        host.sh("id -G", "-u", "nobody", "--group-add", "audio", "--group-add", "4321", image="alpine").split()
    ) == {"65534", "18", "4321"}


@pytest.mark.parametrize(
    "user", ["ghost", "0:ghost", "2147483648", "4294967296", "1:2147483648", "-1", "99999999999999999999", ":", "root:"]
)
def test_users_that_are_refused(host: Machine, user: str) -> None:
    host.refused(*RUN, "-u", user, "alpine", "true")


def test_the_home_directory_is_the_users(host: Machine) -> None:
    assert host.sh("echo $HOME", "-u", "guest", image="alpine") in ("/dev/null", "/")
    assert host.sh("echo $HOME", "-u", "guest", "-e", "HOME=/mine", image="alpine") == "/mine"


def test_a_name_for_the_machine(host: Machine) -> None:
    assert (
        host.sh("hostname; cat /etc/hostname; echo $HOSTNAME; grep -c box /etc/hosts", "--hostname", "box")
        == "box\nbox\nbox\n1"
    )
    identity = host.start("busybox", "hostname")
    host.out("wait", identity)
    assert host.out("logs", identity) == identity[:12]


def test_the_entrypoint(host: Machine) -> None:
    assert host.out(*RUN, "--entrypoint", "echo", "busybox", "a", "b") == "a b"
    assert host.out(*RUN, "--entrypoint", "", "busybox", "echo", "c") == "c"
    assert "names none" in host.refused(*RUN, "--entrypoint", "", "busybox")


def test_the_images_command_is_the_default(host: Machine) -> None:
    assert host.minirun(*RUN, "-i", "busybox", stdin="echo from sh\n").stdout == "from sh\n"


def test_a_read_only_root(host: Machine) -> None:
    script = "touch /x 2>&1; touch /tmp/x && echo tmp; touch /dev/shm/x && echo shm; mount | grep ' / ' | grep -o '(ro'"
    shown = host.sh(script, "--read-only", "--tmpfs", "/tmp").splitlines()
    assert shown == ["touch: /x: Read-only file system", "tmp", "shm", "(ro"]
    assert host.sh("touch /x && echo ok") == "ok"


def test_a_file_system_in_memory(host: Machine) -> None:
    mount = host.sh("grep ' /scratch ' /proc/mounts; stat -c %a /scratch", "--tmpfs", "/scratch:size=1m,mode=700,exec")
    assert "size=1024k" in mount and "nosuid,nodev" in mount and "noexec" not in mount and mount.endswith("700")
    assert "noexec" in host.sh("grep ' /tmp ' /proc/mounts", "--tmpfs", "/tmp")


def test_volumes_read_and_written(host: Machine) -> None:
    host.run(["sh", "-c", "mkdir -p /run/share/sub; echo text > /run/share/file; ln -s share /run/link"])
    assert host.sh("cat /data/file; echo new > /data/new; ls /data", "-v", "/run/share:/data") == "text\nfile\nnew\nsub"
    assert host.path("/run/share/new").read_text() == "new\n"
    assert host.sh("cat /data/file; echo x > /data/file", "-v", "/run/share:/data:rw") == "text"
    assert host.sh("touch /data/file 2>&1 | grep -o Read-only", "-v", "/run/share:/data:ro") == "Read-only"
    assert host.path("/run/share/file").read_text() == "x\n"
    assert host.sh("ls /data", "-v", "/run/link:/data") == "file\nnew\nsub"  # a link on the host is followed


def test_a_read_only_volume_is_read_only_all_through(host: Machine) -> None:
    """Also the file systems that are mounted below it."""
    host.run(["sh", "-c", "mkdir -p /run/top/inner; mount -t tmpfs t /run/top/inner; touch /run/top/inner/file"])
    for place in ("/data", "/data/inner"):
        script = f"ls {place} > /dev/null && touch {place}/x 2>&1 | grep -o 'Read-only'"
        assert host.sh(script, "-v", "/run/top:/data:ro") == "Read-only"
    host.run(["umount", "/run/top/inner"])


def test_a_file_as_volume(host: Machine) -> None:
    host.run(["sh", "-c", "echo single > /run/single"])
    assert host.sh("cat /etc/motd /a/b", "-v", "/run/single:/etc/motd", "-v", "/run/single:/a/b:ro") == "single\nsingle"


def test_a_relative_source(host: Machine) -> None:
    assert host.out(*RUN, "-v", "./pyproject.toml:/p", "busybox", "grep", "-c", "project.scripts", "/p") == "1"


def test_a_volume_through_the_containers_links_stays_inside(host: Machine) -> None:
    """A link to /run is the container's /run: the mount lands there, not on the host."""
    host.run(["sh", "-c", "mkdir -p /run/share /run/links; ln -sfn /run /run/links/way"])
    assert host.sh("ls /run", "-v", "/run/links:/links", "-v", "/run/share:/links/way/new") == "new"
    assert not host.path("/run/new").exists()


@pytest.mark.parametrize(
    ("volume", "text"),
    [
        ("/run/nowhere:/x", "no such file"),
        ("/etc:/proc", "over /proc"),
        ("/etc:/proc/sys/kernel", "over /proc"),
        ("/etc:/sys/fs", "over /proc"),
        ("/etc:/dev", "over /proc"),
        ("/etc:/x/../proc", "absolute path"),
        ("/etc://proc/", "over /proc"),
        ("/etc:x", "absolute path"),
        ("/etc:/", "absolute path"),
        ("/etc", "missing"),
        (":/x", "missing"),
        ("/etc:", "missing"),
        ("/etc:/x:rx", "unknown option"),
        ("name:/x", "must be a path"),
    ],
)
def test_volumes_that_are_refused(host: Machine, volume: str, text: str) -> None:
    assert text in host.refused(*RUN, "-v", volume, "busybox", "true")


def test_containers_write_apart_from_each_other_and_the_image(host: Machine) -> None:
    assert host.sh("echo mine > /file; rm /bin/ls; cat /file") == "mine"
    assert host.sh("test -e /bin/ls && ! test -e /file && echo untouched") == "untouched"


def test_a_missing_image_is_built_from_its_recipe_or_refused(host: Machine) -> None:
    assert "no such image" in host.refused(*RUN, "no-such-image", "true")


def test_no_new_network_unless_asked(host: Machine) -> None:
    assert host.sh("ls /sys/class/net") == "lo"
    assert "eth0" in host.out("run", "--rm", "busybox", "ls", "/sys/class/net").split()
    assert "eth1" in host.out("run", "--rm", "--net", "host", "busybox", "ls", "/sys/class/net").split()
