"""Streams that stay small: what is read is counted, hashed and bounded while it passes, and never kept.

An archive of a few kilobytes can unpack to terabytes, and a header in it can claim gigabytes of text that a reader
would collect in memory. Both are refused here, before anything else sees them.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from typing import BinaryIO, Protocol

from minirun.errors import InvalidDocument

MAX_HEADER = 1 << 16  # bytes: of a pax header, which holds long names and extended attributes
MAX_DIGITS = 64  # in a row: tarfile takes time quadratic in a longer number (CVE-2024-6232), 9 s for 64 kB of digits
FREE_SIZE = 256 * 1024**2  # bytes that may unpack at any ratio
MAX_RATIO = 200  # beyond them; programs and text give 2 to 10, gzip itself can reach 1030
_LONG_NUMBER = re.compile(rb"[0-9]{%d}" % (MAX_DIGITS + 1))
_CHUNK = 1 << 16


class Readable(Protocol):
    """Anything to read bytes from."""

    def read(self, size: int, /) -> bytes:
        """Up to so many bytes; none at the end."""
        ...


class Forward:
    """What ``tarfile`` reads an archive's headers through: it goes forward only, and no header may be a trap."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._position = 0

    def read(self, size: int) -> bytes:
        """A header, or the text that belongs to one."""
        if size > MAX_HEADER:
            raise InvalidDocument("archive", f"a header of {size} bytes; the limit is {MAX_HEADER}")
        data = self.take(size)
        if _LONG_NUMBER.search(data):
            raise InvalidDocument("archive", f"a number of more than {MAX_DIGITS} digits in a header")
        return data

    def take(self, size: int) -> bytes:
        """All of so many bytes, or fewer at the end only."""
        chunks: list[bytes] = []
        left = size
        while left > 0 and (data := self._source.read(left)):
            chunks.append(data)
            left -= len(data)
        self._position += size - left
        return b"".join(chunks)

    def tell(self) -> int:
        """How many bytes were read."""
        return self._position

    def seek(self, position: int) -> None:
        """Read on to a position."""
        while self._position < position:
            if not self.take(min(position - self._position, _CHUNK)):
                raise EOFError("the archive ends too early")
        if self._position != position:
            raise InvalidDocument("archive", "it points backwards")


class Hashed:
    """A stream that knows the size and digest of what was read from it."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self.size = 0

    def read(self, size: int, /) -> bytes:
        """The source's next bytes, noted."""
        data = self._source.read(size)
        self._hash.update(data)
        self.size += len(data)
        return data

    def drain(self) -> None:
        """Read to the end: padding after an archive counts for its digest too."""
        while self.read(_CHUNK):
            pass

    @property
    def digest(self) -> str:
        """The digest of all that passed so far, as OCI writes it."""
        return "sha256:" + self._hash.hexdigest()


class Gunzip:
    """What a gzip stream (of any number of members) unpacks to, refusing a bomb."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self._inflate = zlib.decompressobj(31)
        self._started = False
        self._packed = self._unpacked = 0

    def read(self, size: int, /) -> bytes:
        """Up to so many unpacked bytes; none at the end."""
        while True:
            data = self._inflate.unconsumed_tail or self._inflate.unused_data or self._refill()
            if self._inflate.eof:
                if not data:
                    return b""
                self._inflate = zlib.decompressobj(31)
            elif not data and not self._started:
                return b""
            elif not data:
                raise EOFError("the gzip stream ends too early")
            result = self._inflate.decompress(data, min(size, _CHUNK))
            self._unpacked += len(result)
            if self._unpacked > FREE_SIZE and self._unpacked > MAX_RATIO * self._packed:
                raise InvalidDocument("archive", f"it unpacks to more than {MAX_RATIO} times its size")
            if result:
                return result

    def _refill(self) -> bytes:
        data = self._source.read(_CHUNK)
        self._packed += len(data)
        self._started = self._started or bool(data)
        return data


class Writer:
    """A file being written, with the size and digest of what went in."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        """Write to the target, and note it."""
        self._hash.update(data)
        self.size += len(data)
        return self._target.write(data)

    def tell(self) -> int:
        """How many bytes were written."""
        return self.size

    @property
    def digest(self) -> str:
        """The digest of all that passed so far, as OCI writes it."""
        return "sha256:" + self._hash.hexdigest()
