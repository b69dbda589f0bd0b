"""Who is measured: minirun, and whichever other runtimes and engines are installed.

Each says how it does the same things, as words of a command; a peer that is not there or does not work on this machine
says why, and the bench goes on without it. All of them store on tmpfs and work in the fake host's network.
"""

from __future__ import annotations

import shutil
import subprocess
import time

from tests.bench.bundle import BUNDLE
from tests.bench.machine import SCRATCH, BenchHost

# The cases, in the order of the table.
BRIDGE, NO_NETWORK = "run on a bridge", "run without network"
DETACHED, EXEC, BARE = "run -d on a bridge", "exec", "bare OCI bundle"
LIFE, STATE = "create, start, delete", "state"
PUBLISHED = "run with 50 ports"
CASES = (BRIDGE, NO_NETWORK, DETACHED, EXEC, BARE, LIFE, STATE, PUBLISHED)
SLOW = (PUBLISHED,)  # of which a few rounds must do

TRUE, LONG = ["/bin/true"], ["sleep", "100000"]
FIFTY = [word for port in range(20000, 20050) for word in ("-p", f"{port}:{port}")]
ALPINE = f"{SCRATCH}/alpine"  # a copy of the image's files
Jobs = dict[str, dict[str, list[str]]]


class Unavailable(Exception):
    """A peer that cannot be measured here; says why."""


def _job(timed: list[str], after: list[str] | None = None) -> dict[str, list[str]]:
    return {"timed": timed, "after": after or []}


def _oci_jobs(program: str) -> Jobs:
    """What every OCI runtime does alike. The shell between two calls is the same for all; an engine calls them too."""
    life = f'"$0" create --bundle {BUNDLE} life && "$0" start life && "$0" delete --force life'
    return {
        BARE: _job([program, "run", "--bundle", BUNDLE, "bench-bundle"]),
        LIFE: _job(["sh", "-c", life, program]),
        STATE: _job([program, "state", "bench-state"]),
    }


class Peer:
    """One runtime or engine. ``removal``: the words by which it kills containers and removes them."""

    name = ""
    removal: tuple[str, ...] = ("rm", "-f")

    def __init__(self, host: BenchHost) -> None:
        self.host = host

    def prepare(self) -> str:
        """Make ready what the jobs need; return what ``--version`` says. Raises Unavailable."""
        raise NotImplementedError

    def jobs(self) -> Jobs:
        """What it can do, by case."""
        raise NotImplementedError

    def detached(self) -> list[str]:
        """The words that start a container on a bridge in the background, up to the image. Engines only."""
        raise NotImplementedError

    def close(self) -> None:
        """Remove what ``prepare`` made."""

    def must(self, *command: str) -> str:
        """Run a command of the preparation; its output."""
        try:
            done = self.host.run(command, check=False)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{' '.join(command[:2])} does not end") from None
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
            raise Unavailable(said[-1])
        return done.stdout

    def create(self, runtime: str) -> None:
        """A container for `state` to tell of; its cgroup is its own. What it inherits must not be our pipes."""
        command = f"{runtime} create --bundle {BUNDLE}-state bench-state < /dev/null > /dev/null 2>&1"
        self.must("sh", "-c", command)

    def found(self, program: str) -> str:
        """The path of an installed program."""
        path = shutil.which(program)
        if path is None:
            raise Unavailable("not installed")
        return path


class Minirun(Peer):
    """This project's program."""

    name = "minirun"

    def __init__(self, host: BenchHost, program: str) -> None:
        super().__init__(host)
        self.program = program

    def prepare(self) -> str:
        self.must(self.program, "run", "--rm", "--net", "br0", "alpine", *TRUE)  # makes the network
        self.must(self.program, "run", "-d", "--name", "bench-exec", "--net", "none", "alpine", *LONG)
        self.create(f"{self.program}-oci")
        return self.must(self.program, "version").splitlines()[0]

    def jobs(self) -> Jobs:
        run = [self.program, "run"]
        detached = [*self.detached(), "--name", "bench", "alpine", *LONG]
        return {
            BRIDGE: _job([*run, "--rm", "--net", "br0", "alpine", *TRUE]),
            PUBLISHED: _job([*run, "--rm", "--net", "br0", *FIFTY, "alpine", *TRUE]),
            NO_NETWORK: _job([*run, "--rm", "--net", "none", "alpine", *TRUE]),
            DETACHED: _job(detached, [self.program, "rm", "-f", "bench"]),
            EXEC: _job([self.program, "exec", "bench-exec", *TRUE]),
            **_oci_jobs(f"{self.program}-oci"),
        }

    def detached(self) -> list[str]:
        return [self.program, "run", "-d", "--net", "br0"]

    def close(self) -> None:
        self.host.run([f"{self.program}-oci", "delete", "--force", "bench-state"], check=False)
        self.host.sweep(self.program)


class Runtime(Peer):
    """An OCI runtime with runc's command line."""

    program = ""

    def __init__(self, host: BenchHost, name: str) -> None:
        super().__init__(host)
        self.name = name

    def prepare(self) -> str:
        self.program = self.found(self.name)
        self.must(*self.jobs()[BARE]["timed"])
        self.create(self.program)
        return self.must(self.program, "--version").splitlines()[0]

    def jobs(self) -> Jobs:
        return _oci_jobs(self.program)

    def close(self) -> None:
        if self.program:
            self.host.run([self.program, "delete", "--force", "bench-state"], check=False)


class Engine(Peer):
    """An engine with docker's command line."""

    def __init__(self, host: BenchHost) -> None:
        super().__init__(host)
        self.words: list[str] = []  # the program and its global options
        self.options: list[str] = []  # of each run
        self.bridge = "bridge"

    def _fill(self) -> None:
        archive = f"{ALPINE}.tar"
        self.must("tar", "-C", ALPINE, "-cf", archive, ".")
        self.must(*self.words, "import", archive, "alpine")
        self.must(*self.words, "run", "--rm", "--network", self.bridge, *self.options, "alpine", *TRUE)
        detached = ["run", "-d", "--name", "bench-exec", "--network", "none", *self.options]
        self.must(*self.words, *detached, "alpine", *LONG)

    def jobs(self) -> Jobs:
        run = [*self.words, "run", *self.options]
        detached = [*self.detached(), "--name", "bench", "alpine", *LONG]
        return {
            BRIDGE: _job([*run, "--rm", "--network", self.bridge, "alpine", *TRUE]),
            PUBLISHED: _job([*run, "--rm", "--network", self.bridge, *FIFTY, "alpine", *TRUE]),
            NO_NETWORK: _job([*run, "--rm", "--network", "none", "alpine", *TRUE]),
            DETACHED: _job(detached, [*self.words, "rm", "-f", "bench"]),
            EXEC: _job([*self.words, "exec", "bench-exec", *TRUE]),
        }

    def detached(self) -> list[str]:
        return [*self.words, "run", *self.options, "-d", "--network", self.bridge]

    def close(self) -> None:
        if self.words:
            self.host.run([*self.words, "rm", "-f", "bench-exec", "bench"], check=False)


class Podman(Engine):
    """podman, with a store of its own. It asks first, and waits ten seconds, unless told not to."""

    name = "podman"
    removal = ("rm", "-f", "-t", "0")

    def prepare(self) -> str:
        program = self.found("podman")
        places = [f"--root={SCRATCH}/podman", f"--runroot={SCRATCH}/podman-run", f"--tmpdir={SCRATCH}/podman-tmp"]
        self.words = [program, *places, "--cgroup-manager=cgroupfs"]
        # Where hard limits cannot be raised, podman's default limits fail.
        self.options = [f"--cgroup-parent=/{self.host.cgroup}", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"]
        version = self.must(program, "--version").strip()
        try:
            self._fill()
        except Unavailable:  # its preferred runtime, Debian's crun, refuses a hybrid cgroup layout
            self.words += ["--runtime", self.found("runc")]
            self.host.run([*self.words, "rm", "-f", "bench-exec"], check=False)
            self._fill()
            version += " (with runc)"
        return version


class Docker(Engine):
    """docker, with a daemon of its own."""

    name = "docker"
    daemon: subprocess.Popen[str] | None = None

    def prepare(self) -> str:
        program = self.found("dockerd")
        # The client of the same package, before another of that name.
        self.words = [shutil.which("docker", path="/usr/bin") or self.found("docker")]
        self.host.path(f"{SCRATCH}/daemon.json").write_text("{}")
        self.log = self.host.path(f"{SCRATCH}/dockerd.log").open("w+")
        self.daemon = self.host.popen([program, *self._places()], stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 60
        while self.host.run([*self.words, "version"], check=False).returncode:
            if self.daemon.poll() is not None or time.monotonic() > deadline:
                raise Unavailable(f"dockerd: {self._last_line()}")
        self._fill()
        return self.must(*self.words, "--version").strip()

    def _places(self) -> list[str]:
        return [
            f"--data-root={SCRATCH}/docker",
            f"--exec-root={SCRATCH}/docker-exec",
            f"--pidfile={SCRATCH}/docker.pid",
            f"--host=unix://{SCRATCH}/docker.sock",
            f"--config-file={SCRATCH}/daemon.json",
            f"--cgroup-parent=/{self.host.cgroup}",
            "--exec-opt=native.cgroupdriver=cgroupfs",
        ]

    def _last_line(self) -> str:
        self.log.seek(0)
        return (self.log.read().strip().splitlines() or ["no output"])[-1]

    def close(self) -> None:
        if self.daemon and self.daemon.poll() is None:
            super().close()
            self.daemon.terminate()
            self.daemon.wait(60)


def all_peers(host: BenchHost) -> list[Peer]:
    """Everyone but minirun."""
    return [Runtime(host, "runc"), Runtime(host, "crun"), Podman(host), Docker(host)]
