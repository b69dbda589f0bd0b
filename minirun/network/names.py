"""What a container knows about names: the text of its /etc/resolv.conf and /etc/hosts."""

from __future__ import annotations

from minirun import store

RESOLV_CONF = "/etc/resolv.conf"
UPSTREAM = "/run/systemd/resolve/resolv.conf"  # what systemd-resolved itself asks, see systemd-resolved.service(8)


def resolv_conf() -> str:
    """The host's resolvers, if a container can reach them.

    127.0.0.53 and its like are the host's own loopback, where nothing listens inside a container: systemd-resolved's
    list of real servers takes their place. Where there is none, the list stays empty: to send somebody's questions to
    a public server without being asked would be worse than not to answer.
    """
    text = store.read(RESOLV_CONF) or ""
    if _nameservers(text) and not _reachable(text):
        text = store.read(UPSTREAM) or text
    lines = [line for line in text.splitlines() if not _is_loopback(line)]
    return "\n".join(lines) + "\n"


def hosts(hostname: str, name: str, address: str | None) -> str:
    """The container's /etc/hosts; ``address`` is None where it has no network but lo. No ::1, where IPv6 is off."""
    names = " ".join(dict.fromkeys((hostname, name)))
    return f"127.0.0.1\tlocalhost\n{address or '127.0.0.1'}\t{names}\n"


def _nameservers(text: str) -> list[str]:
    words = [line.split() for line in text.splitlines()]
    return [word[1] for word in words if len(word) > 1 and word[0] == "nameserver"]


def _reachable(text: str) -> bool:
    return any(not _is_loopback(f"nameserver {server}") for server in _nameservers(text))


def _is_loopback(line: str) -> bool:
    servers = _nameservers(line)
    return bool(servers) and (servers[0].startswith("127.") or servers[0] == "::1")
