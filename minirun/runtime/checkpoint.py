"""Checkpoint and restore, by criu(8): a container's processes as files, and back.

    dump      criu writes the processes below the container's first one; bind mounts are named, not copied
    restore   the steps of ``create`` make the cgroup; criu, which is in it, forks the processes there

criu knows the kernel's inside better than we could; what is ours is to tell it what the container has from outside.
"""

from __future__ import annotations

import os

from minirun import step, store, strict_json
from minirun.errors import Conflict, MinirunError, NotFound, Unsupported
from minirun.linux import syscalls
from minirun.runtime import create as making
from minirun.runtime import namespaces, placement, rootfs
from minirun.runtime.container import Bundled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

_NETWORK = "minirun-net"  # what dump and restore call a network namespace that was joined


def find() -> str:
    """The path of criu. Raises Unsupported if it is not installed."""
    for folder in os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").split(":"):
        if os.access(f"{folder}/criu", os.X_OK):
            return f"{folder}/criu"
    raise Unsupported("checkpoint and restore", "criu: executable file not found in PATH", "install criu")


def dump(container: Bundled, images: str, work: str, words: Sequence[str], leave_running: bool) -> None:
    """Write the container's processes to the directory ``images``; they end, unless ``leave_running``."""
    criu, kept, config = find(), container.kept(), container.config()
    status = container.status(kept)
    if status not in ("running", "paused"):
        raise Conflict(
            f"container {container.id!r}", "container not running" if status == "stopped" else f"is {status}"
        )
    store.directory(images)
    command = [criu, "dump", "--tree", str(kept["pid"]), "--root", kept["rootfs"], *_common(images, work, "dump.log")]
    command += [word for target in _bind_targets(config) for word in ("--external", f"mnt[{target}]:{target}")]
    if path := namespaces.kinds(config).get("network"):
        command += ["--external", f"net[{os.stat(path).st_ino}]:{_NETWORK}"]
    command += ["--leave-running"] if leave_running else []
    _run([*command, *words], work, "dump.log")


def restore(
    identity: str, bundle: str, root: str, options: making.CreateOptions, images: str, work: str, words: Sequence[str]
) -> tuple[Bundled, int]:
    """Make the container that was dumped into ``images`` anew, from its bundle; its pid is a child of ours."""
    criu = find()
    if not os.path.isdir(images):
        raise NotFound(images, "no such file or directory", "name the checkpoint with --image-path")
    config = making.read_config(bundle, options)
    container = Bundled(identity, root)
    with making.take(container):
        try:
            place = placement.place(config, identity, options.systemd_cgroup, options.rootless)
            steps = [*rootfs.host_steps(config, bundle), *place.steps]
            store.create(f"{container.directory}/config.json", strict_json.dumps(config))
            store.write_json(f"{container.directory}/plan.json", [s.record() for s in steps])
            step.do_all(steps)
            joins = [*place.joins, *([f"{place.born}/cgroup.procs"] if place.born else [])]
            command = [
                criu,
                "restore",
                "--restore-detached",
                "--restore-sibling",
                *_common(images, work, "restore.log"),
            ]
            pid = _restored(container, config, bundle, [*command, *words], work, joins)
            kept = making.known(config, bundle, pid, place)
            container.write_state(kept)
            place.settle()
            if options.pid_file:
                store.write(options.pid_file, str(pid), 0o644)
            container.write_done(kept, placement.load(place.record).freezer)
        except BaseException:
            making.take_back(container, {}, options.log)
            raise
        making.unmark(container)
    return container, pid


def _restored(
    container: Bundled, config: dict[str, Any], bundle: str, command: list[str], work: str, joins: Sequence[str]
) -> int:
    """Run criu on a mount of the root file system, which it needs to be one; the pid of the first process."""
    top, pid_file = f"{container.directory}/criu-root", f"{container.directory}/criu-pid"
    command += ["--root", top, "--pidfile", pid_file, "--manage-cgroups=ignore"]
    for mount in config.get("mounts") or []:
        if _is_bind(mount):
            command += ["--external", f"mnt[{mount['destination']}]:{os.path.join(bundle, mount['source'])}"]
    inherited = []
    if path := namespaces.kinds(config).get("network"):
        inherited.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        command += ["--inherit-fd", f"fd[{inherited[0]}]:{_NETWORK}"]
    os.mkdir(top)
    # Private, or the end of this mount would take what is mounted in the original away as well (mount_namespaces(7)).
    _run(["mount", "--rbind", "--make-rprivate", os.path.join(bundle, config["root"]["path"]), top], work, "")
    try:
        _run(command, work, "restore.log", inherited, lambda: _enter(joins))
    finally:
        syscalls.unmount(top)
        for descriptor in inherited:
            os.close(descriptor)
    return int(store.read(pid_file) or 0)


def _enter(joins: Sequence[str]) -> None:
    """In the child that becomes criu: what it restores is born in the container's cgroup."""
    for path in joins:
        with open(path, "w") as file:
            file.write("0")


def _common(images: str, work: str, log: str) -> list[str]:
    return ["--images-dir", images, "--work-dir", work, "--log-file", log, "-v4"]


def _is_bind(mount: dict[str, Any]) -> bool:
    return bool({"bind", "rbind"} & set(mount.get("options") or [])) and "source" in mount


def _bind_targets(config: dict[str, Any]) -> list[str]:
    return [mount["destination"] for mount in config.get("mounts") or [] if _is_bind(mount)]


def _run(
    command: Sequence[str], work: str, log: str, inherited: Sequence[int] = (), before: Callable[[], None] | None = None
) -> None:
    import subprocess

    store.directory(work)
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", pass_fds=inherited, preexec_fn=before
    )
    if done.returncode == 0:
        return
    said = [line for line in (store.read(f"{work}/{log}") or "").splitlines() if "Error" in line] if log else []
    said += done.stderr.splitlines() or [f"exit code {done.returncode}"]
    why = said[0].rpartition("Error ")[2].strip()
    raise MinirunError(" ".join(command[:2]), why, f"{work}/{log} tells more" if log else "")
