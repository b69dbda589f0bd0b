"""The machine that the counts are taken on is that of the lifecycle tests."""

from __future__ import annotations

from tests.lifecycle.conftest import host, images_root, machines

__all__ = ["host", "images_root", "machines"]
