"""``minirun run``, and the table of its options, which ``explain run`` shares."""

from __future__ import annotations

import os
import sys

from minirun.cli.arguments import Option, collect, help_text, parse, store
from minirun.cli.main import self_command
from minirun.engine import options as understand
from minirun.engine.options import Attachment, RunOptions
from minirun.engine.record import check_name
from minirun.errors import UsageError
from minirun.network import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


def _set(attribute: str, convert: Callable[[str], Any]) -> Callable[[Any, Any], None]:
    def apply(target: Any, value: Any) -> None:
        setattr(target, attribute, convert(value))

    return apply


def _add(attribute: str, convert: Callable[[str], Any]) -> Callable[[Any, Any], None]:
    def apply(target: Any, value: Any) -> None:
        getattr(target, attribute).append(convert(value))

    return apply


def add_env(target: Any, text: str) -> None:
    """``-e NAME=VALUE``, or ``-e NAME`` for our own variable, if it is set."""
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError(f"-e {text!r}", "the name is missing", "write NAME=VALUE")
    if equals:
        target.env[name] = value
    elif name in os.environ:
        target.env[name] = os.environ[name]


def _add_label(target: RunOptions, text: str) -> None:
    name, _, value = text.partition("=")
    target.labels[name] = value


def _add_ports(target: RunOptions, text: str) -> None:
    from minirun.network import ports

    target.ports += ports.parse(text)


def _add_exposed(target: RunOptions, text: str) -> None:
    from minirun.network import ports

    target.expose += ports.exposed(text)


def _net_flag(flag: str) -> Callable[[Any, Any], None]:
    def apply(target: RunOptions, value: str) -> None:
        target.net_flags.setdefault(flag, []).append(value)

    return apply


def _forward(wish: str) -> Callable[[RunOptions, Any], None]:
    def apply(target: RunOptions, _: Any) -> None:
        target.forward = wish

    return apply


def _dns(target: RunOptions, text: str) -> None:
    target.dns.append(names.parse_server(text))


def _dns_search(target: RunOptions, text: str) -> None:
    target.dns_search = [*(target.dns_search or []), names.parse_domain(text)]


def _dns_option(target: RunOptions, text: str) -> None:
    target.dns_options = [*(target.dns_options or []), names.parse_option(text)]


def _hostname(text: str) -> str:
    if len(text) > 64:  # HOST_NAME_MAX, sethostname(2)
        raise UsageError(f"--hostname {text!r}", "longer than 64 characters")
    return check_name(text, "--hostname")


def _security(target: RunOptions, text: str) -> None:
    name, _, value = text.replace(":", "=", 1).partition("=")
    if (name, value) == ("seccomp", "unconfined"):
        target.seccomp = False
    elif name == "no-new-privileges" and value in ("", "true", "false"):
        target.no_new_privileges = value != "false"
    else:
        raise UsageError(f"--security-opt {text!r}", "", "known: seccomp=unconfined, no-new-privileges=false")


OPTIONS: list[Option] = [
    Option("-d --detach", "", store("detach"), "run in the background and print the container's id"),
    Option("-i --interactive", "", store("interactive"), "keep standard input open"),
    Option("-t --tty", "", store("tty"), "give the container a terminal"),
    Option("--rm", "", store("remove"), "remove the container when it ends"),
    Option("--name", "NAME", _set("name", check_name), "name the container (default: the beginning of its id)"),
    Option(
        "--net --network",
        "NETWORK[:KEY=VALUE,...]",
        collect("nets"),
        "a network (default br0, made at first use), may be repeated; none; host; or container:NAME for that one's",
    ),
    Option("--ip", "ADDRESS", _net_flag("--ip"), "this IPv4 address on the network (default: the next free one)"),
    Option("--ip6", "ADDRESS", _net_flag("--ip6"), "the same for IPv6"),
    Option("--mac-address", "MAC", _net_flag("--mac-address"), "this MAC (default: one that follows from the address)"),
    Option("--network-alias --net-alias", "NAME", _net_flag("--network-alias"), "one more name on its networks"),
    Option("--net-rate-in", "RATE", _net_flag("--net-rate-in"), "limit of what it receives: bits a second, as 10mbit"),
    Option("--net-rate-out", "RATE", _net_flag("--net-rate-out"), "limit of what it sends"),
    Option(
        "--dns",
        "ADDRESS",
        _dns,
        "asked for names that are not containers' (default: the network's, or the host's); may be repeated",
    ),
    Option("--dns-search", "DOMAIN", _dns_search, "search domain (default: the host's; . for none)"),
    Option("--dns-option --dns-opt", "OPTION", _dns_option, "an option of resolv.conf, such as ndots:2"),
    Option(
        "--add-host", "NAME:ADDRESS", _add("hosts", names.parse_host), "a line in /etc/hosts; host-gateway is the host"
    ),
    Option(
        "-p --publish",
        "[[IP:]HOST:]CONTAINER[/PROTO]",
        _add_ports,
        "let a port of the host, or a range, lead into the container; without HOST any free one",
    ),
    Option(
        "-P --publish-all", "", store("publish_all"), "the same for each exposed port, with any free port of the host"
    ),
    Option("--expose", "PORT[-PORT][/PROTO]", _add_exposed, "a port for -P, beside those of the image"),
    Option("--allow-forward", "", _forward("allow"), "open other firewalls of the host for the network"),
    Option("--require-forward", "", _forward("require"), "do not start if another firewall stops its packets"),
    Option("-e --env", "NAME[=VALUE]", add_env, "set an environment variable"),
    Option("-w --workdir", "DIR", store("workdir"), "working directory in the container"),
    Option("-u --user", "USER[:GROUP]", store("user"), "names of the container's own files, or numbers"),
    Option("--group-add", "GROUP", collect("groups"), "a further group"),
    Option("-h --hostname", "NAME", _set("hostname", _hostname), "host name inside"),
    Option("--entrypoint", "PROGRAM", store("entrypoint"), "instead of the image's; empty for none"),
    Option("--read-only", "", store("read_only"), "make the root file system read-only"),
    Option(
        "-v --volume",
        "SRC:DST[:ro]",
        _add("volumes", lambda v: understand.volume(v, os.getcwd())),
        "show a file or directory of the host in the container",
    ),
    Option("--tmpfs", "DIR[:OPTIONS]", _add("tmpfs", understand.tmpfs), "mount an empty file system in memory"),
    Option("-m --memory", "SIZE", _set("memory", understand.memory), "limit of memory, such as 64m; no swap beyond it"),
    Option("--cpus", "N", _set("cpus", understand.cpus), "limit of CPU time, such as 0.5"),
    Option(
        "--pids-limit",
        "N",
        _set("pids_limit", lambda v: understand.whole(v, "--pids-limit", -1)),
        "limit of processes (default 2048; -1 for none)",
    ),
    Option("--cap-add", "CAP", collect("cap_add"), "give a capability, or ALL"),
    Option("--cap-drop", "CAP", collect("cap_drop"), "take a capability away, or ALL"),
    Option("--security-opt", "OPTION", _security, "seccomp=unconfined, no-new-privileges=false"),
    Option("--stop-signal", "SIGNAL", store("stop_signal"), "what `stop` sends (default: the image's, or TERM)"),
    Option(
        "--stop-timeout",
        "SECONDS",
        _set("stop_timeout", lambda v: understand.whole(v, "--stop-timeout")),
        "how long `stop` waits before SIGKILL (default 10)",
    ),
    Option("-l --label", "NAME=VALUE", _add_label, "note something about the container"),
]

USAGE = "run [OPTIONS] IMAGE [COMMAND [ARG...]]"
EXAMPLES = (
    "minirun run -it --rm alpine sh",
    "minirun run -d --name web -p 8080:80 nginx",
    "minirun run --rm -m 64m --cpus 0.5 --read-only --tmpfs /tmp alpine sh -c 'df; free'",
)


def understand_arguments(argv: Sequence[str]) -> RunOptions:
    """The options of a command line, checked. Raises UsageError."""
    options = RunOptions()
    operands = parse(argv, OPTIONS, options, operands_first=False)
    if not operands:
        raise UsageError("run", "an image is missing", "minirun run [OPTIONS] IMAGE [COMMAND]")
    options.image, options.command = operands[0], operands[1:]
    _settle_networks(options)
    if options.stop_signal:
        from minirun.cli.signals import number

        number(options.stop_signal)
    return options


def _settle_networks(options: RunOptions) -> None:
    """Understand the flags of the network. The plain ``--net NAME`` is spared the module that knows all the others."""
    only = options.nets[0] if len(options.nets) == 1 and not options.net_flags else ""
    if only in ("none", "host"):
        options.network = only
    elif only and only not in understand.NET_WORDS and not any(sign in only for sign in ",:="):
        options.networks = [Attachment(check_name(only, "--net"))]
    elif options.nets or options.net_flags:
        from minirun.engine import attachments

        attachments.settle(options)
    if options.forward and options.network != "bridge":
        flag = {"allow": "--allow-forward", "require": "--require-forward"}[options.forward]
        raise UsageError(flag, f"has no meaning with --net {options.nets[0]}", "use a network")
    if options.network in ("none", "container") and (options.dns or options.dns_search or options.dns_options):
        raise UsageError("--dns", f"has no meaning with --net {options.nets[0]}", "use a network")
    if options.network == "container" and options.hosts:
        raise UsageError("--add-host", f"/etc/hosts comes with the network of --net {options.nets[0]}", "leave it out")


def run(argv: list[str]) -> int:
    """``minirun run``."""
    if argv and argv[0] == "--help":
        sys.stdout.write(help_text(USAGE, "Run a command in a new container.", OPTIONS, EXAMPLES))
        return 0
    from minirun.engine import run as engine

    options = understand_arguments(argv)
    if options.tty and options.interactive and not options.detach and not os.isatty(0):
        raise UsageError("-t", "standard input is not a terminal", "leave out -t, or run it in a terminal")
    image = engine.find_image(options.image, progress)
    started = engine.start(image, options, self_command(), warn)
    if options.detach:
        sys.stdout.write(started.container.id + "\n")
        return 0
    code = started.follow()
    if started.oom and code == 137:  # another process than the first may have been hit, and the container gone on
        sys.stderr.write(f"minirun: {started.container.id[:12]} was killed for memory: {memory_line(options)}\n")
    return code


def memory_line(options: RunOptions) -> str:
    """Which limit it was, for whoever was hit by it."""
    if options.memory:
        return f"it reached its limit of {options.memory >> 20} MiB (-m); give it more, or look for a leak"
    return "the machine ran out of memory"


def warn(text: str) -> None:
    """A line about something that works but will hurt, on standard error."""
    from minirun.cli.failure import clean

    progress(f"warning: {clean(text)}")


def progress(text: str) -> None:
    """A line of progress of something slow, on standard error."""
    sys.stderr.write(f"minirun: {text}\n")
    sys.stderr.flush()
