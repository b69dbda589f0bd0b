"""Writing one kernel setting, /proc/sys/..., of our own network namespace."""

from __future__ import annotations

import os


def write(path: str, value: str) -> None:
    """Write a setting; a kernel built without IPv6 lacks its files, and needs no switching off."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)
