"""Bad input to the OCI runtime: one clear line, the right exit code, no traceback, and nothing is left."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from tests.runtime.bundles import OCI, SLEEP, RuntimeHost, changed, config, one_line

IDS = [
    "",
    ".",
    "..",
    "a/b",
    "../x",
    "/x",
    "a b",
    "ü",
    "x" * 256,
    "x" * 5000,
    "a\n",
    "\033[31m",
    "$(id)",
    "*",
    "a:b",
    "@x",
]

# words of a call: a piece of the complaint
WRONG: dict[tuple[str, ...], str] = {
    ("nonsense",): "unknown verb 'nonsense'",
    ("--nonsense", "list"): "unknown option --nonsense",
    ("list", "--nonsense"): "unknown option --nonsense",
    ("--root",): "needs a value",
    ("--log",): "needs a value",
    ("--log-format", "xml", "list"): "--log-format 'xml'",
    ("--log-level", "loud", "list"): "--log-level 'loud'",
    ("--cgroup-manager", "none", "list"): "--cgroup-manager 'none'",
    ("--rootless", "maybe", "list"): "--rootless 'maybe'",
    ("--rootless=", "list"): "--rootless ''",
    ("--systemd-cgroup=perhaps", "list"): "takes no value",
    ("--debu", "list"): "did you mean --debug",
    **{
        (verb, *words): "takes"
        for verb in ("create", "run", "start", "state", "delete", "pause", "resume", "update", "events", "checkpoint")
        for words in ((), ("a", "b"))
    },
    ("restore",): "takes one",
    ("kill",): "takes an id",
    ("kill", "a", "9", "more"): "takes an id",
    ("exec",): "the container is missing",
    ("ps",): "the container is missing",
    ("list", "more"): "takes none",
    ("spec", "more"): "takes none",
    ("features", "more"): "takes none",
    **{("state", identity): "container id" for identity in IDS},
    **{("create", identity): "container id" for identity in IDS},
    **{(verb, "a/b"): "container id" for verb in ("run", "start", "delete", "kill", "ps", "pause", "update", "events")},
    ("delete", "--force", "a/b"): "container id",
    ("exec", "a/b", "true"): "container id",
    ("create", "--bundle", "/no/such", "x"): "no such file or directory",
    ("create", "--bundle", "/dev/null", "x"): "",
    ("create", "--bundle", "/" + "x" * 5000, "x"): "",
    ("create", "--bundle"): "needs a value",
    ("--cgroup-manager", "disabled", "create", "x"): "needs its cgroup",
    ("create", "-Z", "x"): "unknown option -Z",
    ("create", "--preserve-fds", "many", "x"): "--preserve-fds",
    ("create", "--preserve-fds", "-1", "x"): "--preserve-fds",
    ("create", "--preserve-fds", "99", "x"): "is not open",
    ("create", "--console-socket", "/no/such", "x"): "--console-socket",
    ("create", "--pid-file", "/no/such/file", "x"): "/no/such/file",
    ("run", "--pid-file", "/run", "x"): "/run",
    ("kill", "x", "NOSUCH"): "signal 'NOSUCH'",
    ("kill", "x", "65"): "signal '65'",
    ("kill", "x", ""): "signal ''",
    ("exec", "x"): "the program is missing",
    ("exec", "--process", "/no/such", "x"): "no such file or directory",
    ("exec", "--process", "/dev/null", "x", "true"): "--process",
    ("exec", "-u", "root", "x", "true"): "--user 'root'",
    ("exec", "-u", "-1", "x", "true"): "--user '-1'",
    ("exec", "-u", "4294967295", "x", "true"): "--user",
    ("exec", "-u", "1:", "x", "true"): "--user",
    ("exec", "-g", "wheel", "x", "true"): "--additional-gids",
    ("exec", "-e", "=x", "x", "true"): "--env",
    ("exec", "-e", "", "x", "true"): "--env",
    ("list", "--format", "yaml"): "--format 'yaml'",
    ("events", "--interval", "soon", "x"): "--interval",
    ("events", "--interval", "0s", "x"): "--interval",
    ("events", "--interval", "-5s", "x"): "--interval",
    **{("update", "--memory", size, "x"): "--memory" for size in ("", "x", "1.2.3m", "-2", "nan", "9" * 30)},
    **{("update", "--cpu-quota", number, "x"): "--cpu-quota" for number in ("", "x", "1.5", "9" * 20)},
    ("update", "--cpu-period", "-1", "x"): "--cpu-period",
    ("update", "--l3-cache-schema", "L3:0=f", "x"): "resctrl",
    ("update", "--resources", "/no/such", "x"): "no such file or directory",
    ("spec", "--bundle", "/no/such"): "/no/such",
    ("--root", "/dev/null", "create", "x"): "/dev/null",
    ("--root", "/proc", "create", "x"): "/proc",
    **{
        (verb, "nobody"): "does not exist"
        for verb in ("state", "start", "kill", "delete", "pause", "resume", "update", "ps")
    },
    ("exec", "nobody", "true"): "does not exist",
    ("events", "nobody"): "does not exist",
}


def _code(words: tuple[str, ...]) -> int:
    return 255 if words[0] == "exec" else 1


@pytest.mark.parametrize("words", list(WRONG), ids=lambda words: " ".join(words).encode("unicode_escape").decode()[:60])
def test_wrong_calls(box: RuntimeHost, words: tuple[str, ...]) -> None:
    complaint = box.refused(*words, code=_code(words))
    assert WRONG[words] in complaint
    assert len(complaint) < 1000 or len(max(words, key=len)) > 1000


def test_no_verb_at_all(box: RuntimeHost) -> None:
    assert box.oci(code=1).startswith("usage:")


DEEP = "[" * 100_000 + "]" * 100_000
# What is wrong with a JSON document as a text: a piece of the complaint.
TEXTS: dict[str, str] = {
    "": "no value",
    "{": "",
    "nonsense": "",
    "[]": "object",
    "null": "",
    "1": "object",
    '{"a": 1} x': "text after the end",
    '{"a": 1, "a": 2}': "duplicate key 'a'",
    '{"a": NaN}': "NaN",
    '{"a": -Infinity}': "Infinity",
    '{"a": "\t"}': "",
    '{"a": ' + "9" * 5000 + "}": "",
    DEEP: "nested too deeply",
    '{"a":' * 50_000: "nested too deeply",
    " " * (17 << 20): "larger than",
}
LATIN = b'{"a": "\xff"}'


def _name(text: str) -> str:
    return repr(text[:20])


@pytest.mark.parametrize("text", TEXTS, ids=_name)
def test_documents_that_are_no_documents(box: RuntimeHost, text: str) -> None:
    """As config.json, as process.json and as resources, from files and from standard input."""
    box.path("/run/document").write_text(text)
    box.path("/run/bad").mkdir(exist_ok=True)
    box.path("/run/bad/config.json").write_text(text)
    box.oci("run", "-d", "box")
    calls = {
        ("create", "--bundle", "/run/bad", "x"): "config.json",
        ("run", "--bundle", "/run/bad", "x"): "config.json",
        ("exec", "--process", "/run/document", "box"): "/run/document",
        ("update", "--resources", "/run/document", "box"): "/run/document",
    }
    for words in calls:
        complaint = box.refused(*words)
        assert TEXTS[text] in complaint and len(complaint) < 300, complaint
    if len(text) < 1000:
        assert TEXTS[text] in box.refused("update", "-r", "-", "box", stdin=text)
    assert box.told()["status"] == "running"


def test_a_document_that_is_not_utf8(box: RuntimeHost) -> None:
    box.path("/run/bad").mkdir(exist_ok=True)
    box.path("/run/bad/config.json").write_bytes(LATIN)
    box.refused("create", "-b", "/run/bad", "x")


# JSON path: values that it must not have. The rest is in tests/unit/test_runtime_spec.py.
MEMBERS: dict[str, list[Any]] = {
    "process": [None, 1, [], "x"],
    "process.args": [None, [], "ls", [1], ["a\0b"]],
    "process.cwd": ["", "relative", 1, None],
    "process.env": ["A=1", [1], ["no equals sign"], ["=x"]],
    "process.user": [[], "root"],
    "process.user.uid": ["0", -1, 1.5, True, 1 << 40],
    "root": [None, []],
    "root.path": [None, 1, "", "/no/such"],
    "linux.namespaces": [{}, [1], [{"type": "nonsense"}], [{"path": "/x"}]],
    "linux.cgroupsPath": ["/", "..", "/a/../..", 1],
    "mounts": [{}, [1], [{}], [{"destination": 1}]],
    "ociVersion": [None, 1, "x", "9.0.0"],
    "hooks": [[], {"prestart": {}}, {"prestart": [{"path": "relative"}]}],
    "annotations": [[], {"a": 1}],
    "hostname": [1, []],
}


@pytest.mark.parametrize("path", MEMBERS)
def test_members_that_are_wrong(box: RuntimeHost, path: str) -> None:
    whole = config(f"{box.cgroup}/c", SLEEP)
    for value in MEMBERS[path]:
        box.path(f"{box.bundle}/config.json").write_text(json.dumps(changed(whole, path, value)))
        complaint = box.refused("create", "box")
        assert path.rpartition(".")[2] in complaint or str(value) in complaint, (value, complaint)
        assert box.leftovers() == [], value


def test_a_namespace_that_is_not_there(box: RuntimeHost) -> None:
    wanted = [{"type": "mount"}, {"type": "network", "path": "/no/such"}]
    box.configure(SLEEP, {"linux": {"cgroupsPath": f"/{box.cgroup}/c", "namespaces": wanted}})
    assert "/no/such" in box.refused("create", "box")
    assert box.leftovers() == []


@pytest.mark.parametrize(
    "document",
    [{}, {"args": "ls", "cwd": "/"}, {"args": ["ls"], "cwd": "x"}, {"args": ["ls"], "cwd": "/", "user": {"uid": "0"}}],
    ids=str,
)
def test_a_process_that_is_wrong(box: RuntimeHost, document: dict[str, Any]) -> None:
    box.oci("run", "-d", "box")
    box.refused("exec", "--process", "-", "box", stdin=json.dumps(document))
    assert json.loads(box.oci("ps", "-f", "json", "box")) == [box.told()["pid"]]


@pytest.mark.parametrize("document", ['{"memory": 1}', '{"memory": {"limit": "x"}}', '{"pids": {"limit": true}}'])
def test_resources_that_are_wrong(box: RuntimeHost, document: str) -> None:
    box.oci("run", "-d", "box")
    box.refused("update", "-r", "-", "box", stdin=document)


def test_the_log_gets_the_same_line(box: RuntimeHost) -> None:
    """As containerd's shim and podman read it: one JSON object a line; also for what is wrong with the call itself."""
    log = box.path("/run/log")
    calls = [
        ["state", "nobody"],
        ["state", "esc\033[31m"],
        ["create", "--nonsense", "x"],
        ["nonsense"],
        ["start", "nobody"],
    ]
    said = [box.refused("--log", "/run/log", "--log-format=json", *words) for words in calls]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["level"] for line in lines] == ["error"] * len(calls)
    assert all(set(line) == {"level", "msg", "time"} and line["time"].endswith("Z") for line in lines)
    for line, complaint in zip(lines, said, strict=True):
        shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line["msg"])
        assert complaint == f"minirun-oci: {shown}\n"
    log.unlink()
    said = [box.refused("--log=/run/log", *words) for words in calls]
    assert [line.replace(": error: ", ": ", 1) for line in log.read_text().splitlines(keepends=True)] == said
    log.unlink()
    box.oci("run", "-d", "box")
    box.oci("--log", "/run/log", "--log-format", "json", "update", "--kernel-memory", "1g", "box")
    (warning,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert warning["level"] == "warning" and "--kernel-memory" in warning["msg"]
    log.unlink()
    box.oci("--log", "/run/log", "--log-level", "error", "update", "--kernel-memory", "1g", "box")
    assert not log.exists()


def test_json_on_standard_error_without_a_file(box: RuntimeHost) -> None:
    done = box.call(OCI, "--log-format", "json", "state", "nobody")
    assert done.returncode == 1 and json.loads(done.stderr)["level"] == "error" and done.stderr.count("\n") == 1


def test_a_log_that_cannot_be_written_does_not_hide_the_error(box: RuntimeHost) -> None:
    done = box.call(OCI, "--log", "/no/such/log", "state", "nobody")
    warning, error = done.stderr.splitlines(keepends=True)
    assert done.returncode == 1 and "/no/such/log" in one_line(warning) and "does not exist" in one_line(error)


def test_debug_shows_where(box: RuntimeHost) -> None:
    assert "Traceback" in box.call(OCI, "--debug", "state", "nobody").stderr


def test_standard_streams_that_are_closed(box: RuntimeHost) -> None:
    done = box.call("sh", "-c", 'exec "$0" state nobody >&-', OCI)
    assert done.returncode == 1 and "does not exist" in one_line(done.stderr)
    assert box.call("sh", "-c", 'exec "$0" state nobody >&- 2>&- <&-', OCI).returncode == 1
    box.oci("run", "-d", "box")
    assert "No space left" in one_line(box.call("sh", "-c", 'exec "$0" state box >/dev/full', OCI).stderr)


RUNC = shutil.which("runc")
# Calls where they differ on purpose, or are not the same to begin with.
NOT_RUNCS = ("--cgroup-manager", "--rootless", "--rootless=", "--systemd-cgroup=perhaps", "--log-level", "--debu")
OTHERS: dict[tuple[str, ...], str] = {
    ("nonsense",): "runc: 3",
    ("exec",): "runc: 1, since it fails before its exec does; ours is 255 for every failure of exec",
    ("exec", "-g", "wheel", "x", "true"): "the same",
    ("kill", "x", ""): "runc: 0, without doing anything",
    ("update", "--cpu-quota", "", "x"): "the same",
    ("update", "--memory", "", "x"): "the same",
    ("create", "--preserve-fds", "-1", "x"): "the same",
}


@pytest.mark.skipif(RUNC is None, reason="runc is not installed: scripts/provision.sh clients brings it")
def test_exit_codes_are_those_of_runc(box: RuntimeHost) -> None:
    """Ours are those that test_wrong_calls demands."""
    differ = {}
    for words in WRONG:
        if words[0] not in NOT_RUNCS and words not in OTHERS:
            done = box.call("env", "-C", box.bundle, str(RUNC), "--root", "/run/runc", *words)
            if done.returncode != _code(words):
                differ[words] = done
    assert differ == {}
