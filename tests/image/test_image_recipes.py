"""Recipes: what they say is sound, what they build is the real thing, and a failed build leaves nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from minirun import store
from minirun.errors import InvalidDocument, MinirunError, NotFound, Unsupported
from minirun.image import alpine, builders, downloads, layout, recipes, reference
from minirun.image.layout import Image

IMAGES = ["alpine", "apache", "busybox", "nginx"]
SERVE = """
import http.client, os, signal, subprocess, sys
merged, stop, *argv = sys.argv[1:]
drop = "-all,+chown,+dac_override,+fsetid,+fowner,+setgid,+setuid,+setfcap,+setpcap,+net_bind_service,+sys_chroot,+kill"
server = subprocess.Popen(
    ["setpriv", "--no-new-privs", "--inh-caps=-all", "--bounding-set", drop, "chroot", merged, *argv],
    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
while server.poll() is None:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", 80)
        connection.request("GET", "/")
        break
    except ConnectionRefusedError:
        os.sched_yield()
else:
    sys.exit(server.stderr.read())
answer = connection.getresponse()
print(answer.status, answer.getheader("Server"), answer.read().decode())
server.send_signal(getattr(signal, stop))
out, err = server.communicate()
print("exit", server.returncode)
print("stdout", out, "stderr", err)
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a recipe of the test's own; the test sees no others."""
    monkeypatch.setattr(recipes, "location", lambda: str(tmp_path / "recipes"))

    def write(name: str, *steps: dict[str, object], **more: object) -> Path:
        directory = tmp_path / "recipes" / name
        (directory / "rootfs/etc").mkdir(parents=True, exist_ok=True)
        (directory / "rootfs/etc/motd").write_text("hello\n")
        document = {"title": name, "tags": ["latest", "1"], "created": "2026-01-02T03:04:05Z", "config": {}, **more}
        (directory / "recipe.json").write_text(json.dumps({**document, "build": steps}))
        return directory

    return write


def test_the_recipes_are_known() -> None:
    assert recipes.known() == IMAGES


@pytest.mark.parametrize("name", IMAGES)
def test_every_recipe_is_sound(name: str) -> None:
    recipe = recipes.Recipe(name)
    for step in recipe.document["build"]:
        assert step["kind"] in builders.KINDS
        if "source" in step:
            assert reference.is_digest(f"sha256:{step['source']['sha256']}")
    for tag in recipe.document["tags"]:
        reference.parse(f"{name}:{tag}")
    assert any(entry.startswith("PATH=") for entry in recipe.document["config"]["Env"])
    assert (Path(recipe.directory) / "README.md").exists()


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(NotFound, match="the recipes are alpine, apache, busybox, nginx"):
        recipes.build("debian")
    with pytest.raises(NotFound):
        recipes.build("../alpine")


def test_a_recipe_makes_an_image(recipe: Callable[..., Path]) -> None:
    step = {"kind": "files", "directories": {"tmp": {"mode": "1777", "uid": 5}}, "links": {"etc/link": "motd"}}
    recipe("own", step, {"kind": "append", "path": "etc/motd", "text": "world\n"}, config={"Cmd": ["x"]})
    lines: list[str] = []
    image = recipes.build("own", lines.append)
    (layer,) = image.layers
    assert (Path(layer) / "etc/motd").read_text() == "hello\nworld\n"
    assert (Path(layer) / "etc/motd").stat().st_mtime == 1767323045  # 2026-01-02T03:04:05Z
    assert oct((Path(layer) / "tmp").stat().st_mode) == "0o41777"
    assert image.names == ["docker.io/library/own:latest", "docker.io/library/own:1"]
    assert image.config["Labels"]["org.opencontainers.image.title"] == "own"
    assert lines[-1].startswith("built own sha256:")


def test_a_finished_image_is_found_until_its_recipe_changes(recipe: Callable[..., Path]) -> None:
    directory = recipe("own", {"kind": "files"})
    first = recipes.build("own")
    lines: list[str] = []
    assert recipes.build("own", lines.append).id == first.id
    assert lines == []
    assert recipes.build("own", lines.append, fresh=True).id == first.id
    assert lines
    (directory / "rootfs/etc/motd").write_text("changed\n")
    assert recipes.build("own").id != first.id


def test_the_umask_makes_no_difference(recipe: Callable[..., Path]) -> None:
    recipe("own", {"kind": "files", "directories": {"a/b/c": {}}})
    first = recipes.build("own")
    umask = os.umask(0o077)
    try:
        assert recipes.build("own", fresh=True).id == first.id
    finally:
        os.umask(umask)


def test_an_image_on_a_base_has_its_layers_and_changes_its_files(recipe: Callable[..., Path]) -> None:
    recipe("low", {"kind": "files"})
    directory = recipe("high", {"kind": "append", "path": "etc/motd", "text": "more\n"}, base="low")
    (directory / "rootfs/etc/motd").unlink()
    image = recipes.build("high")
    low = layout.find("low")
    assert low is not None
    assert image.layers[0] == low.layers[0]
    assert (Path(image.layers[1]) / "etc/motd").read_text() == "hello\nmore\n"


@pytest.mark.parametrize(
    "step",
    [
        {"kind": "magic"},
        {"kind": "replace", "path": "etc/motd"},
        {"kind": "replace", "path": "etc/motd", "old": "absent", "new": ""},
        {"kind": "append", "path": "etc/absent", "text": "x"},
        {"kind": "files", "directories": {"../../up": {}}},
    ],
)
def test_a_failed_build_leaves_nothing(step: dict[str, object], recipe: Callable[..., Path], root: Path) -> None:
    recipe("own", {"kind": "files"}, step)
    with pytest.raises(InvalidDocument):
        recipes.build("own")
    assert layout.listing() == []
    assert os.listdir(root / "image-tmp") == []
    assert not (root / "layers").exists()


@pytest.mark.parametrize(("program", "package"), [("qemu-img", "qemu-utils"), ("apt-get", "apt")])
def test_a_missing_tool_is_named_with_its_package(program: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Unsupported, match=f"{program}: the program is missing; apt-get install {package}"):
        downloads.tool(program)


def test_a_failing_helper_tells_its_last_line() -> None:
    with pytest.raises(MinirunError) as failure:
        downloads.run("/bin/sh", "-c", "echo first >&2; echo the reason >&2; exit 3")
    assert str(failure.value) == "sh -c failed: the reason"


def test_a_cached_wheel_with_another_hash_is_not_used(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = {"wheel": "x", "version": "1", "sha256": "0" * 64, "machine": os.uname().machine}
    Path(store.directory(str(root), "cache"), "x-1.whl").write_bytes(b"old")
    monkeypatch.setattr(sys, "executable", "/bin/false")  # no pip: it shows that a download was attempted
    with pytest.raises(Unsupported, match="python3-pip"):
        downloads.wheel(source, lambda line: None)
    source["sha256"] = hashlib.sha256(b"old").hexdigest()
    assert downloads.wheel(source, lambda line: None).endswith("x-1.whl")


def test_usr_is_merged_and_names_of_both_kinds_work(tmp_path: Path) -> None:
    for path in ("lib/a", "usr/lib/b", "bin/c", "lib64/ld"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    builders._merge_usr(str(tmp_path))
    assert {os.readlink(tmp_path / name) for name in ("bin", "sbin", "lib")} == {"usr/bin", "usr/sbin", "usr/lib"}
    for path in ("lib/a", "usr/lib/a", "lib/b", "bin/c", "usr/bin/c", "lib64/ld"):
        assert (tmp_path / path).exists(), path


RECORD = "C:Q1AAAA\nP:pkg\nV:1\nF:etc\nM:0:0:700\nR:file\na:1:2:640\nZ:{}\n\nP:other\nF:bin\nR:x\nZ:Q1x\n\n"


def test_alpines_database_is_read_and_its_hashes_are_believed_over_the_disk(tmp_path: Path) -> None:
    checksum = "Q1" + base64.b64encode(hashlib.sha1(b"content\n").digest()).decode()
    database = alpine.Database(RECORD.format(checksum), ["pkg"])
    assert list(database.files) == ["etc/file"]
    assert database.directories["etc"].mode == 0o700
    assert "other" not in database.text
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "good").write_text("content\nadded: line\n")
    access = database.files["etc/file"]
    with pytest.raises(InvalidDocument, match="/etc/file: its SHA-1"):
        alpine._make_file(str(tmp_path / "root"), "etc/file", access, None, str(tmp_path / "good"), {})
    edits = {"without": ["added:"]}
    alpine._make_file(str(tmp_path / "root"), "etc/file", access, None, str(tmp_path / "good"), edits)
    status = (tmp_path / "root/etc/file").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1, 2, 0o640)
    with pytest.raises(InvalidDocument, match="1 of the 2 packages"):
        alpine.Database(RECORD.format(checksum), ["pkg", "absent"])


@pytest.fixture(scope="session")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("images"))


@pytest.fixture
def build(shared_root: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Image]:
    """Build a real recipe in a store that all tests share, so that nothing is downloaded twice."""
    monkeypatch.setattr(store, "root", shared_root)
    return recipes.build


def chroot(layer: str, *command: str) -> str:
    return subprocess.run(["chroot", layer, *command], capture_output=True, text=True, check=True).stdout


@pytest.mark.download
def test_alpine_is_the_genuine_one(build: Callable[[str], Image]) -> None:
    (layer,) = build("alpine").layers
    root = Path(layer)
    record = (root / "lib/apk/db/installed").read_text()
    database = alpine.Database(record, [line[2:] for line in record.splitlines() if line.startswith("P:")])
    assert len(database.files) == 110
    for path, access in database.files.items():
        full = root / path
        content = os.readlink(full).encode() if full.is_symlink() else full.read_bytes()
        if path == "etc/shadow":  # the one file that differs from its package: root has no password at all there
            assert content.startswith(b"root:*:")
            content = content.replace(b"root:*:", b"root::", 1)
        assert access.checksum == "Q1" + base64.b64encode(hashlib.sha1(content).digest()).decode(), path
        assert full.is_symlink() or full.stat().st_mode & 0o7777 == access.mode, path
    assert chroot(layer, "/bin/cat", "/etc/alpine-release") == "3.23.6\n"
    assert len(chroot(layer, "/sbin/apk", "--no-network", "info", "-q").split()) == 16
    assert chroot(layer, "/sbin/apk", "audit", "--system") == ""
    for applet in chroot(layer, "/bin/busybox", "--list-full").split():
        assert os.readlink(root / applet) == "/bin/busybox", applet


@pytest.mark.download
def test_alpine_is_the_same_on_every_machine(build: Callable[[str], Image]) -> None:
    image = build("alpine")
    diff_id = "sha256:bea39ad4ea2c59757e2772a7c949f0b14a598610ca0cd145dd97dbffab743d82"
    assert image.document["rootfs"]["diff_ids"] == [diff_id]
    assert image.config["Cmd"] == ["/bin/sh"]


@pytest.mark.download
def test_busybox_runs(build: Callable[[str], Image]) -> None:
    (layer,) = build("busybox").layers
    assert chroot(layer, "/bin/sh", "-c", "echo $((6 * 7)); ls -d /tmp") == "42\n/tmp\n"


@pytest.mark.download
@pytest.mark.parametrize(
    ("name", "server", "page", "log"),
    [
        ("nginx", "nginx/1.31.3", "Welcome to nginx!", "start worker processes"),
        ("apache", "Apache/2", "It works!", "resuming normal operations"),
    ],
)
def test_servers_serve_in_a_container_like_place(
    name: str, server: str, page: str, log: str, build: Callable[[str], Image], tmp_path: Path
) -> None:
    """With the capabilities a container has, in a mount, pid and network namespace of its own."""
    image = build(name)
    lower = ":".join(reversed(image.layers))
    program = {"nginx": "/usr/sbin/nginx", "httpd": "/usr/sbin/httpd"}[image.config["Cmd"][0]]
    script = f"""
        mount -t tmpfs none {tmp_path} && cd {tmp_path} && mkdir upper work merged
        mount -t overlay none -o lowerdir={lower},upperdir=upper,workdir=work merged
        mount -t proc none merged/proc && mount -t tmpfs none merged/dev
        mknod -m 666 merged/dev/null c 1 3
        ln -s /proc/self/fd/1 merged/dev/stdout && ln -s /proc/self/fd/2 merged/dev/stderr
        ip link set lo up
        exec "$@"
    """
    run = ["unshare", "-mnpf", "--kill-child", "sh", "-ec", script, "sh", sys.executable, "-c", SERVE, "merged"]
    command = [*run, image.config["StopSignal"], program, *image.config["Cmd"][1:]]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.startswith(f"200 {server}")
    assert page in result.stdout
    assert "\nexit 0\n" in result.stdout
    out, _, err = result.stdout.partition("stdout ")[2].partition("stderr ")
    assert "GET / HTTP/1.1" in out
    assert log in err
