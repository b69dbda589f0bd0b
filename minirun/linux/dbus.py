"""A little D-Bus: enough to ask systemd for something, and to hear when it is done.

The libraries for this cost a start more than the container does. Spoken is the D-Bus specification's "Message Protocol"
over a socket; values are given with their signature: ``("s", "text")``, ``("a(sv)", [["Name", ("b", True)]])``.
"""

from __future__ import annotations

import os
from _struct import pack, unpack_from

from minirun.errors import MinirunError, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CALL, _RETURN, _ERROR, _SIGNAL = 1, 2, 3, 4
_PATH, _INTERFACE, _MEMBER, _ERROR_NAME, _REPLY_SERIAL, _DESTINATION, _SENDER, _SIGNATURE = range(1, 9)
_ALIGN = {"y": 1, "b": 4, "n": 2, "q": 2, "i": 4, "u": 4, "x": 8, "t": 8, "d": 8, "s": 4, "o": 4, "g": 1, "a": 4}
_ALIGN |= {"(": 8, "{": 8, "v": 1, "h": 4}
_FORMAT = {"y": "<B", "b": "<I", "n": "<h", "q": "<H", "i": "<i", "u": "<I", "x": "<q", "t": "<Q", "d": "<d", "h": "<I"}


class Refused(MinirunError):
    """The other side answered with an error; ``name`` is such as ``org.freedesktop.systemd1.NoSuchUnit``."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text or name)
        self.name = name


class Bus:
    """A connection to ``path``: a bus, or a program itself, which then needs no name (``destination``)."""

    def __init__(self, path: str, destination: str = "") -> None:
        import _socket

        self.destination, self.serial = destination, 0
        self.signals: list[tuple[dict[int, Any], list[Any]]] = []  # that came and nobody has asked for yet
        self.socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            self.socket.connect(path)
            self._authenticate()
        except OSError as error:
            self.close()
            raise Unsupported(path, f"cannot be reached: {error.strerror}") from None
        if destination:
            self.call("/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello", destination="org.freedesktop.DBus")

    def close(self) -> None:
        self.socket.close()

    def _authenticate(self) -> None:
        """By who we are, which the kernel tells the other side.

        BEGIN goes along: were it sent after the answer, systemd could read it together with our first message, and
        would look at that only when more comes.
        """
        identity = str(os.getuid()).encode().hex()
        self.socket.send(f"\0AUTH EXTERNAL {identity}\r\nBEGIN\r\n".encode())
        answer = b""
        while not answer.endswith(b"\r\n"):
            more = self.socket.recv(512)
            if not more:
                break
            answer += more
        if not answer.startswith(b"OK "):
            raise OSError(13, answer.decode("ascii", "replace").strip() or "connection closed")

    def call(
        self, path: str, interface: str, member: str, signature: str = "", *values: Any, destination: str = ""
    ) -> list[Any]:
        """Call a method and return what it returns. Raises Refused."""
        self.serial += 1
        fields = [[_PATH, ("o", path)], [_INTERFACE, ("s", interface)], [_MEMBER, ("s", member)]]
        if destination or self.destination:
            fields.append([_DESTINATION, ("s", destination or self.destination)])
        if signature:
            fields.append([_SIGNATURE, ("g", signature)])
        self._send(message(_CALL, self.serial, fields, signature, values))
        while True:
            kind, found, body = self.receive()
            if found.get(_REPLY_SERIAL) == self.serial and kind in (_RETURN, _ERROR):
                break
            if kind == _SIGNAL:  # of what we ask for may be done before we are told that it has begun
                self.signals.append((found, body))
        if kind == _ERROR:
            raise Refused(str(found.get(_ERROR_NAME)), str(body[0]) if body else "")
        return body

    def signal(self, member: str) -> list[Any]:
        """Wait for a signal of this name and return what it carries."""
        while True:
            while self.signals:
                found, body = self.signals.pop(0)
                if found.get(_MEMBER) == member:
                    return body
            kind, found, body = self.receive()
            if kind == _SIGNAL:
                self.signals.append((found, body))

    def receive(self) -> tuple[int, dict[int, Any], list[Any]]:
        """The next message: its type, its header fields, its values."""
        start = self._read(16)
        order = "<" if start[:1] == b"l" else ">"
        length, _, fields = unpack_from(f"{order}III", start, 4)
        rest = start + self._read(_aligned(fields, 8) + length)
        reader = Reader(rest, order)
        reader.at = 12
        header = dict(reader.value("a(yv)"))
        reader.at = _aligned(16 + fields, 8)
        return start[1], header, reader.values(header.get(_SIGNATURE, ""))

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise MinirunError("D-Bus", "the connection was closed")
            data += more
        return data

    def _send(self, data: bytes) -> None:
        while data:
            data = data[self.socket.send(data) :]


def message(kind: int, serial: int, fields: list[list[Any]], signature: str, values: tuple[Any, ...]) -> bytes:
    """The bytes of a message."""
    body, head = bytearray(), bytearray()
    for one, value in zip(split(signature), values, strict=True):
        put(body, one, value)
    put(head, "y", ord("l"))
    for number in (kind, 0, 1):
        put(head, "y", number)
    put(head, "u", len(body))
    put(head, "u", serial)
    put(head, "a(yv)", fields)
    _pad(head, 8)
    return bytes(head + body)


def split(signature: str) -> list[str]:
    """The single complete types of a signature."""
    types, start, at = [], 0, 0
    while at < len(signature):
        while signature[at] == "a":
            at += 1
        depth = 0
        while True:
            depth += (signature[at] in "({") - (signature[at] in ")}")
            at += 1
            if depth == 0:
                break
        types.append(signature[start:at])
        start = at
    return types


def _aligned(number: int, to: int) -> int:
    return -(-number // to) * to


def _pad(out: bytearray, to: int) -> None:
    out.extend(bytes(_aligned(len(out), to) - len(out)))


def put(out: bytearray, kind: str, value: Any) -> None:
    """Append one value of a single complete type."""
    first = kind[0]
    _pad(out, _ALIGN[first])
    if first in _FORMAT:
        out += pack(_FORMAT[first], value)
    elif first in "so":
        data = value.encode()
        out += pack("<I", len(data)) + data + b"\0"
    elif first == "g":
        out += bytes([len(value)]) + value.encode() + b"\0"
    elif first == "v":
        put(out, "g", value[0])
        put(out, value[0], value[1])
    elif first == "a":
        out += bytes(4)
        length_at = len(out) - 4
        _pad(out, _ALIGN[kind[1]])  # which does not count as a part of the array
        start = len(out)
        for one in value:
            put(out, kind[1:], one)
        out[length_at : length_at + 4] = pack("<I", len(out) - start)
    else:
        for one, inner in zip(split(kind[1:-1]), value, strict=True):
            put(out, one, inner)


class Reader:
    """Takes values out of a message."""

    def __init__(self, data: bytes, order: str = "<") -> None:
        self.data, self.order, self.at = data, order, 0

    def values(self, signature: str) -> list[Any]:
        return [self.value(one) for one in split(signature)]

    def value(self, kind: str) -> Any:
        first = kind[0]
        self.at = _aligned(self.at, _ALIGN[first])
        if first in _FORMAT:
            number = self._number(_FORMAT[first][1])
            return bool(number) if first == "b" else number
        if first in "so":
            return self._text(int(self._number("I")))
        if first == "g":
            return self._text(int(self._number("B")))
        if first == "v":
            return self.value(self.value("g"))
        if first == "a":
            end = self._number("I")
            self.at = _aligned(self.at, _ALIGN[kind[1]])
            end += self.at
            found = []
            while self.at < end:
                found.append(self.value(kind[1:]))
            return found
        return self.values(kind[1:-1])

    def _number(self, letter: str) -> Any:
        (number,) = unpack_from(self.order + letter, self.data, self.at)
        self.at += {"B": 1, "h": 2, "H": 2, "q": 8, "Q": 8, "d": 8}.get(letter, 4)
        return number

    def _text(self, length: int) -> str:
        text = self.data[self.at : self.at + length].decode()
        self.at += length + 1
        return text
