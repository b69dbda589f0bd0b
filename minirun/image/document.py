"""What an index, a manifest and an image config must look like before minirun believes them.

They come from strangers. Each function returns its argument, checked, or raises InvalidDocument naming the JSON path;
only what minirun uses is checked, and what it does not know is left alone (image-spec asks for both). On the path of
every ``minirun run``: no imports beyond the errors.
"""

from __future__ import annotations

from minirun.errors import InvalidDocument
from minirun.image import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
MAX_LAYERS = 127  # what docker allows; overlayfs takes 500

_STRINGS = ("User", "WorkingDir", "StopSignal")
_STRING_LISTS = ("Env", "Cmd", "Entrypoint")
_OBJECTS = ("Labels", "ExposedPorts", "Volumes")


def index_entries(index: Any, where: str) -> list[dict[str, Any]]:
    """The descriptors in an index."""
    entries = _object(index, where).get("manifests")
    if not isinstance(entries, list):
        raise InvalidDocument(where, "manifests: expected a list")
    for number, entry in enumerate(entries):
        _descriptor(entry, f"{where}: manifests[{number}]")
    return entries


def manifest(value: Any, where: str) -> dict[str, Any]:
    """An image manifest.

    A document that is both a manifest and an index is refused: two readers could see two images in it
    (CVE-2021-41190).
    """
    result = _object(value, where)
    if "manifests" in result or result.get("mediaType", MANIFEST) not in (MANIFEST, DOCKER_MANIFEST):
        raise InvalidDocument(where, "not an image manifest")
    _descriptor(result.get("config"), f"{where}: config")
    layers = result.get("layers")
    if not isinstance(layers, list) or not 0 < len(layers) <= MAX_LAYERS:
        raise InvalidDocument(where, f"layers: expected a list of 1 to {MAX_LAYERS}")
    for number, layer in enumerate(layers):
        _descriptor(layer, f"{where}: layers[{number}]")
    return result


def image_config(value: Any, where: str) -> dict[str, Any]:
    """An image config: its ``rootfs.diff_ids`` and, if there is one, its ``config``."""
    result = _object(value, where)
    rootfs = result.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(diff_ids, list) or not all(isinstance(x, str) and reference.is_digest(x) for x in diff_ids):
        raise InvalidDocument(where, "rootfs.diff_ids: expected a list of sha256 digests")
    if not isinstance(result.get("created") or "", str):
        raise InvalidDocument(where, "created: expected a string")
    _execution(result.get("config") or {}, f"{where}: config")
    return result


def _execution(config: Any, where: str) -> None:
    """The part that says what to run. Go programs write null for an empty value, so null is allowed everywhere."""
    _object(config, where)
    for key in _STRINGS:
        if not isinstance(config.get(key) or "", str) or "\0" in (config.get(key) or ""):
            raise InvalidDocument(where, f"{key}: expected a string without NUL")
    for key in _STRING_LISTS:
        _strings(config.get(key) or [], f"{where}.{key}")
    for key in _OBJECTS:
        if not isinstance(config.get(key) or {}, dict):
            raise InvalidDocument(where, f"{key}: expected an object")
    for number, entry in enumerate(config.get("Env") or []):
        if entry.find("=") < 1:  # a bare name would be read as "take the host's value" (CVE-2026-57231)
            raise InvalidDocument(where, f"Env[{number}]: {entry[:40]!r} is not NAME=value")


def _strings(value: Any, where: str) -> None:
    if not isinstance(value, list):
        raise InvalidDocument(where, "expected a list")
    for number, item in enumerate(value):
        if not isinstance(item, str) or "\0" in item:
            raise InvalidDocument(where, f"[{number}]: expected a string without NUL")


def _descriptor(value: Any, where: str) -> None:
    result = _object(value, where)
    digest, size = result.get("digest"), result.get("size")
    if not isinstance(digest, str) or not reference.is_digest(digest):
        raise InvalidDocument(where, "digest: expected sha256: and 64 hex digits")
    if type(size) is not int or size < 0:
        raise InvalidDocument(where, "size: expected a number of bytes")
    annotations = result.get("annotations") or {}
    if not isinstance(annotations, dict) or not all(isinstance(x, str) for x in annotations.values()):
        raise InvalidDocument(where, "annotations: expected strings")


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidDocument(where, "expected an object")
    return value
