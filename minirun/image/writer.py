"""The only way anything gets into the image store, or out of it.

Whoever adds an image works in a directory of its own below <root>/image-tmp, which no reader looks at, and holds a
lock on it for as long as it lives. ``commit`` takes the store's lock and moves everything to its place by rename, the
entry in index.json last. So a kill at any moment leaves either the whole image or none; what is left below
<root>/image-tmp has nobody holding its lock, and the next writer removes it. Two writers of the same image make the
same blobs and layers, named by their content: the second finds them there.
"""

from __future__ import annotations

import fcntl
import gzip
import os
from typing import Any, BinaryIO, cast

from minirun import store, strict_json
from minirun.errors import Conflict, InvalidDocument, NotFound
from minirun.image import document, layers, layout, reference
from minirun.image.layout import Image
from minirun.image.stream import Gunzip, Hashed, Readable, Writer

GZIP_LEVEL = 6
_LOCK = "images.lock"
_OWN = "image-tmp"  # where writers work; the sweep removes there what nobody holds
_COPY = 1 << 16


class Lock:
    """An exclusive flock(2), held inside ``with``; the kernel drops it when its holder dies."""

    def __init__(self, *path: str) -> None:
        self._path = os.path.join(store.directory(store.root, *path[:-1]), path[-1])

    def __enter__(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


class Addition:
    """An image on its way into the store. Use as a context manager; without ``commit`` nothing of it remains."""

    def __enter__(self) -> Addition:
        self.layers: list[dict[str, Any]] = []  # descriptors, bottom first
        self.diff_ids: list[str] = []
        with Lock(_LOCK):
            _sweep()
            self.path = os.path.join(store.directory(store.root, _OWN), f"image-{os.getpid()}-{os.urandom(4).hex()}")
            os.mkdir(self.path, 0o700)
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        store.directory(self.path, "blobs")
        store.directory(self.path, "layers")
        return self

    def __exit__(self, *_: object) -> None:
        store.remove_tree(self.path)
        os.close(self._lock)

    def on_top_of(self, image: Image) -> None:
        """Begin with the layers of another image of the store."""
        entry = next(entry for entry in layout.read_index() if entry["digest"] == image.digest)
        self.layers = list(layout.read_manifest(entry, "base image")["layers"])
        self.diff_ids = list(image.document["rootfs"]["diff_ids"])

    def add_directory(self, directory: str, newest: int) -> None:
        """Add a directory as the next layer; no file's time will be later than ``newest``."""
        temporary = os.path.join(self.path, "layer")
        with open(temporary, "wb") as target:
            packed = Writer(target)
            with gzip.GzipFile("", "wb", GZIP_LEVEL, cast("BinaryIO", packed), mtime=0) as zipped:
                plain = Writer(cast("BinaryIO", zipped))
                layers.pack(directory, cast("BinaryIO", plain), newest)
        self._add_blob(temporary, packed.digest)
        descriptor = {"mediaType": document.LAYER_GZIP, "digest": packed.digest, "size": packed.size}
        self._unpack(descriptor, plain.digest)

    def add_blob(self, content: Readable, descriptor: dict[str, Any]) -> None:
        """Take in a blob from outside, if it is what its descriptor says. Raises InvalidDocument."""
        temporary = os.path.join(self.path, "incoming")
        incoming = Hashed(content)
        with open(temporary, "wb") as target:
            while data := incoming.read(_COPY):
                if incoming.size > descriptor["size"]:
                    break
                target.write(data)
        if (incoming.size, incoming.digest) != (descriptor["size"], descriptor["digest"]):
            raise InvalidDocument(f"blob {descriptor['digest'][:19]}", "its content does not match its digest and size")
        self._add_blob(temporary, descriptor["digest"])

    def add_layer(self, descriptor: dict[str, Any], diff_id: str) -> None:
        """Add a layer whose blob was added before, or is in the store."""
        self._unpack(descriptor, diff_id)

    def commit(self, config: dict[str, Any], name: str) -> Image:
        """Put the image in the store under a name; ``config`` is the image config without its rootfs."""
        config = {**config, "rootfs": {"type": "layers", "diff_ids": self.diff_ids}}
        manifest = {
            "schemaVersion": 2,
            "mediaType": document.MANIFEST,
            "config": self.add_document(config, document.CONFIG),
            "layers": self.layers,
        }
        return self.commit_manifest(self.add_document(manifest, document.MANIFEST), name)

    def add_document(self, value: dict[str, Any], media_type: str) -> dict[str, Any]:
        """Add a JSON document as a blob; returns its descriptor."""
        data = strict_json.dumps(value).encode()
        digest = layout.sha256_digest(data)
        temporary = os.path.join(self.path, "document")
        with open(temporary, "wb") as target:
            target.write(data)
        self._add_blob(temporary, digest)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def commit_manifest(self, manifest: dict[str, Any], name: str) -> Image:
        """Put the image in the store under a name; ``manifest`` is the descriptor of a manifest that was added."""
        name = str(reference.parse(name))
        chains = [layout.layer_path(chain) for chain in layout.chain_ids(self.diff_ids)]
        with Lock(_LOCK):
            _create_layout()
            for blob in os.listdir(f"{self.path}/blobs"):
                os.rename(f"{self.path}/blobs/{blob}", layout.images_path("blobs", "sha256", blob))
            for layer in os.listdir(f"{self.path}/layers"):
                if not os.path.isdir(os.path.join(store.root, "layers", layer)):
                    os.rename(f"{self.path}/layers/{layer}", os.path.join(store.root, "layers", layer))
            for path in [*chains, *(layout.blob_path(layer["digest"]) for layer in self.layers)]:
                if not os.path.exists(path):
                    raise Conflict(f"image {name}", f"{path} was removed meanwhile", "try again")
            size = sum(layers.size(path) for path in chains)
            entry = {**manifest, "annotations": {layout.NAME: name, layout.SIZE: str(size)}}
            _write_index([*_without_name(layout.read_index(), name, entry["digest"]), entry])
            return _found(name)

    def _add_blob(self, temporary: str, digest: str) -> None:
        os.rename(temporary, os.path.join(self.path, "blobs", digest[7:]))

    def _unpack(self, descriptor: dict[str, Any], diff_id: str) -> None:
        """Unpack a blob, unless the same layer on the same layers is in the store already; verify its diff id."""
        below = [self._layer_path(chain) for chain in layout.chain_ids(self.diff_ids)]
        self.layers.append(descriptor)
        self.diff_ids.append(diff_id)
        chain = layout.chain_ids(self.diff_ids)[-1]
        if os.path.isdir(self._layer_path(chain)):
            return
        destination = store.directory(self.path, "layer.tmp")
        with open(self._blob(descriptor["digest"]), "rb") as blob:
            plain = Hashed(Gunzip(blob) if descriptor["mediaType"].endswith("gzip") else blob)
            layers.unpack(cast("BinaryIO", plain), destination, below)
            plain.drain()
        if plain.digest != diff_id:
            raise InvalidDocument(f"layer {descriptor['digest'][:19]}", "its content does not match its diff_id")
        os.rename(destination, os.path.join(self.path, "layers", chain[7:]))

    def _blob(self, digest: str) -> str:
        own = os.path.join(self.path, "blobs", digest[7:])
        return own if os.path.exists(own) else layout.blob_path(digest)

    def _layer_path(self, chain: str) -> str:
        own = os.path.join(self.path, "layers", chain[7:])
        return own if os.path.isdir(own) else layout.layer_path(chain)


def tag(text: str, new_name: str) -> Image:
    """See ``layout.tag``."""
    name = str(reference.parse(new_name))
    with Lock(_LOCK):
        entries = layout.read_index()
        entry = _existing(text, entries)
        annotations = {**(entry.get("annotations") or {}), layout.NAME: name}
        _write_index([*_without_name(entries, name, entry["digest"]), {**entry, "annotations": annotations}])
        return _found(name)


def remove(text: str) -> None:
    """See ``layout.remove``. A name is removed alone while the image has others; an id removes the image."""
    with Lock(_LOCK):
        _sweep()
        entries = layout.read_index()
        entry = _existing(text, entries)
        same = [other for other in entries if other["digest"] == entry["digest"]]
        by_name = layout.name_of(entry) and not reference.is_id_prefix(text.removeprefix("sha256:"))
        gone = [entry] if by_name and len(same) > 1 else same
        kept = [other for other in entries if other not in gone]
        _write_index(kept)
        _collect_garbage(kept)


def _existing(text: str, entries: list[dict[str, Any]]) -> dict[str, Any]:
    entry = layout.resolve(text, entries)
    if entry is None:
        raise NotFound(f"image {text}", "not in the store", "minirun images lists those that are")
    return entry


def _found(name: str) -> Image:
    image = layout.find(name)
    if image is None:
        raise NotFound(f"image {name}", "removed a moment ago", "try again")
    return image


def _create_layout() -> None:
    for parts in ((), ("blobs",), ("blobs", "sha256")):
        store.directory(layout.images_path(*parts))
    store.directory(store.root, "layers")
    if not os.path.exists(layout.images_path("oci-layout")):
        store.write_json(layout.images_path("oci-layout"), {"imageLayoutVersion": "1.0.0"})


def _write_index(entries: list[dict[str, Any]]) -> None:
    index = {"schemaVersion": 2, "mediaType": document.INDEX, "manifests": entries}
    store.write_json(layout.images_path("index.json"), index)


def _without_name(entries: list[dict[str, Any]], name: str, successor: str) -> list[dict[str, Any]]:
    """The entries after ``name`` went to the image ``successor``.

    An image never disappears by losing its name, as a container may be running on it: unless it has another name, it
    keeps an entry without. The successor needs no such entry any more.
    """
    kept = [entry for entry in entries if layout.name_of(entry) not in (name, "")]
    kept += [entry for entry in entries if not layout.name_of(entry) and entry["digest"] != successor]
    present = {entry["digest"] for entry in kept} | {successor}
    for entry in entries:
        if entry["digest"] not in present:
            others = {key: value for key, value in entry["annotations"].items() if key != layout.NAME}
            kept.append({**entry, "annotations": others})
    return kept


def _collect_garbage(entries: list[dict[str, Any]]) -> None:
    """Remove every blob and layer that no image of the index needs; the store's lock is held."""
    blobs: set[str] = set()
    chains: set[str] = set()
    try:
        for entry in entries:
            manifest = layout.read_manifest(entry, "image")
            config = document.image_config(layout.read_document(manifest["config"], "config"), "config")
            blobs.update(item["digest"][7:] for item in [entry, manifest["config"], *manifest["layers"]])
            chains.update(chain[7:] for chain in layout.chain_ids(config["rootfs"]["diff_ids"]))
    except InvalidDocument:
        return  # what a broken image needs is unknown: keep everything until it is removed
    for blob in store.entries(layout.images_path("blobs", "sha256")):
        if blob not in blobs:
            os.unlink(layout.images_path("blobs", "sha256", blob))
    for layer in store.entries(os.path.join(store.root, "layers")):
        if layer not in chains:  # first out of sight in one rename: a half removed layer must never look whole
            trash = os.path.join(store.directory(store.root, _OWN), f"layer-{layer}")
            os.rename(os.path.join(store.root, "layers", layer), trash)
            store.remove_tree(trash)


def _sweep() -> None:
    """Remove what dead writers left in <root>/image-tmp; the store's lock is held."""
    for name in store.entries(os.path.join(store.root, _OWN)):
        path = os.path.join(store.root, _OWN, name)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # its writer ended, and removed it, since the listing
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            store.remove_tree(path)
        except BlockingIOError:
            continue  # its writer is alive
        finally:
            os.close(descriptor)
