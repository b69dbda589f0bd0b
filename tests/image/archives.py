"""Archives made entry by entry, as no honest tool would."""

from __future__ import annotations

import io
import tarfile


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", content: bytes = b"", **fields: object
) -> tuple[tarfile.TarInfo, bytes]:
    """One archive entry and its content."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    for key, value in {"mode": 0o755 if kind == tarfile.DIRTYPE else 0o644, **fields}.items():
        setattr(info, key, value)
    return info, content


def archive(*entries: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    """An archive that holds exactly these entries in this order."""
    result = io.BytesIO()
    with tarfile.open(fileobj=result, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in entries:
            tar.addfile(info, io.BytesIO(content))
    result.seek(0)
    return result
