"""What init does, said in shell: ``unshare`` for clone3, then one command per op.

The script is meant to be run (``minirun explain run ... | sudo sh``), with the host's tools only. Where a shell cannot
do what init does, a comment says so, and what stands in its place:

- the tools go away with the host's tree, so a helper does the pivot for the shell that becomes the program;
- a seccomp filter has no command; nor have sealed memfds, close_range, keyrings and DUMPABLE;
- mount(8) follows the links of an image, where init resolves each path inside the root;
- minirun-monitor holds the output and notes the exit; here the terminal does.
"""

from __future__ import annotations

from minirun.linux import security

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./:=,+@%^")
_FUNCTIONS = (
    'mask() { if [ -d ".$1" ]; then mount -t tmpfs -o ro,nosuid,nodev,noexec tmpfs ".$1"',
    '         elif [ -e ".$1" ]; then mount --bind /dev/null ".$1"; fi; }',
    'readonly_() { if [ -e ".$1" ]; then mount --rbind ".$1" ".$1"',
    '              findmnt --submounts --list --noheadings --output TARGET --mountpoint ".$1" |',
    '                while IFS= read -r at; do mount -o remount,bind,ro "$at"; done; fi; }',
)
_UNSHARE = {
    "pid": "--pid --fork",
    "mount": "--mount",
    "uts": "--uts",
    "ipc": "--ipc",
    "network": "--net",
    "user": "--user",
    "cgroup": "--cgroup",
}
# What minirun-init does and no command can.
_UNSAID = {
    "pivot": "each path is resolved inside the root, where mount(8) follows an image's links",
    "ready": "every descriptor but 0, 1 and 2 is closed; a program started here inherits the caller's",
    "undumpable": "DUMPABLE 0, so that nobody in the container can trace it while it prepares",
    "keyring": "a new session keyring",
    "seccomp": "the seccomp filter, last of all",
}


def quote(word: str) -> str:
    """One shell word (shlex.quote, without importing ``re``)."""
    return word if word and _SAFE.issuperset(word) else "'" + word.replace("'", "'\"'\"'") + "'"


def process(options: Sequence[str], ops: Sequence[Sequence[str]], program: Sequence[str]) -> str:
    """The commands for a container's first process."""
    words = {op[0]: list(op[1:]) for op in ops}
    live = _value(options, "--needed") or words["root"][0]
    said = [text for text in map(_say, ops) if text]
    inside = "\n".join(["set -e", *_FUNCTIONS, *said, *_unsaid(words), *_become(live, words, ops, program)])
    end = "INSIDE"
    while f"\n{end}\n" in inside:  # a variable of somebody's may have such a line
        end += "_"
    # The script comes by another descriptor than standard input, which is the program's.
    enter = f"{_enter(options, ops)}{_stdin(options)} 3<<'{end}'"
    return "\n".join([*_helper(live), enter, inside, end])


def _value(options: Sequence[str], flag: str) -> str:
    return options[options.index(flag) + 1] if flag in options else ""


def _stdin(options: Sequence[str]) -> str:
    return "" if "--tty" in options or "--stdin" in options else " < /dev/null"


def _helper(live: str) -> list[str]:
    """The pivot, done by another process, since the container's first one has neither tools nor rights by then.

    pivot_root(2) gives every process that had the old root the new one. The old one then lies on top of it, at "/..".
    """
    loaded, moved = quote(f"{live}/loaded"), quote(f"{live}/moved")
    return [
        "# the helper: when the process below holds its last tool, its root becomes the container's, and the host's",
        '# tree, which then lies on top of it ("/.."), is detached',
        f"mkfifo {loaded} {moved}",
        "{",
        f"  read -r pid < {loaded}",
        "  nsenter --target $pid --mount --wd=/proc/$pid/cwd pivot_root . . &&",
        "    nsenter --target $pid --mount --root=/ umount --lazy --no-canonicalize /proc/$pid/root/.. &&",
        f"    echo go > {moved} || kill -9 $pid",
        f"  rm {loaded} {moved}",
        "} &",
    ]


def _enter(options: Sequence[str], ops: Sequence[Sequence[str]]) -> str:
    """Make the namespaces, join the cgroup, and go on in a shell there."""
    flags = int(_value(options, "--namespaces") or "0", 16)
    # The cgroup namespace takes its root from where its maker is, so it is made after the cgroup was joined.
    late = sum(int(op[1], 16) for op in ops if op[0] == "unshare")
    cgroups = [op[1] for op in ops if op[0] == "cgroup"]
    if born := _value(options, "--cgroup"):
        cgroups.append(f"{born}/cgroup.procs")
    then = "".join(f"nsenter --net={quote(op[1])} " for op in ops if op[0] == "join")
    then += f"unshare {_flags(late)} " if late else ""
    session = "" if "--tty" in options else "setsid "
    join = quote(f'for file; do echo 0 > "$file"; done; exec {then}sh /dev/fd/3')
    words = [f"unshare {_flags(flags)} {session}sh -c {join} sh", *map(quote, cgroups)]
    title = "# the process: make the namespaces, join the cgroup, prepare the file system, give up rights, become it\n"
    return title + " \\\n  ".join(words)


def _flags(flags: int) -> str:
    return " ".join(words for kind, words in _UNSHARE.items() if flags & security.NAMESPACES[kind])


def _unsaid(words: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"# no command does this, minirun-init does: {text}" for name, text in _UNSAID.items() if name in words]


def _become(
    live: str, words: Mapping[str, Sequence[str]], ops: Sequence[Sequence[str]], program: Sequence[str]
) -> list[str]:
    """Identity and capabilities as setpriv(1) has them; then a shell that waits for the pivot and becomes the program.

    It is loaded before the pivot, and looks the program up after it, in the container.
    """
    uid, gid, groups = words.get("user", ["0", "0", "-"])
    bounding = security.names(int(words["bound"][0], 16)) if "bound" in words else []
    capabilities = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in bounding)])
    environment = [op[1] for op in ops if op[0] == "env"]
    theirs = {entry.partition("=")[0] for entry in environment}
    unset = " ".join(name for name in ("PWD", "OLDPWD") if name not in theirs)  # the shell's own
    last = [
        'echo "$0" >&8; read -r _ <&9; exec 3<&- 8>&- 9<&-; cd "$1"; shift',
        f'{f"unset {unset}; " if unset else ""}exec "$@"',
    ]
    return [
        f"exec 8> {quote(f'{live}/loaded')} 9<> {quote(f'{live}/moved')}",
        "read -r pid rest < /proc/self/stat  # the number by which the host knows us",
        f"umask {words.get('umask', ['022'])[0]}",
        f"exec setpriv --reuid={uid} --regid={gid} {'--clear-groups' if groups == '-' else f'--groups={groups}'} \\",
        f"  {'--no-new-privs ' if 'no-new-privs' in words else ''}--inh-caps=-all --bounding-set={capabilities} \\",
        *(["  --pdeathsig=KILL \\"] if "die-with-parent" in words else []),
        f"  env -i -- {' '.join(map(quote, environment))} \\",
        f'  "$(command -v sh)" -c {quote("; ".join(last))} \\',
        f'  "$pid" {quote(words.get("cwd", ["/"])[0])} {" ".join(map(quote, program))}',
    ]


def _say(op: Sequence[str]) -> str:
    speaker = _SPEAKERS.get(op[0])
    return speaker(*op[1:]) if speaker else ""


_ATTRIBUTES = frozenset(("ro", "rw", "noatime", "atime", "relatime", "strictatime")).union(
    *({name, f"no{name}"} for name in ("suid", "dev", "exec", "diratime"))
)
_PROPAGATION = frozenset(f"{r}{mode}" for r in ("", "r") for mode in ("private", "slave", "shared", "unbindable"))


def _mount(source: str, target: str, kind: str, options: str) -> str:
    words = options.split(",") if options else []
    where, bind = quote(f".{target}"), "bind" in words or "rbind" in words
    once = [word for word in words if word in _ATTRIBUTES]
    below = [word[1:] for word in words if word[0] == "r" and word[1:] in _ATTRIBUTES and word not in _ATTRIBUTES]
    if "remount" in words:
        lines = [f"mount -o {quote(','.join(word for word in words if word not in _PROPAGATION))} {where}"]
    elif bind:
        lines = [
            *_target(source, target),
            f"mount {'--rbind' if 'rbind' in words else '--bind'} {quote(source)} {where}",
        ]
        lines += [f"mount -o remount,bind,{','.join(once)} {where}"] if once else []
    else:
        ours = {*_PROPAGATION, *(f"r{word}" for word in below), "tmpcopyup"}
        kept = ",".join(word for word in words if word not in ours)
        lines = [f"mkdir -p {where}", f"mount -t {kind}{f' -o {quote(kept)}' if kept else ''} {quote(source)} {where}"]
        if "tmpcopyup" in words:
            lines.insert(1, "# here init would keep what is in the directory, and copy it into the new file system")
    lines += [_below(where, ",".join(below))] if below else []
    return "\n".join(lines + [f"mount --make-{word} {where}" for word in words if word in _PROPAGATION])


def _target(source: str, target: str) -> list[str]:
    where, parent = quote(f".{target}"), quote(f".{target.rsplit('/', 1)[0]}")
    make = f"mkdir -p {where}; else mkdir -p {parent}; [ -e {where} ] || : > {where}"
    return [f"if [ -d {quote(source)} ]; then {make}; fi"]


def _below(where: str, attributes: str) -> str:
    every = f"findmnt --submounts --list --noheadings --output TARGET --mountpoint {where}"
    return f'{every} | while IFS= read -r at; do mount -o remount,bind,{attributes} "$at"; done'


def _node(path: str, kind: str, major: str, minor: str, mode: str, uid: str, gid: str) -> str:
    where = quote(f".{path}")
    return f"mknod -m {mode} {where} {kind} {major} {minor}; chown {uid}:{gid} {where}"


def _rlimit(number: str, soft: str, hard: str) -> str:
    name = next(name for name, known in security.RLIMITS.items() if known == int(number))
    return f"prlimit --pid $$ --{name.removeprefix('RLIMIT_').lower()}={soft}:{hard}"


_SPEAKERS: dict[str, Callable[..., str]] = {
    "hostname": lambda name: f"hostname {quote(name)}",
    "domainname": lambda name: f"echo {quote(name)} > /proc/sys/kernel/domainname",
    "propagation": lambda mode: f"mount --make-{mode} /",
    "root": lambda path: f"mount --rbind {quote(path)} {quote(path)}\ncd {quote(path)}",
    "overlay": lambda path, data: f"mount -t overlay -o {quote(data)} overlay {quote(path)}\ncd {quote(path)}",
    "mount": _mount,
    "node": _node,
    "symlink": lambda text, path: f"ln -sfn {quote(text)} {quote(f'.{path}')}",
    "mkdir": lambda path: f"mkdir -p {quote(f'.{path}')}",
    "mask": lambda path: f"mask {quote(path)}",
    "readonly": lambda path: f"readonly_ {quote(path)}",
    "sysctl": lambda name, value: f'echo {quote(value)} > "./proc/sys/{name}"',
    "remount": lambda path, options: f"mount -o remount,bind,{options} {quote(f'.{path}')}",
    "tree": lambda source, *_: f"# here init would keep the tree {quote(source)}, which it mounts later",
    "move-root": lambda: "mount --move . /\ncd /",
    "chroot": lambda: "# here init would call chroot(2): this process keeps its tools",
    "pivot": lambda: "# here init would call pivot_root(2); the helper does, when the tools are not needed any more",
    "rlimit": _rlimit,
    "write": lambda path, text: f"echo {quote(text.rstrip())} > {path}",
}
