"""What a container knows about names: the texts of its /etc/resolv.conf and /etc/hosts, and the flags that shape them.

A container on a network of ours asks the name server on that network's gateway (``nameserver``), which knows its
siblings and passes the rest on. Without such a network there is nobody to ask.
"""

from __future__ import annotations

from minirun import store
from minirun.errors import UsageError
from minirun.network import addresses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RESOLV_CONF, HOSTS = "/etc/resolv.conf", "/etc/hosts"
DOMAIN = "minirun.internal"  # `.internal` is for private use (ICANN, 2024); never asked of anybody else
HOST_GATEWAY = "host-gateway"  # docker's word for the address by which a container reaches its host
MAX_SERVERS, MAX_DOMAINS = 3, 6  # MAXNS, MAXDNSRCH of resolv.h
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")


def resolv_conf(
    gateways: Sequence[str],
    search: Sequence[str] | None = None,
    options: Sequence[str] | None = None,
    internal: bool = False,
) -> str:
    """The resolv.conf of a container whose networks have these gateways; "" without any.

    ``search`` and ``options`` are those of ``--dns-search`` and ``--dns-option``, None for the host's; the search
    domain "." means none. Nothing outside is known to a container whose networks are all ``internal``: the host's
    search domains would only make it ask in vain. Where there are search domains, ours comes first: musl and glibc
    try them before a plain name, and a sibling must not be looked for elsewhere first.
    """
    if not gateways:
        return ""
    host = (store.read(RESOLV_CONF) or "").splitlines()
    if search is None:
        search = [] if internal else _last_search(host)
    domains = [domain for domain in search if domain != "."]
    if domains:
        domains = list(dict.fromkeys((DOMAIN, *domains)))[:MAX_DOMAINS]
    if options is None:
        options = [word for line in host for word in _words(line, "options")]
    lines = [f"nameserver {gateway}" for gateway in list(dict.fromkeys(gateways))[:MAX_SERVERS]]
    lines += [f"search {' '.join(domains)}"] if domains else []
    lines += [f"options {' '.join(options)}"] if options else []
    return "\n".join(lines) + "\n"


def hosts(
    hostname: str, name: str, own: Sequence[str], added: Iterable[tuple[str, str]] = (), gateway: str = ""
) -> str:
    """The container's /etc/hosts: localhost, itself by its ``own`` addresses, and those of ``--add-host``.

    ``own`` is empty where the container has no network but lo. ``gateway`` is what ``host-gateway`` stands for.
    Raises UsageError if that is asked for and there is none. ::1 only where there is IPv6.
    """
    lines = ["127.0.0.1\tlocalhost"]
    if any(":" in address for address in own):
        lines.append("::1\tlocalhost ip6-localhost ip6-loopback")
    names = " ".join(dict.fromkeys((hostname, name)))
    lines += [f"{address}\t{names}" for address in own or ["127.0.0.1"]]
    for host, address in added:
        if address == HOST_GATEWAY and not gateway:
            raise UsageError(f"--add-host {host}:{HOST_GATEWAY}", "this container has no gateway", "give an address")
        lines.append(f"{gateway if address == HOST_GATEWAY else address}\t{host}")
    return "\n".join(lines) + "\n"


def hosts_of_host(added: Iterable[tuple[str, str]]) -> str:
    """The /etc/hosts of a container in the host's network: the host's, and those of ``--add-host``."""
    text = (store.read(HOSTS) or "127.0.0.1\tlocalhost").rstrip("\n")
    own = {HOST_GATEWAY: "127.0.0.1"}
    return "\n".join([text, *(f"{own.get(address, address)}\t{host}" for host, address in added)]) + "\n"


def resolv_conf_of_host(
    servers: Sequence[str], search: Sequence[str] | None = None, options: Sequence[str] | None = None
) -> str:
    """The resolv.conf of a container in the host's network: the host's, but for what was asked for."""
    lines = (store.read(RESOLV_CONF) or "").rstrip("\n").split("\n")
    given = {"nameserver": servers or None, "search": search, "options": options}
    gone = {word for word, value in given.items() if value is not None} | ({"domain"} if search is not None else set())
    lines = [line for line in lines if not gone.intersection(line.split()[:1])]
    lines += [f"nameserver {server}" for server in servers]
    lines += [f"{word} {' '.join(given[word] or ())}" for word in ("search", "options") if given[word]]
    return "\n".join(lines) + "\n"


def parse_host(text: str) -> tuple[str, str]:
    """``NAME:ADDRESS`` of ``--add-host`` (``=`` does too; IPv6 may stand in brackets). Raises UsageError."""
    at = text.find("=") if "=" in text else text.find(":")
    name, address = text[: max(at, 0)], text[at + 1 :]
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if not _is_domain(name) or not (address == HOST_GATEWAY or addresses.is_address(address)):
        raise UsageError(f"--add-host {text}", "not NAME:ADDRESS", f"such as db:192.0.2.7, or db:{HOST_GATEWAY}")
    return name, address


def parse_server(text: str) -> str:
    """The address of ``--dns``: the name server on the host asks it, so 127.0.0.1 is the host's. Raises UsageError."""
    if not addresses.is_address(text):
        raise UsageError(f"--dns {text}", "not an address of IPv4 or IPv6")
    if not addresses.number(text):
        raise UsageError(f"--dns {text}", "nobody's address", "127.0.0.1 is the host's own")
    return text


def parse_domain(text: str) -> str:
    """The domain of ``--dns-search``; "." means that there is none. Raises UsageError."""
    if text != "." and not _is_domain(text):
        raise UsageError(f"--dns-search {text}", "not a domain name")
    return text


def parse_option(text: str) -> str:
    """The word of ``--dns-option``, as resolv.conf(5) has them. Raises UsageError."""
    if not text or not _LETTERS.issuperset(text.replace(":", "", 1)):
        raise UsageError(f"--dns-option {text}", "not an option of resolv.conf(5)", "such as ndots:2")
    return text


def parse_alias(text: str, typed: str) -> str:
    """The name of ``--network-alias``: one that DNS can express. Raises UsageError, quoting what was ``typed``."""
    if not _is_domain(text):
        raise UsageError(typed, "not a host name", "letters, digits, '-', '_' and '.' make one")
    return text


def _is_domain(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    return len(text) <= 253 and _LETTERS.issuperset(text) and all(0 < len(label) <= 63 for label in labels)


def _words(line: str, keyword: str) -> list[str]:
    words = line.split()
    return words[1:] if words[:1] == [keyword] else []


def _last_search(lines: Sequence[str]) -> list[str]:
    """The search domains; of several such lines the last one counts, and ``domain`` is one of them (resolv.conf(5))."""
    found: list[str] = []
    for line in lines:
        found = _words(line, "search") or _words(line, "domain")[:1] or found
    return found
