"""What init does, said in shell: ``unshare`` for clone3, then one command per op.

The script is meant to be run (``minirun explain run ... | sudo sh``), with the host's tools only. Where a shell cannot
do what init does, a comment says so, and what stands in its place:

- pivot_root(2) would leave the shell without its tools, so the tree is moved onto "/" and chroot(8) enters it;
- a seccomp filter has no command; nor have sealed memfds, close-on-exec, keyrings and DUMPABLE;
- minirun-monitor holds the output and notes the exit; here the terminal does.
"""

from __future__ import annotations

from minirun.linux import security

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./:=,+@%^")
_FUNCTIONS = (
    'mask() { if [ -d ".$1" ]; then mount -t tmpfs -o ro,nosuid,nodev,noexec tmpfs ".$1"',
    '         elif [ -e ".$1" ]; then mount --bind /dev/null ".$1"; fi; }',
    'readonly_() { if [ -e ".$1" ]; then mount --rbind ".$1" ".$1"; mount -o remount,bind,ro ".$1"; fi; }',
)
_UNSHARE = {
    "pid": "--pid --fork",
    "mount": "--mount",
    "uts": "--uts",
    "ipc": "--ipc",
    "network": "--net",
    "user": "--user",
}


def quote(word: str) -> str:
    """One shell word (shlex.quote, without importing ``re``)."""
    return word if word and _SAFE.issuperset(word) else "'" + word.replace("'", "'\"'\"'") + "'"


def process(options: Sequence[str], ops: Sequence[Sequence[str]], program: Sequence[str]) -> str:
    """The commands for a container's first process."""
    flags = int(options[options.index("--namespaces") + 1], 16) if "--namespaces" in options else 0
    outside, inside = [], []
    joined_netns = ""
    for op in ops:
        if op[0] == "join":
            joined_netns = op[1]
        elif op[0] == "cgroup":
            outside.append(f"echo $$ > {op[1]}")
        elif op[0] == "unshare":
            flags |= int(op[1], 16)
        elif text := _say(op):
            inside.append(text)
    return _assemble(outside, inside, flags, joined_netns, ops, program, "--tty" in options)


def _assemble(
    outside: list[str],
    inside: list[str],
    flags: int,
    netns: str,
    ops: Sequence[Sequence[str]],
    program: Sequence[str],
    tty: bool,
) -> str:
    kinds = {**_UNSHARE, "cgroup": "--cgroup"}
    unshare = " ".join(words for kind, words in kinds.items() if flags & security.NAMESPACES[kind])
    enter = f"nsenter --net={netns} " if netns else ""
    # With a terminal the script comes by another descriptor, so that standard input stays the terminal.
    shell = "sh /dev/fd/3 3<<'INSIDE'" if tty else "sh -s <<'INSIDE'"
    return "\n".join(
        [
            "# the process: join the cgroup, make the namespaces, prepare the file system, give up rights, become it",
            "(",
            *outside,
            f"exec {enter}unshare {unshare} {shell}",
            "set -e",
            *_FUNCTIONS,
            *inside,
            _enter(ops, program),
            "INSIDE",
            ")",
        ]
    )


def _enter(ops: Sequence[Sequence[str]], program: Sequence[str]) -> str:
    """The last command: identity and capabilities as setpriv(1) has them, then the new root, then the program."""
    words = {op[0]: list(op[1:]) for op in ops}
    uid, gid, groups = words.get("user", ["0", "0", "-"])
    bounding = security.names(int(words["bound"][0], 16)) if "bound" in words else []
    capabilities = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in bounding)])
    environment = " ".join(quote(op[1]) for op in ops if op[0] == "env")
    lines = ["# no command installs a seccomp filter; minirun-init does it here"] if "seccomp" in words else []
    nnp = "--no-new-privs " if "no-new-privs" in words else ""
    cwd = words.get("cwd", ["/"])[0]
    change = f'sh -c \'cd "$0" && exec "$@"\' {quote(cwd)} ' if cwd != "/" else ""
    groups_word = "" if groups == "-" else f" --groups={groups}"
    lines += [
        f"umask {words.get('umask', ['022'])[0]}",
        f"exec env -i {environment} \\",
        f'  "$(command -v setpriv)" {nnp}--bounding-set={capabilities} --inh-caps=-all \\',
        f'  "$(command -v chroot)" --userspec={uid}:{gid}{groups_word} . \\',
        f"  {change}{' '.join(quote(word) for word in program)}",
    ]
    return "\n".join(lines)


def _say(op: Sequence[str]) -> str:
    speaker = _SPEAKERS.get(op[0])
    return speaker(*op[1:]) if speaker else ""


def _mount(source: str, target: str, kind: str, options: str) -> str:
    words = options.split(",") if options else []
    if "bind" in words or "rbind" in words:
        flag = "--rbind" if "rbind" in words else "--bind"
        parent = target.rsplit("/", 1)[0]
        directory, file = f'mkdir -p ".{target}"', f'mkdir -p ".{parent}"; touch ".{target}"'
        lines = [
            f"if [ -d {quote(source)} ]; then {directory}; else {file}; fi",
            f'mount {flag} {quote(source)} ".{target}"',
        ]
        if "ro" in words:
            lines.append(f'mount -o remount,bind,ro ".{target}"')
        return "\n".join(lines)
    kept = ",".join(word for word in words if word not in ("rprivate", "private"))
    return f'mkdir -p ".{target}"\nmount -t {kind}' + (f" -o {kept}" if kept else "") + f' {quote(source)} ".{target}"'


def _node(path: str, kind: str, major: str, minor: str, mode: str, uid: str, gid: str) -> str:
    return f'mknod -m {mode} ".{path}" {kind} {major} {minor}; chown {uid}:{gid} ".{path}"'


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
    "symlink": lambda text, path: f'ln -sfn {quote(text)} ".{path}"',
    "mkdir": lambda path: f'mkdir -p ".{path}"',
    "mask": lambda path: f"mask {quote(path)}",
    "readonly": lambda path: f"readonly_ {quote(path)}",
    "sysctl": lambda name, value: f'echo {quote(value)} > "./proc/sys/{name}"',
    "remount": lambda path, options: f'mount -o remount,bind,{options} ".{path.rstrip("/")}"',
    "pivot": lambda: (
        "# init uses pivot_root(2) and detaches the old root; the shell's tools would go with it\nmount --move . /"
    ),
    "rlimit": _rlimit,
    "oom-score": lambda score: f"echo {score} > /proc/self/oom_score_adj",
}
