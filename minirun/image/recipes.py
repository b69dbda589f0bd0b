"""Images that can be built without a registry: ``images/<name>/recipe.json`` says how.

A recipe is data: what to fetch (pinned), which build steps to do, and the image config. The result is a real OCI image
in the store. What is cached is the finished image: its label ``minirun.recipe`` is the digest of the recipe, so a
recipe that changed is built anew and any other is found.
"""

from __future__ import annotations

import datetime
import hashlib
import os
from typing import Any

from minirun import store
from minirun.errors import InvalidDocument, NotFound
from minirun.image import layout, writer
from minirun.image.builders import Build
from minirun.image.downloads import Progress
from minirun.image.layout import Image

LABEL = "minirun.recipe"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_LABELS = ("title", "description", "version", "licenses", "url")


class Recipe:
    """One ``recipe.json``, read."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.directory = os.path.join(location(), name)
        self.document = _document(os.path.join(self.directory, "recipe.json"))
        self.base: Recipe | None = Recipe(self.document["base"]) if "base" in self.document else None
        self.digest: str = _digest(self.directory, self.base.digest if self.base else "")


def location() -> str:
    """Where the recipes are: beside this module when installed, at the top of the repository otherwise."""
    here = os.path.dirname(os.path.abspath(__file__))
    for candidate in (os.path.join(here, "recipes_data"), os.path.join(here, "..", "..", "images")):
        if os.path.isdir(candidate):
            return os.path.normpath(candidate)
    raise NotFound("image recipes", f"neither {here}/recipes_data nor images/ exists", "install minirun again")


def known() -> list[str]:
    """The names of the images that can be built."""
    where = location()
    return [name for name in store.entries(where) if os.path.exists(os.path.join(where, name, "recipe.json"))]


def build(name: str, progress: Progress = lambda line: None, fresh: bool = False) -> Image:
    """The image that a recipe makes, under its names; built unless the store has it (``fresh``: built in any case).

    Two builds of one recipe at the same time take turns, and the second finds the image of the first. A build that
    fails or is killed leaves nothing but its downloads.
    """
    if name not in known():
        raise NotFound(f"recipe {name}", "there is none", f"the recipes are {', '.join(known())}")
    recipe = Recipe(name)
    with writer.Lock("cache", f"{name}.lock"):
        image = layout.find(name)
        if image is not None and not fresh and (image.config.get("Labels") or {}).get(LABEL) == recipe.digest:
            return image
        base = build(recipe.base.name, progress) if recipe.base else None
        with writer.Addition() as addition:
            image = _build(recipe, base, addition, progress)
        for tag in recipe.document["tags"][1:]:
            image = layout.tag(image.id, f"{name}:{tag}")
        progress(f"built {name} {image.id[:19]}")
        return image


def _build(recipe: Recipe, base: Image | None, addition: writer.Addition, progress: Progress) -> Image:
    below = base.layers if base else []
    work = Build(recipe.directory, store.directory(addition.path, "build"), below, progress)
    umask = os.umask(0o022)  # the image must not depend on the user's
    try:
        for step in recipe.document["build"]:
            work.do(step)
    finally:
        os.umask(umask)
    created = recipe.document.get("created") or _date(work.newest)
    progress("making the layer")
    if base is not None:
        addition.on_top_of(base)
    newest = int(datetime.datetime.fromisoformat(created.replace("Z", "+00:00")).timestamp())
    addition.add_directory(work.root, newest)
    return addition.commit(_config(recipe, created, work.version), f"{recipe.name}:{recipe.document['tags'][0]}")


def _config(recipe: Recipe, created: str, version: str) -> dict[str, Any]:
    """The image config (image-spec) without its layers."""
    facts = {"version": version, **recipe.document}
    labels = {f"org.opencontainers.image.{key}": facts[key] for key in _LABELS if facts.get(key)}
    machine = os.uname().machine
    return {
        "created": created,
        "architecture": _ARCHITECTURES.get(machine, machine),
        "os": "linux",
        "config": {**recipe.document["config"], "Labels": {**labels, LABEL: recipe.digest}},
    }


def _document(path: str) -> dict[str, Any]:
    document = store.read_json(path)
    if not isinstance(document, dict) or not {"title", "tags", "build", "config"} <= document.keys():
        raise InvalidDocument(path, "a recipe needs title, tags, build and config")
    return document


def _digest(directory: str, base: str) -> str:
    """The digest of all that a recipe says, and of its base."""
    digest = hashlib.sha256(base.encode())
    for parent, directories, files in os.walk(directory):
        directories.sort()
        for file in sorted(files):
            if file != "README.md":
                path = os.path.join(parent, file)
                digest.update(os.path.relpath(path, directory).encode() + b"\0")
                with open(path, "rb") as content:
                    digest.update(hashlib.sha256(content.read()).digest())
    return f"sha256:{digest.hexdigest()}"


def _date(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
