"""The documentation as data: its files, links, code blocks and commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_SKIPPED = {".venv", "build", "node_modules", ".git"}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]\n]*(?:\n[^\]\n]*)?\]\(([^)\s]+)\)")


def pages() -> list[Path]:
    """Every Markdown file of the repository."""
    found = [path for path in REPOSITORY.rglob("*.md") if not _SKIPPED & set(path.relative_to(REPOSITORY).parts)]
    return sorted(
        path for path in found if not any(part.startswith(".") for part in path.relative_to(REPOSITORY).parts)
    )


def name(page: Path) -> str:
    """How a page is called in the name of a test."""
    return str(page.relative_to(REPOSITORY))


def blocks(page: Path, language: str = "sh") -> list[str]:
    """The fenced blocks of a page that are in this language."""
    return [text for kind, text in _FENCE.findall(page.read_text()) if kind == language]


def links(page: Path) -> list[str]:
    """The targets of all links that lead into the repository."""
    text = _FENCE.sub("", page.read_text())
    return [target for target in _LINK.findall(text) if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub and others make them."""
    headings = re.findall(r"^#+ +(.+)$", _FENCE.sub("", page.read_text()), re.MULTILINE)
    kept = [re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()) for heading in headings]
    return {heading.strip().replace(" ", "-") for heading in kept}


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every ``minirun ...`` in a page: in blocks of shell, and between back quotes."""
    text = page.read_text()
    inline = re.findall(r"`(?:sudo )?(minirun [^`]+)`", _FENCE.sub("", text))
    for line in [*_lines(text), *inline]:
        for found in re.finditer(r"(?:^|[;|&(`$]\s*|sudo\s+)minirun\s+(.*)", line):
            yield from _split(found[1])


def _lines(text: str) -> Iterator[str]:
    for kind, block in _FENCE.findall(text):
        if kind == "sh":
            yield from block.replace("\\\n", " ").splitlines()


def _split(text: str) -> Iterator[list[str]]:
    """The words up to the end of the command; a text that is no shell (an ellipsis, a placeholder) is cut there."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";|&()<>`")
    lexer.whitespace_split = True
    words: list[str] = []
    try:
        for word in lexer:
            if word == "…" or set(word) <= set(";|&()<>`"):
                break
            words.append(word)
    except ValueError:  # a quotation that ends on another line
        pass
    if words:
        yield words
