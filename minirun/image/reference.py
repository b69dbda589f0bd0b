"""Image references: what ``alpine`` means.

The rules are those of the distribution project, which docker and podman share: ``alpine`` is
``docker.io/library/alpine:latest``, and the first component is a registry only if it has a dot, a colon or an upper
case letter, or is ``localhost``. Written without ``re``, because every ``minirun run`` reads one reference and ``re``
alone would cost it 6 ms.
"""

from __future__ import annotations

from minirun.errors import InvalidDocument

DEFAULT_REGISTRY = "docker.io"
DEFAULT_NAMESPACE = "library/"
DEFAULT_TAG = "latest"
MAX_NAME = 255  # registry and repository together, as the distribution project limits them
MAX_TAG = 128

_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_HEX = frozenset("0123456789abcdef")
_HOST = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ-")
_NAME = _LOWER | frozenset("._-")
_TAG = _HOST | frozenset("_.")


class Reference:
    """A full reference; ``str()`` gives the one spelling that the store uses as the image's name."""

    __slots__ = ("digest", "registry", "repository", "tag")

    def __init__(self, registry: str, repository: str, tag: str, digest: str) -> None:
        self.registry = registry
        self.repository = repository
        self.tag = tag  # empty if there is a digest: a digest says exactly which image, so a tag adds nothing
        self.digest = digest

    @property
    def name(self) -> str:
        """Registry and repository: the reference without its tag or digest."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        return f"{self.name}@{self.digest}" if self.digest else f"{self.name}:{self.tag}"


def parse(text: str) -> Reference:
    """The full form of a reference that someone typed. Raises InvalidDocument."""
    name, has_digest, digest = text.partition("@")
    registry, rest = _split_registry(name)
    repository, has_tag, tag = rest.partition(":")
    if has_digest and not is_digest(digest):
        raise _bad(text, "the part after @ is not sha256: and 64 hex digits")
    if has_tag and not _is_tag(tag):
        raise _bad(text, "the tag must be 1 to 128 letters, digits, _ . or -, not starting with . or -")
    if not _is_registry(registry):
        raise _bad(text, "the registry is not host or host:port")
    if not all(_is_component(component) for component in repository.split("/")):
        raise _bad(text, "a name has lower case letters and digits, with . _ __ or - between them")
    if len(repository) == 64 and _HEX.issuperset(repository):
        raise _bad(text, "64 hex digits are an image's id, not a name")
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = DEFAULT_NAMESPACE + repository
    if len(registry) + 1 + len(repository) > MAX_NAME:
        raise _bad(text, f"the name is longer than {MAX_NAME} characters")
    return Reference(registry, repository, "" if has_digest else tag or DEFAULT_TAG, digest)


def familiar(name: str) -> str:
    """The short spelling of a full name, as people write it: docker.io/library/alpine:latest is alpine:latest."""
    return name.removeprefix(f"{DEFAULT_REGISTRY}/").removeprefix(DEFAULT_NAMESPACE)


def is_digest(text: str) -> bool:
    """Whether this is a sha256 digest, the one algorithm that registries use."""
    return len(text) == 71 and text.startswith("sha256:") and _HEX.issuperset(text[7:])


def is_id_prefix(text: str) -> bool:
    """Whether this may be the beginning of an image's id: 4 to 64 hex digits."""
    return 4 <= len(text) <= 64 and _HEX.issuperset(text)


def _split_registry(name: str) -> tuple[str, str]:
    head, slash, tail = name.partition("/")
    if slash and ("." in head or ":" in head or head == "localhost" or head != head.lower()):
        return (DEFAULT_REGISTRY if head == "index.docker.io" else head), tail
    return DEFAULT_REGISTRY, name


def _is_registry(text: str) -> bool:
    host, colon, port = text.partition(":")
    if text.startswith("["):  # an IPv6 address
        host, bracket, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        if not bracket or colon not in ("", ":") or not host or not (_HEX | {":"}).issuperset(host.lower()):
            return False
    elif not all(label and _HOST.issuperset(label) and label.strip("-") == label for label in host.split(".")):
        return False
    return not colon or (len(port) <= 5 and port.isascii() and port.isdecimal() and 0 < int(port) < 65536)


def _is_tag(text: str) -> bool:
    return 0 < len(text) <= MAX_TAG and text[0] not in ".-" and _TAG.issuperset(text)


def _is_component(text: str) -> bool:
    """Letters and digits, with single separators between them: one dot, one or two underscores, any run of dashes."""
    if not text or text[0] not in _LOWER or text[-1] not in _LOWER or not _NAME.issuperset(text):
        return False
    separators = "".join(" " if letter in _LOWER else letter for letter in text).split()
    return all(separator in (".", "_", "__") or not separator.strip("-") for separator in separators)


def _bad(text: str, why: str) -> InvalidDocument:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return InvalidDocument(f"image reference {shown!r}", why, "write it like alpine or host:5000/team/app:1.0")
