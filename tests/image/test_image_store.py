"""The image store: what goes in comes out verified, whoever else writes and whenever they die."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from minirun import store
from minirun.errors import InvalidDocument, NotFound
from minirun.image import document, layers, layout, stream, writer
from minirun.image.layout import Image
from tests.image.archives import archive, entry

CONFIG = {"created": "2026-01-02T03:04:05Z", "architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"]}}


def add(name: str, tree: Path, base: Image | None = None, **config: object) -> Image:
    with writer.Addition() as addition:
        if base:
            addition.on_top_of(base)
        addition.add_directory(str(tree), 1_700_000_000)
        return addition.commit({**CONFIG, "config": {**CONFIG["config"], **config}}, name)  # type: ignore[dict-item]


def in_children(count: int, work: Callable[[int], object]) -> list[int]:
    """Run ``work`` in forked children at once; their wait statuses."""
    children = []
    for number in range(count):
        if (child := os.fork()) == 0:
            status = 1
            try:
                work(number)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    return [os.waitpid(child, 0)[1] for child in children]


def assert_whole(root: Path) -> None:
    """Whatever the index names is there, and no reader can meet half a layer."""
    for image in layout.listing():
        for path in image.layers:
            assert (Path(path) / "bin/tool").stat().st_size == 4000
            assert (Path(path) / "etc/ünïcode").stat().st_size == 513


def test_an_empty_store_has_no_images() -> None:
    assert layout.find("alpine") is None
    assert layout.find("0123456789ab") is None
    assert layout.listing() == []


def test_an_image_is_found_by_name_and_id(rootfs: Path) -> None:
    image = add("app", rootfs, Env=["PATH=/bin", "A=b=c"])
    for text in ("app", "app:latest", "docker.io/library/app", image.id, image.id[7:], image.id[7:11], image.id[:15]):
        found = layout.find(text)
        assert found is not None, text
        assert (found.id, found.layers) == (image.id, image.layers)
    assert layout.find(f"app@{image.digest}") is not None
    assert layout.find(f"other@{image.digest}") is None
    assert layout.find("app:other") is None
    assert image.names == ["docker.io/library/app:latest"]
    assert image.config["Env"] == ["PATH=/bin", "A=b=c"]
    assert image.size == layers.size(str(rootfs))
    assert image.created == "2026-01-02T03:04:05Z"


def test_the_same_tree_gives_the_same_image(rootfs: Path) -> None:
    first = add("one", rootfs)
    second = add("two", rootfs)
    assert first.id == second.id
    assert first.digest == second.digest
    assert second.names == ["docker.io/library/one:latest", "docker.io/library/two:latest"]
    assert len(layout.listing()) == 1


def test_layers_are_named_by_their_chain(rootfs: Path, tmp_path: Path) -> None:
    base = add("base", rootfs)
    (tmp_path / "more").mkdir()
    (tmp_path / "more/file").write_text("2")
    top = add("top", tmp_path / "more", base)
    assert top.layers[0] == base.layers[0]
    assert os.listdir(top.layers[1]) == ["file"]
    diff_ids = top.document["rootfs"]["diff_ids"]
    digest = subprocess.run(
        ["sha256sum"], input=" ".join(diff_ids).encode(), capture_output=True, check=True
    ).stdout.split()[0]
    assert Path(top.layers[1]).name == digest.decode()


def test_a_new_image_of_a_name_leaves_the_old_one_findable_by_id(rootfs: Path) -> None:
    old = add("app", rootfs)
    (rootfs / "etc/new").write_text("x")
    new = add("app", rootfs)
    found = layout.find(old.id)
    assert found is not None
    assert found.names == []
    assert all(os.path.isdir(path) for path in found.layers)
    assert (layout.find("app") or old).id == new.id
    layout.tag(old.id, "app:old")
    assert (layout.find("app:old") or new).id == old.id
    assert len(layout.read_index()) == 2


def test_remove_takes_a_name_then_the_image_and_only_its_own_layers(rootfs: Path, tmp_path: Path, root: Path) -> None:
    base = add("base", rootfs)
    (tmp_path / "more").mkdir()
    top = add("top", tmp_path / "more", base)
    layout.tag("top", "top:2")
    layout.remove("top:2")
    assert layout.find("top:2") is None
    layout.remove("top")
    assert layout.find(top.id) is None
    assert os.listdir(root / "layers") == [Path(base.layers[0]).name]
    layout.remove(base.id[:12])
    for directory in ("layers", "images/blobs/sha256", "image-tmp"):
        assert os.listdir(root / directory) == []
    with pytest.raises(NotFound):
        layout.remove("base")


def test_an_ambiguous_id_is_refused(rootfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}
    for number in range(2000):  # until two ids begin with the same 4 digits: some 300 tries of 65 536
        image_id = layout.sha256_digest(str(number).encode())
        if image_id[7:11] in seen:
            break
        seen[image_id[7:11]] = str(number)
    with pytest.raises(InvalidDocument, match="2 images begin so"):
        layout._by_id(image_id[7:11], _two_entries(seen[image_id[7:11]], str(number)))


def _two_entries(*contents: str) -> list[dict[str, object]]:
    """Entries whose manifests do not exist, so that they are known by their own digests."""
    return [{"digest": layout.sha256_digest(content.encode()), "size": 1} for content in contents]


def test_a_changed_blob_is_refused_on_every_read_and_can_be_removed(rootfs: Path) -> None:
    image = add("app", rootfs)
    other = add("other", rootfs, User="1")
    for digest in (image.id, image.digest):
        path = Path(layout.blob_path(digest))
        good = path.read_bytes()
        for bad in (good.replace(b"{", b" ", 1), good[:-1], good + b" ", b""):
            path.write_bytes(bad)
            with pytest.raises(InvalidDocument, match="not what its digest"):
                layout.find("app")
        path.write_bytes(good)
    path.unlink()
    with pytest.raises(InvalidDocument, match="cannot be read"):
        layout.find("app")
    assert (layout.find(other.id) or image).id == other.id
    layout.remove("app")
    assert [image.id for image in layout.listing()] == [other.id]


def test_a_blob_from_outside_must_be_what_its_descriptor_says(root: Path) -> None:
    data = b"x" * 100_000
    digest = layout.sha256_digest(data)
    with writer.Addition() as addition:
        for size, content in ((99_999, data), (100_001, data), (100_000, data[:-1] + b"y"), (5, data)):
            with pytest.raises(InvalidDocument, match="does not match"):
                addition.add_blob(io.BytesIO(content), {"digest": digest, "size": size})
        addition.add_blob(io.BytesIO(data), {"digest": digest, "size": 100_000})
    assert not (root / "images").exists()


def test_a_layer_must_be_what_its_diff_id_says(root: Path) -> None:
    data = archive(entry("f")).getvalue()
    descriptor = {"mediaType": document.LAYER, "digest": layout.sha256_digest(data), "size": len(data)}
    with writer.Addition() as addition:
        addition.add_blob(io.BytesIO(data), descriptor)
        with pytest.raises(InvalidDocument, match="diff_id"):
            addition.add_layer(descriptor, layout.sha256_digest(b"something else"))
    assert not (root / "layers").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"Env": ["HOME"]}, r"config\.Env\[0\]|Env\[0\]"),
        ({"Env": ["=x"]}, "is not NAME=value"),
        ({"Env": ["A\0B=x"]}, "NUL"),
        ({"Env": "A=b"}, "expected a list"),
        ({"Cmd": [1]}, "expected a string"),
        ({"Entrypoint": {"a": 1}}, "expected a list"),
        ({"User": 0.5}, "User: expected a string"),
        ({"Labels": ["x"]}, "Labels: expected an object"),
    ],
)
def test_configs_that_say_nonsense_are_refused(config: dict[str, object], message: str) -> None:
    value = {**CONFIG, "config": config, "rootfs": {"type": "layers", "diff_ids": []}}
    with pytest.raises(InvalidDocument, match=message):
        document.image_config(value, "image x")


def test_null_is_as_good_as_absent() -> None:
    nothing = dict.fromkeys(("Env", "Cmd", "Entrypoint", "User", "WorkingDir", "Labels", "Volumes", "ExposedPorts"))
    value = {**CONFIG, "config": nothing, "rootfs": {"type": "layers", "diff_ids": []}}
    assert document.image_config(value, "image x") is value


@pytest.mark.parametrize(
    "change",
    [
        {"manifests": []},
        {"mediaType": document.INDEX},
        {"layers": None},
        {"layers": []},
        {"config": {"digest": "sha256:../../../etc/passwd", "size": 1}},
        {"config": {"digest": layout.sha256_digest(b""), "size": -1}},
        {"config": {"digest": layout.sha256_digest(b""), "size": True}},
    ],
)
def test_manifests_that_say_nonsense_are_refused(change: dict[str, object]) -> None:
    descriptor = {"digest": layout.sha256_digest(b""), "size": 0}
    good = {"schemaVersion": 2, "config": descriptor, "layers": [descriptor]}
    assert document.manifest(good, "m") is good
    with pytest.raises(InvalidDocument):
        document.manifest({**good, **change}, "m")


def test_sixteen_writers_of_one_image_make_one_image(rootfs: Path, root: Path) -> None:
    assert in_children(16, lambda number: add("app", rootfs)) == [0] * 16
    assert len(layout.read_index()) == 1
    assert len(os.listdir(root / "layers")) == 1
    assert os.listdir(root / "image-tmp") == []
    assert_whole(root)


def test_writers_of_different_images_lose_no_entry(rootfs: Path) -> None:
    assert in_children(12, lambda number: add(f"app:{number}", rootfs, User=str(number))) == [0] * 12
    assert len(layout.listing()) == 12


def test_a_writer_killed_anywhere_leaves_all_or_nothing(rootfs: Path, root: Path) -> None:
    """Kill -9 at every operation on the file system, one after the other, until the writer lives to its end."""
    base = add("base", rootfs)
    outcomes = []
    for operation in range(1, 1000):

        def killed(_: int, left: list[int] = [operation]) -> None:  # noqa: B006
            def count(event: str, _: object) -> None:
                if event in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.chown"):
                    left[0] -= 1
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(count)
            add("app", rootfs, base, User="1")

        (status,) = in_children(1, killed)
        found = layout.find("app")
        outcomes.append(found is not None)
        assert_whole(root)
        if found is not None:
            layout.remove("app")
        with writer.Addition() as addition:  # the next writer cleans up
            assert os.listdir(root / "image-tmp") == [os.path.basename(addition.path)]
        if status == 0:
            break
        assert status == signal.SIGKILL
    assert operation > 40
    assert outcomes == sorted(outcomes), "once the index is written the image is there"
    assert outcomes[-1]
    add("app", rootfs, base, User="1")
    layout.remove("app")
    assert sorted(os.listdir(root / "layers")) == [Path(path).name for path in base.layers]


def test_a_removal_killed_anywhere_leaves_no_half_layer(rootfs: Path, root: Path) -> None:
    for operation in range(1, 1000):
        add("app", rootfs)

        def killed(_: int, left: list[int] = [operation]) -> None:  # noqa: B006
            def count(event: str, _: object) -> None:
                if event in ("open", "os.rename", "os.remove", "os.rmdir"):
                    left[0] -= 1
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(count)
            layout.remove("app")

        (status,) = in_children(1, killed)
        assert_whole(root)
        if status == 0:
            break
    assert operation > 5
    assert os.listdir(root / "layers") == []


def test_a_living_writer_is_not_swept_away(rootfs: Path, root: Path) -> None:
    with writer.Addition() as one, writer.Addition() as other:
        assert sorted(os.listdir(root / "image-tmp")) == sorted(os.path.basename(w.path) for w in (one, other))


def test_find_imports_nothing_that_costs(root: Path, rootfs: Path) -> None:
    add("app", rootfs)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = set(sys.modules)\n"
        "from minirun.image import layout; assert layout.find('app')\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    repository = str(Path(store.__file__).parent.parent)
    result = subprocess.run(
        [sys.executable, "-IS", "-c", code, repository],
        env={"MINIRUN_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    allowed = {"os", "os.path", "posixpath", "genericpath", "stat", "_stat", "_collections_abc", "_json", "__future__"}
    imported = {name for name in result.stdout.split() if not name.startswith("minirun")}
    assert imported <= allowed | {"_sha256", "_sha2"}


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_another_tool_reads_the_store(rootfs: Path, root: Path, tmp_path: Path) -> None:
    image = add("app", rootfs)
    source = f"oci:{root}/images:docker.io/library/app:latest"
    copied = tmp_path / "copy"
    subprocess.run(["skopeo", "--insecure-policy", "copy", "--quiet", source, f"dir:{copied}"], check=True)
    manifest = json.loads((copied / "manifest.json").read_text())
    assert manifest["config"]["digest"] == image.id
    with (copied / manifest["layers"][0]["digest"][7:]).open("rb") as blob:
        plain = stream.Hashed(stream.Gunzip(blob))
        plain.drain()
    assert plain.digest == image.document["rootfs"]["diff_ids"][0]
