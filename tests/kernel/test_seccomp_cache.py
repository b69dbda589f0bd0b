"""The cache of compiled filters: made once, trusted only if nobody else could have made it, and cheap to hit."""

from __future__ import annotations

import os
import stat
import subprocess
import sys

import pytest

from minirun import store
from minirun.errors import Conflict
from minirun.linux import seccomp, security
from minirun.oci.seccomp import default_profile

PROFILE = default_profile(security.DEFAULT_CAPABILITIES)


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "state", str(tmp_path))
    return tmp_path / "seccomp"


def test_a_profile_is_compiled_once(state):
    path = seccomp.filter_path(PROFILE)
    made = os.stat(path)
    assert seccomp.filter_path(PROFILE) == path
    assert os.stat(path).st_ino == made.st_ino
    assert stat.S_IMODE(made.st_mode) == 0o600
    assert stat.S_IMODE(os.stat(state).st_mode) == 0o700
    with open(path, "rb") as file:
        assert file.read() == seccomp.compile(PROFILE)
    assert seccomp.filter_path(default_profile(["CAP_SYS_ADMIN"])) != path


@pytest.mark.parametrize("spoil", ["link", "mode", "absent", "owner"])
def test_a_file_that_others_could_have_made_is_made_anew(state, spoil):
    path = seccomp.filter_path(PROFILE)
    if spoil == "mode":
        os.chmod(path, 0o666)
    elif spoil == "owner":
        if os.geteuid():
            pytest.skip("only root gives files away")
        os.chown(path, 65534, -1)
    else:
        os.unlink(path)
    if spoil == "link":
        os.symlink("/dev/null", path)
    assert seccomp.filter_path(PROFILE) == path
    assert stat.S_ISREG(os.lstat(path).st_mode)
    assert (os.stat(path).st_uid, stat.S_IMODE(os.stat(path).st_mode)) == (os.geteuid(), 0o600)


def test_a_directory_that_others_may_write_is_refused(state):
    state.mkdir()
    state.chmod(0o777)
    with pytest.raises(Conflict, match="others may write there"):
        seccomp.filter_path(PROFILE)


def test_another_libseccomp_means_another_filter(state):
    path = seccomp.filter_path(PROFILE)
    link = state / "libseccomp"
    link.unlink()
    link.symlink_to(sys.executable)
    assert seccomp.filter_path(PROFILE) != path
    link.unlink()
    link.symlink_to(state / "removed by an upgrade")
    assert seccomp.filter_path(PROFILE) == path


def test_a_compiled_profile_costs_no_libseccomp(state):
    script = (
        "import sys; from minirun.linux import seccomp, security; from minirun.oci.seccomp import default_profile;"
        "seccomp.filter_path(default_profile(security.DEFAULT_CAPABILITIES));"
        "print(*sorted(set(sys.modules) & {'minirun.linux._seccomp', 're', 'json', 'struct', 'hashlib', 'typing'}))"
    )
    environment = os.environ | {"MINIRUN_STATE": str(state.parent), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-S", "-c", script]
    first, second = (subprocess.check_output(command, env=environment, text=True) for _ in range(2))
    assert "minirun.linux._seccomp" in first
    assert second == "\n"
