"""Bad input: one clear line on standard error, the right exit code, nothing left behind."""

from __future__ import annotations

import shutil

import pytest

from tests.lifecycle.machine import MINIRUN, Machine, one_line

R = ("run", "--rm", "--net", "none")
END = ("busybox", "true")
LAB = ("network", "create", "--subnet", "10.77.0.0/24")
NAMES = ["", "-x", ".x", "_x", "../x", "a/b", "a b", "ü", "x" * 129, "x\n", "x\033[31m", "$(id)", "*"]

# words: a piece of the complaint
WRONG: dict[tuple[str, ...], str] = {
    # no command, or an unknown one
    ("nonsense",): "unknown command 'nonsense'",
    ("--nonsense", "ps"): "unknown option --nonsense",
    ("--root",): "needs a value",
    ("run",): "image is missing",
    ("exec",): "is missing",
    ("exec", "box"): "is missing",
    ("stop",): "is missing",
    ("kill",): "is missing",
    ("rm",): "is missing",
    ("wait",): "is missing",
    ("inspect",): "is missing",
    ("logs",): "takes one container",
    ("logs", "a", "b"): "takes one container",
    ("ps", "extra"): "no arguments",
    ("image", "nonsense"): "unknown",
    ("image", "tag", "one"): "two names",
    ("image", "build"): "is missing",
    ("image", "build", "nonsense"): "nonsense",
    ("network", "nonsense"): "unknown",
    ("network", "create"): "one name",
    ("network", "rm"): "is missing",
    ("network", "ls", "br0"): "takes no names",
    ("network", "ls", "--filter", "driver=x"): "--filter driver=x",
    ("network", "prune", "lab"): "takes no names",
    ("network", "create", "--driver", "macvlan", "n"): "--driver macvlan",
    ("network", "create", "-o", "nonsense=1", "n"): "known: com.docker.network.bridge.enable_icc=",
    ("network", "create", "-o", "mtu", "n"): "--opt mtu",
    ("network", "create", "-o", "isolate=false", "n"): "--opt isolate=false",
    ("network", "create", "-o", "com.docker.network.bridge.enable_icc=perhaps", "n"): "not true or false",
    ("network", "create", "--mtu", "big", "n"): "--mtu",
    ("network", "create", "--interface-name", "x" * 16, "n"): "--interface-name",
    ("network", "create", "-o", "com.docker.network.bridge.name=a/b", "n"): "--interface-name",
    ("network", "create", "--mtu", "67", "n"): "--mtu",
    ("network", "create", "--mtu", "1200", "--ipv6", "n"): "--mtu 1200",
    ("network", "create", "--dns", "example.org", "n"): "--dns example.org",
    ("network", "create", "--label", "=x", "n"): "--label",
    ("network", "create", "--gateway", "10.99.0.1", "--subnet", "10.77.0.0/24", "n"): "--gateway 10.99.0.1",
    ("network", "create", "--gateway", "nonsense", "n"): "--gateway nonsense",
    ("network", "create", "--ip-range", "10.99.0.0/25", "--subnet", "10.77.0.0/24", "n"): "--ip-range 10.99.0.0/25",
    ("network", "create", "--subnet", "10.77.0.0/24", "--subnet", "10.77.0.0/25", "n"): "overlaps",
    ("network", "create", "--subnet", "127.0.0.0/24", "n"): "RFC 6890",
    ("network", "create", "--subnet", "10.77.0.1/24", "n"): "did you mean 10.77.0.0/24",
    ("network", "create", "host"): "another meaning",
    ("network", "create", "--icc=no", "n"): "takes no value but true or false",
    ("network", "create", "--gateway", "10.77.0.254", "n"): "give --subnet, too",
    ("network", "create", "--ip-range", "10.77.0.0/25", "n"): "give --subnet, too",
    ("network", "create", "--subnet", "10.77.0.0/24", "--gateway", "fd00::1", "--ipv6", "n"): "no IPv6 --subnet",
    (*LAB, "--ip-range", "10.77.0.1/32", "n"): "--ip-range 10.77.0.1/32: it has no address for a container",
    (*LAB, "--ip-range", "10.77.0.255/32", "n"): "no address for a container",
    (*LAB, "--ip-range", "10.77.0.0-10.77.0.1", "n"): "no address for a container",
    (*LAB, "--ip-range", "10.77.0.64/26", "--ip-range", "10.77.0.128/26", "n"): "has the range 10.77.0.64/26",
    (*LAB, "--gateway", "10.77.0.2", "--gateway", "10.77.0.3", "n"): "has the gateway 10.77.0.2",
    **{("network", "create", "--dns", nobody, "n"): f"--dns {nobody}: nobody" for nobody in ("0.0.0.0", "::")},
    ("network", "inspect"): "network inspect: a name is missing",
    ("network", "exists"): "minirun network exists NAME",
    ("network", "ls", "--format", "{{.Name}}"): "templates are not understood; json or table",
    (*R, "--allow-forward", *END): "--allow-forward: has no meaning with --net none",
    ("run", "--rm", "--net", "host", "--require-forward", *END): "--require-forward: has no meaning with --net host",
    # options
    (*R, "--nonsense", *END): "unknown option --nonsense",
    (*R, "--memroy", "1g", *END): "unknown option --memroy",
    (*R, "--interactiv", *END): "did you mean --interactive",
    (*R, "-Z", *END): "unknown option -Z",
    (*R, "--rm=perhaps", *END): "takes no value",
    ("run", "-m"): "needs a value",
    ("run", "--name"): "needs a value",
    ("run", "-e"): "needs a value",
    ("ps", "--format", "yaml"): "json or table",
    ("ps", "--format"): "needs a value",
    ("images", "--format", "xml"): "json or table",
    ("stats", "--format", "{{.Name}}"): "json or table",
    ("inspect", "--type", "pod", "x"): "container, image or network",
    ("logs", "--tail", "many", "x"): "--tail",
    ("logs", "--tail", "-1", "x"): "--tail",
    ("stop", "-t", "soon", "x"): "--time",
    ("stop", "-t", "-1", "x"): "--time",
    ("kill", "-s", "NOSUCH", "x"): "signal",
    ("kill", "-s", "0", "x"): "signal",
    ("kill", "-s", "65", "x"): "signal",
    ("kill", "-s", "", "x"): "signal",
    ("kill", "-s", "-9", "x"): "signal",
    (*R, "--stop-signal", "NOSUCH", *END): "signal",
    (*R, "--stop-timeout", "x", *END): "--stop-timeout",
    (*R, "-e", "=x", *END): "-e",
    (*R, "-e", "", *END): "-e",
    (*R, "--security-opt", "nonsense", *END): "--security-opt",
    # sizes and numbers
    **{
        (*R, "-m", size, *END): "--memory"
        for size in ("", "x", "1x", "-1", "1.2.3m", "0", "1m", "m", " 64m", "6 4m", "1e9", "٣m", "nan", "9" * 30)
    },
    **{
        (*R, "--cpus", number, *END): "--cpus" for number in ("", "x", "0", "-1", "1e3", "inf", "nan", "0.001", "99999")
    },
    **{(*R, "--pids-limit", number, *END): "--pids-limit" for number in ("", "x", "-2", "1.5", "9" * 20)},
    # names
    **{(*R, "--name", name, *END): "must match" for name in NAMES},
    **{("run", "--rm", "--net", name, *END): "must match" for name in NAMES},
    **{
        ("run", "--rm", "--net", mode, *END): f"--net {mode}"
        for mode in ("slirp4netns", "pasta", "pasta:-t,80", "private", "ns:/run/netns/x")
    },
    (*R, "--net", "br0", *END): "cannot be combined",
    ("run", "--rm", "--net", "host,br0", *END): "cannot be combined",
    ("run", "--rm", "--net", "br0,br0", *END): "given twice",
    ("run", "--rm", "--net", "nobody", *END): "network nobody",
    ("run", "--rm", "--net", "br0,nobody", *END): "network nobody",
    ("run", "--rm", "--net", "br0:speed=9", *END): "known: ip, ip6, mac",
    ("run", "--rm", "--net", "ip=10.201.0.9", *END): "names no network",
    ("run", "--rm", "--net", "br0:interface_name=a/b", *END): "--net br0:interface_name=a/b",
    ("run", "--rm", "--net", "br0:interface_name=lo", *END): "not a name for an interface",
    ("run", "--rm", "--net", "br0:driver-opt=mtu=9", *END): "unknown option",
    ("run", "--rm", "--net", "br0:ip=10.201.0.8,ip=10.201.0.9", *END): "one address of a family",
    ("run", "--rm", "--net", "container:", *END): "container:",
    ("run", "--rm", "--net", "container:a b", *END): "container:",
    ("run", "--rm", "--net", "container:x", "-p", "80:80", *END): "-p",
    ("run", "--rm", "--net", "container:x", "--hostname", "h", *END): "--hostname",
    ("run", "--rm", "--net", "container:x", "--ip", "10.201.0.9", *END): "--ip",
    ("run", "--rm", "--net", "a", "--net", "b", "--ip", "10.201.0.9", *END): "--net a:ip=10.201.0.9",
    (*R, "--network-alias", "db", *END): "--network-alias",
    (*R, "--mac-address", "02:00:00:00:00:01", *END): "--mac-address",
    ("run", "--rm", "--ip", "10.201.0.8", "--ip", "10.201.0.9", *END): "given twice",
    **{
        ("run", "--rm", "--ip", address, *END): f"--ip {address}"
        for address in ("x", "10.201.0", "10.201.0.256", "10.201.0.01", "10.201.0.0", "10.201.0.1", "10.201.15.255")
    },
    ("run", "--rm", "--ip6", "10.201.0.9", *END): "--ip6 10.201.0.9: not an IPv6 address; write --ip 10.201.0.9",
    ("run", "--rm", "--ip", "fd00::9", *END): "--ip fd00::9: not an IPv4 address; write --ip6 fd00::9",
    ("run", "--rm", "--net", "br0:ip=fd00::9", *END): "write --net br0:ip6=fd00::9",
    ("run", "--rm", "--net", "a:interface_name=x", "--net", "b:interface_name=x", *END): "--net b:interface_name=x",
    ("run", "--rm", "--net", "br0:ip=", *END): "--net br0:ip=: not an address",
    ("run", "--rm", "--net", "br0:alias=a b", *END): "--net br0:alias=a b: not a host name",
    ("run", "--rm", "--net", "a", "--net", "b", "--net-rate-in", "1mbit", *END): "say for which: --net a:rate-in=1mbit",
    ("run", "--rm", "--ip6", "fd00::9", *END): "no IPv6",
    **{
        ("run", "--rm", "--mac-address", mac, *END): f"--mac-address {mac}"
        for mac in ("x", "02:00:00:00:00", "02:00:00:00:00:0g", "01:00:5e:00:00:01", "00:00:00:00:00:00", "ff" * 6)
    },
    ("run", "--rm", "--network-alias", "a b", *END): "--network-alias",
    ("run", "--rm", "--dns", "example.org", *END): "--dns example.org",
    ("run", "--rm", "--dns-search", "a b", *END): "--dns-search",
    ("run", "--rm", "--dns-option", "a b", *END): "--dns-option",
    ("run", "--rm", "--add-host", "db", *END): "--add-host db",
    ("run", "--rm", "--add-host", "db:nowhere", *END): "--add-host db:nowhere",
    (*R, "--add-host", "db:host-gateway", *END): "no gateway",
    (*R, "--dns", "192.0.2.1", *END): "--dns",
    ("run", "--rm", "--net", "container:x", "--dns", "192.0.2.1", *END): "--dns",
    ("run", "--rm", "--net", "container:x", "--add-host", "db:192.0.2.1", *END): "--add-host",
    **{("network", "create", name): "must match" for name in NAMES if name != "-x"},
    **{(*R, "--hostname", name, *END): "--hostname" for name in ("", "a b", "../x", "x\n", "x" * 65)},
    ("network", "create", "x" * 129): "must match",
    ("network", "create", "--subnet", "10.0.0.0/8/8", "n"): "10.0.0.0/8/8",
    ("network", "create", "--subnet", "10.0.0.256/24", "n"): "10.0.0.256",
    ("network", "create", "--subnet", "nonsense", "n"): "nonsense",
    ("network", "create", "--subnet", "10.0.0.0/31", "n"): "10.0.0.0/31",
    ("network", "inspect", "nobody"): "nobody",
    ("network", "rm", "nobody"): "nobody",
    # ports
    **{
        ("run", "--rm", "-p", port, *END): "-p"
        for port in (
            "",
            "x",
            "65536:80",
            "80:65536",
            "80:x",
            "1.2.3:80:80",
            "1.2.3.4.5:80:80",
            "80:80/icmp",
            "80:80:80:80",
            "-1:80",
            "8000-8002:80-81",
            "80:80-85",
            "192.0.2.77:80:80",
            " 80:80",
            "80:80/",
        )
    },
    (*R, "-p", "80:80", *END): "publishes nothing",
    # images
    **{
        ("run", "--rm", image, "true"): image.strip()[:5]
        for image in ("nonsense", "UPPER", "a//b", "x:y:z", "../../etc", "busybox:nonsense", "sha256:00", "@sha256:00")
    },
    ("run", "--rm", "", "true"): "",
    ("run", "--rm", "two\nlines", "true"): "two",
    ("run", "--rm", "esc\033[31mape", "true"): "ape",
    ("image", "inspect", "nobody"): "nobody",
    ("image", "rm", "nobody"): "nobody",
    ("image", "tag", "nobody", "x"): "nobody",
    # containers
    ("inspect", "two\nlines"): "lines",
    ("inspect", "esc\033[31mape"): "ape",
    ("inspect", "../../etc"): "etc",
    ("logs", "../x"): "must match",
    ("rm", "-f", "../x"): "must match",
    ("exec", "no\nbody", "true"): "must match",
    ("--esc\033[31m",): "unknown option",
    ("ps", "--two\nlines"): "unknown option",
    # mounts
    **{
        (*R, "--tmpfs", mount, *END): "--tmpfs"
        for mount in ("", "x", "/", "/proc", "/dev/x", "/x:nonsense", "/x:size=lots", "/../x", "/x:mode=9")
    },
    (*R, "-w", "", *END): "",
    # terminals
    (*R, "-it", *END): "not a terminal",
    # OCI and explain
    ("explain", "nonsense"): "cannot be explained",
    ("explain", "run"): "image is missing",
    ("explain", "run", "nonsense"): "no such image",
    ("cleanup", "x", "3"): "",
}
ACCEPTED = {(*R, "-w", "", *END)}  # as with docker: the same as none


@pytest.mark.parametrize("words", list(WRONG), ids=lambda words: " ".join(words).encode("unicode_escape").decode()[:60])
def test_bad_input(host: Machine, words: tuple[str, ...]) -> None:
    done = host.minirun(*words, check=False)
    if words in ACCEPTED:
        assert done.returncode == 0
        return
    assert done.returncode == 125, done
    assert done.stdout in ("", "[]\n"), done
    assert WRONG[words] in one_line(done.stderr)
    assert "internal error" not in done.stderr


def test_no_command_at_all(host: Machine) -> None:
    done = host.minirun(check=False)
    assert done.returncode == 125 and done.stdout.startswith("usage:")


def test_help_of_every_command(host: Machine) -> None:
    commands = [line.split()[0] for line in host.out("--help").split("commands:\n")[1].split("\n\n")[0].splitlines()]
    assert {"run", "exec", "ps", "network"} <= set(commands)
    for command in commands:
        if command != "version":
            assert host.out(command, "--help").startswith("usage:"), command


def test_explain_refuses_what_the_command_refuses(host: Machine) -> None:
    host.minirun("network", "create", "--interface-name", "foo0", "there")
    host.minirun("run", "-d", "--name", "box", "--net", "none", "busybox", "sleep", "600")
    for words in (
        ("run", "--net", "nosuch", *END),
        ("run", "--net", "there", "--net", "nosuch", *END),
        ("run", "--net", "none", "-p", "80", *END),
        ("run", "--name", "box", *END),
        ("network", "create", "there"),
        ("network", "create", "--interface-name", "foo0", "other"),
        ("network", "create", "foo0"),
    ):
        explained = host.refused("explain", *words)
        assert explained == host.refused(*words, code=125)
    assert "interface foo0: it is the bridge of network there; choose another name" in explained
    host.minirun("rm", "-f", "box")
    host.run(["rm", "-r", f"{host.root}/networks/there"])
    assert "network there of another minirun" in host.refused("network", "create", "foo0")
    host.minirun("doctor", "--leaks", "--fix", check=False)
    host.minirun("doctor", "--leaks", "--fix", check=False)
    for words in (["run"], ["network", "create"]):
        assert host.out("explain", *words, "--help") == host.out(*words, "--help")


def test_without_root(host: Machine) -> None:
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *MINIRUN]
    for words in (["run", "busybox"], ["ps"], ["images"], ["network", "ls"]):
        done = host.run([*nobody, *words], check=False)
        assert (done.returncode, done.stdout) == (125, "")
        assert "needs root" in one_line(done.stderr) and "sudo minirun" in done.stderr
    assert host.run([*nobody, "--help"]).stdout.startswith("usage:")
    assert "minirun" in host.run([*nobody, "version"]).stdout


def test_debug_shows_where(host: Machine) -> None:
    done = host.minirun("--debug", "run", "no-such-image", check=False)
    assert done.returncode == 125 and "Traceback" in done.stderr
    assert "Traceback" not in host.minirun("run", "no-such-image", check=False).stderr


def test_a_full_disk_is_one_line(host: Machine) -> None:
    """The root folder on a file system without room: nothing is started, nothing is left."""
    host.run(["sh", "-c", "mkdir -p /run/small && mount -t tmpfs -o size=4k,nr_inodes=6 small /run/small"])
    done = host.minirun("--root", "/run/small", "run", "busybox", "true", check=False)
    assert done.returncode == 125
    one_line(done.stderr.splitlines(keepends=True)[-1])
    host.run(["umount", "/run/small"])


def test_a_foreign_namespace_of_that_name_is_left_alone(host: Machine) -> None:
    host.run(["ip", "netns", "add", "theirs"])
    assert "network namespace theirs" in host.refused("run", "--rm", "--name", "theirs", *END)
    host.run(["ip", "netns", "exec", "theirs", "true"])
    host.run(["ip", "netns", "del", "theirs"])


def test_a_broken_record_does_not_stop_the_others(host: Machine) -> None:
    """Someone's editor wrote nonsense into one container's record: the others can still be used."""
    broken, whole = (host.start("busybox", "sleep", "600") for _ in range(2))
    record = host.path(f"{host.root}/containers/{broken}/container.json")
    text = record.read_text()
    record.write_text("{nonsense")
    done = host.minirun("exec", whole, "echo", "works", check=False)
    record.write_text(text)
    assert done.stdout == "works\n"


@pytest.mark.skipif(not shutil.which("setpriv"), reason="util-linux's setpriv is missing")
def test_without_a_capability_the_line_says_which_right_is_missing(host: Machine) -> None:
    words = ["setpriv", "--bounding-set=-sys_admin", *MINIRUN, *R, *END]
    done = host.run(words, check=False)
    assert done.returncode == 125
    assert "not permitted" in one_line(done.stderr)
