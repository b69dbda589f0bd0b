"""The image store, as the rest of minirun reads it: an OCI image layout and its layers, already unpacked.

    <root>/images/oci-layout  index.json  blobs/sha256/<hex>     any OCI tool can read it (skopeo copy oci:…)
    <root>/layers/<hex of the chain id>/                         one directory per layer, in overlayfs form

An image's name is the annotation ``org.opencontainers.image.ref.name`` of its entry in index.json, in full
(docker.io/library/alpine:latest). An image with two names has two entries; one that lost its name keeps an entry
without. ``find`` is on the path of every ``minirun run``: it reads three small files, and this module imports nothing
that needs ``re`` or ``json``. Whatever adds to the store is in ``writer``.
"""

from __future__ import annotations

import os

from minirun import store, strict_json
from minirun.errors import InvalidDocument
from minirun.image import document, reference

try:  # hashlib costs 4 ms to import; its C core nothing
    from _sha256 import sha256  # type: ignore[import-not-found]
except ImportError:
    from _sha2 import sha256  # type: ignore[import-not-found]  # its name since Python 3.12

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "org.opencontainers.image.ref.name"
SIZE = "minirun.unpacked-size"
MAX_DOCUMENT = 4 * 1024 * 1024  # bytes of a manifest or a config, the limit that registries have
_REPAIR = "remove the image (minirun image rm) and build or pull it again"


class Image:
    """One image, read and verified."""

    __slots__ = ("config", "created", "digest", "document", "id", "layers", "names", "size")

    def __init__(self, digest: str, names: list[str], config_digest: str, config_document: dict[str, Any]) -> None:
        self.id = config_digest  # sha256:… of the image config, as docker names images
        self.digest = digest  # sha256:… of the manifest, as registries do
        self.names = names  # full references
        self.document = config_document  # application/vnd.oci.image.config.v1+json, all of it
        self.config: dict[str, Any] = config_document.get("config") or {}  # its Env, Cmd, Entrypoint, User, …
        self.layers = [layer_path(chain) for chain in chain_ids(config_document["rootfs"]["diff_ids"])]
        self.size = 0  # bytes in the unpacked layers
        self.created: str = config_document.get("created") or ""


def find(text: str) -> Image | None:
    """The image with this name, manifest digest or id prefix (4 hex digits at least), or None.

    Raises InvalidDocument if the text is no reference, if an id prefix fits several images, or if the image in the
    store is not what its digests say.
    """
    entries = read_index()
    entry = resolve(text, entries)
    return None if entry is None else _load(entry, entries)


def listing() -> list[Image]:
    """Every image in the store, in the order of the index."""
    entries = read_index()
    first = {entry["digest"]: entry for entry in reversed(entries)}
    return [_load(first[digest], entries) for digest in dict.fromkeys(entry["digest"] for entry in entries)]


def tag(text: str, new_name: str) -> Image:
    """Give the image that ``find(text)`` finds one more name, taking that name from whichever image had it."""
    from minirun.image import writer

    return writer.tag(text, new_name)


def remove(text: str) -> None:
    """Remove a name or, by id or last name, the image with its blobs and layers. The caller knows if it is in use."""
    from minirun.image import writer

    writer.remove(text)


def images_path(*parts: str) -> str:
    """A path in the OCI image layout."""
    return os.path.join(store.root, "images", *parts)


def blob_path(digest: str) -> str:
    """Where the blob with this digest is. Raises InvalidDocument, so that no digest can name another file."""
    if not reference.is_digest(digest):
        raise InvalidDocument(f"digest {digest!r}", "not sha256: and 64 hex digits")
    return images_path("blobs", "sha256", digest[7:])


def layer_path(chain_id: str) -> str:
    """The directory of the unpacked layer with this chain id."""
    return os.path.join(store.root, "layers", chain_id[7:])


def chain_ids(diff_ids: list[str]) -> list[str]:
    """The chain id of each layer, bottom first: it names a layer together with all those below it (image-spec)."""
    chains: list[str] = []
    for diff_id in diff_ids:
        chains.append(sha256_digest(f"{chains[-1]} {diff_id}".encode()) if chains else diff_id)
    return chains


def sha256_digest(data: bytes) -> str:
    """The digest of some bytes, as OCI writes it."""
    return f"sha256:{sha256(data).hexdigest()}"


def read_index() -> list[dict[str, Any]]:
    """The entries (descriptors of manifests) of index.json; none if there is no store yet."""
    path = images_path("index.json")
    index = store.read_json(path)
    return [] if index is None else document.index_entries(index, path)


def read_document(descriptor: dict[str, Any], where: str) -> Any:
    """The JSON blob that a descriptor names, verified: its size, its digest, strict JSON. Raises InvalidDocument."""
    digest = descriptor["digest"]
    data = _read_blob(blob_path(digest), where)
    if len(data) != descriptor["size"] or sha256_digest(data) != digest:
        raise InvalidDocument(where, f"blob {digest[:19]} is not what its digest and size say", _REPAIR)
    return strict_json.loads(data, where)


def read_manifest(entry: dict[str, Any], where: str) -> dict[str, Any]:
    """The manifest that an entry of the index names, verified and checked."""
    return document.manifest(read_document(entry, f"{where}: manifest"), f"{where}: manifest")


def name_of(entry: dict[str, Any]) -> str:
    """The full reference of an index entry, or an empty string."""
    return str((entry.get("annotations") or {}).get(NAME) or "")


def _read_blob(path: str, where: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise InvalidDocument(where, f"its blob cannot be read ({error.strerror})", _REPAIR) from None
    try:
        size = os.fstat(descriptor).st_size
        if size > MAX_DOCUMENT:
            raise InvalidDocument(where, f"larger than {MAX_DOCUMENT} bytes", _REPAIR)
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)


def _load(entry: dict[str, Any], entries: list[dict[str, Any]]) -> Image:
    digest = entry["digest"]
    same = [other for other in entries if other["digest"] == digest]
    names = [name_of(other) for other in same if name_of(other)]
    where = f"image {reference.familiar(names[0]) if names else digest[:19]}"
    manifest = read_manifest(entry, where)
    config_descriptor = manifest["config"]
    config = document.image_config(read_document(config_descriptor, f"{where}: config"), f"{where}: config")
    if len(config["rootfs"]["diff_ids"]) != len(manifest["layers"]):
        raise InvalidDocument(where, "the manifest and the config count the layers differently", _REPAIR)
    image = Image(digest, names, config_descriptor["digest"], config)
    image.size = int((entry.get("annotations") or {}).get(SIZE) or 0)
    for path in image.layers:
        if not os.path.isdir(path):
            raise InvalidDocument(where, f"its layer {path} is missing", _REPAIR)
    return image


def resolve(text: str, entries: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The entry that ``find(text)`` means, of which nothing but the index was read unless the text is an id."""
    prefix = text.removeprefix("sha256:")
    by_id = reference.is_id_prefix(prefix)
    if not by_id or (prefix == text and len(text) < 64):
        wanted = reference.parse(text)
        for entry in entries:
            if _is_named(entry, wanted):
                return entry
    return _by_id(prefix, entries) if by_id else None


def _is_named(entry: dict[str, Any], wanted: reference.Reference) -> bool:
    """Whether an entry has this name; by digest, any name of the same repository will do."""
    name = name_of(entry)
    if not wanted.digest:
        return name == str(wanted)
    return entry["digest"] == wanted.digest and name.startswith((f"{wanted.name}:", f"{wanted.name}@"))


def _by_id(prefix: str, entries: list[dict[str, Any]]) -> dict[str, Any] | None:
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        try:
            image_id = read_manifest(entry, "image")["config"]["digest"]
        except InvalidDocument:
            image_id = entry["digest"]  # broken: it has no id that can be trusted, but must be removable
        if image_id[7:].startswith(prefix):
            found.setdefault(image_id, entry)
    if len(found) > 1:
        raise InvalidDocument(f"image id {prefix}", f"{len(found)} images begin so", "give more digits")
    return next(iter(found.values()), None)
