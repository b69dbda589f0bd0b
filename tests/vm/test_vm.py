"""The VM from outside: what goes in and comes out, and that nothing stays; then all that `guest/` has to say inside."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
VM = Path(__file__).with_name("vm.py")


def command(kind: str, *job: str, timeout: float = 120) -> list[str]:
    return [sys.executable, str(VM), f"--kind={kind}", f"--timeout={timeout}", "--", *job]


def run(kind: str, *job: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command(kind, *job, timeout=timeout), cwd=CHECKOUT, capture_output=True, text=True)
    if done.returncode == 125 and "VM here:" in done.stderr:
        pytest.skip(done.stderr.strip())
    return done


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where vm.py keeps what it needs while it runs."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def processes_of(scratch: Path) -> list[str]:
    """Every VM has its scratch directory in its command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(process.read_text())
        except OSError:
            continue  # ended meanwhile
    return [line for line in found if str(scratch) in line]


def test_output_and_exit_status_come_out_as_they_are(scratch: Path) -> None:
    done = run("uml", "sh", "-c", 'echo "$0"; seq 20000; echo aside >&2; exit 7', "a  'b'")
    assert done.returncode == 7
    assert done.stdout.splitlines() == ["a  'b'", *map(str, range(1, 20001)), "aside"]
    assert list(scratch.iterdir()) == []


def test_what_the_job_leaves_behind_does_not_keep_the_vm(scratch: Path) -> None:
    assert run("uml", "sh", "-c", "setsid sleep 1000 & exit 3").returncode == 3


def test_time_limit(scratch: Path) -> None:
    done = run("uml", "sleep", "1000", timeout=0.5)
    assert (done.returncode, "not done after 0.5 s" in done.stderr) == (124, True)
    assert (list(scratch.iterdir()), processes_of(scratch)) == ([], [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_vm_leaves_nothing(scratch: Path, number: signal.Signals) -> None:
    with subprocess.Popen(command("uml", "sh", "-c", "echo up; sleep 1000"), stdout=subprocess.PIPE, text=True) as vm:
        assert vm.stdout
        if vm.stdout.readline() != "up\n":
            pytest.skip("no User-mode Linux here")
        vm.send_signal(number)
        assert vm.wait() == 128 + number
    assert (list(scratch.iterdir()), processes_of(scratch)) == ([], [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has the pid namespace that ends with its owner")
def test_a_killed_one_leaves_no_process(scratch: Path) -> None:
    with subprocess.Popen(command("uml", "sh", "-c", "echo up; sleep 1000"), stdout=subprocess.PIPE, text=True) as vm:
        assert vm.stdout
        if vm.stdout.readline() != "up\n":
            pytest.skip("no User-mode Linux here")
        vm.kill()
        assert vm.stdout.read() == ""  # the end of the file: nobody holds the other end any longer
    assert processes_of(scratch) == []


@pytest.fixture(scope="session")
def images() -> None:
    """The images that `guest/` runs; in a VM there is no network to fetch their packages from."""
    store = CHECKOUT / "build/vm-images"
    minirun = Path(sys.executable).with_name("minirun")
    subprocess.run([minirun, "--root", store, "--state", store, "image", "build", "busybox"], check=True)


# What User-mode Linux lacks is asked of qemu, which takes several times as long; `make vm-qemu` runs all there.
INSIDE = {"uml": ["tests/vm/guest"], "qemu": [f"tests/vm/guest/test_{name}.py" for name in ("vm_itself", "devices")]}


@pytest.mark.usefixtures("images", "scratch")
@pytest.mark.parametrize("kind", INSIDE)
def test_inside(kind: str) -> None:
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--durations=10", *INSIDE[kind]]
    done = run(kind, *words, timeout=900)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    assert not (CHECKOUT / "written-in-the-vm").exists()
