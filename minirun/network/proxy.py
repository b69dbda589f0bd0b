"""What is published on [::1]: a small program passes it on, one for each container that needs it (csrc/proxy.c).

The kernel takes no answer to ::1 from a network (ip6_input.c), so nftables cannot translate there. The sockets are
bound by ``claim``, before anything starts. The program ends with the container, whatever ends that: it has a socket
whose other end the command and the monitor hold, as they hold the container's lock. It does nothing before that socket
says so, which is when it is noted which process it is: else a kill in between would leave one that nobody finds.
"""

from __future__ import annotations

import os

from minirun import store
from minirun.errors import MinirunError
from minirun.linux import syscalls
from minirun.network import claim, ipam
from minirun.network.ports import LOOPBACK6
from minirun.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from minirun.network.ports import Port

PROGRAM = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "libexec", "minirun-proxy")
_PATIENCE = 10  # seconds
_SIGKILL = 9


def step(
    network: str,
    container: str,
    comment: str,
    ports: Sequence[Port],
    inside: Sequence[str],
    process: tuple[int, int] | None = None,
) -> Proxy:
    """The step for these ports of [::1], of a container with these addresses; see ``Proxy`` for ``process``."""
    target = next((address for address in inside if ":" in address), inside[0])
    host = f"[{target}]" if ":" in target else target
    asked = [[port.protocol, port.host_port, f"{host}:{port.container_port}"] for port in ports]
    found = Proxy(network, container, comment, asked)
    found.process = process
    return found


class Proxy(Step):
    """The process, and a note of which one it is. ``ports`` are [protocol, port of [::1], address inside].

    It ends with the holders of a socket or, of a container that runs already, with its first ``process`` (pid, start).
    """

    kind = "proxy"
    fields = ("network", "container", "comment", "ports")
    network: str
    container: str
    comment: str
    ports: list[tuple[str, int, str]]
    process: tuple[int, int] | None = None

    def sh(self) -> str:
        words = " ".join(f"{protocol} [{LOOPBACK6}]:{number} {target}" for protocol, number, target in self.ports)
        return "\n".join(
            (
                f"{PROGRAM} --owner '{self.comment}' {words} < /dev/null > /dev/null 2>&1 &",
                f"mkdir -p {os.path.dirname(self._path())}",
                f'echo "$! $(cut -d " " -f 22 /proc/$!/stat)" > {self._path()}',
            )
        )

    def do(self) -> None:
        ours, theirs = syscalls.socketpair()
        try:
            pid = self._spawn(theirs)
            # It serves only when it is noted: should we die before, the socket closes, and it ends.
            store.directory(os.path.dirname(self._path()))
            store.write(self._path(), f"{pid} {_start(pid)}\n")
            if not _served(ours):
                raise MinirunError("minirun-proxy", "ended before it served", f"by hand it would be: {self.sh()}")
            if self.holders is not None and not self.process:
                self.holders.append(ours)
                ours = -1
        finally:
            if ours >= 0:
                os.close(ours)
        claim.release()

    def _spawn(self, theirs: int) -> int:
        """Start the program, which waits for a byte; its pid. The sockets that it gets are closed here."""
        passed = [theirs]
        try:
            if self.process:
                passed.append(syscalls.open_process(*self.process))
            words = [PROGRAM, "--owner", self.comment, "--start", str(theirs), "--until", str(passed[-1])]
            for protocol, number, target in self.ports:
                listener = claim.listeners.pop((protocol, number), -1)  # else it was not us who claimed them
                passed += [listener] if listener >= 0 else []
                words += [protocol, f"@{listener}" if listener >= 0 else f"[{LOOPBACK6}]:{number}", target]
            for descriptor in passed:
                os.set_inheritable(descriptor, True)
            return syscalls.run_detached(words, {}, keep_stdio=False)
        finally:
            for descriptor in passed:
                os.close(descriptor)

    def undo(self) -> None:
        text = store.read(self._path())
        if text is None:  # never begun; or we died before it was noted, and it with us
            return
        pid, start = map(int, text.split())
        try:
            process = syscalls.open_process(pid, start)
        except ProcessLookupError:
            pass
        else:
            from _signal import pidfd_send_signal

            try:
                pidfd_send_signal(process, _SIGKILL)
                if not syscalls.ended([process], _PATIENCE):
                    raise MinirunError(f"process {pid} (minirun-proxy)", "was killed and does not end")
            except ProcessLookupError:
                pass
            finally:
                os.close(process)
        os.unlink(self._path())

    def _path(self) -> str:
        return f"{ipam.state_directory(self.network)}/proxies/{self.container}"


def _start(pid: int) -> int:
    """When our child started, in clock ticks after boot: field 22 of proc_pid_stat(5)."""
    return int((store.read(f"/proc/{pid}/stat") or "").rpartition(")")[2].split()[19])


def _served(control: int) -> bool:
    """Let the program serve; whether it says that it does."""
    try:
        os.write(control, b"1")
        return bool(os.read(control, 1))
    except (BrokenPipeError, ConnectionResetError):  # it has ended
        return False
