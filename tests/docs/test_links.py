"""Every link of the documentation leads somewhere, and every page can be reached."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.documents import REPOSITORY, anchors, links, name, pages


@pytest.mark.parametrize("page", pages(), ids=name)
def test_links_resolve(page: Path) -> None:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_page_is_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    todo = [REPOSITORY / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        todo += [(page.parent / link.partition("#")[0]).resolve() for link in links(page) if not link.startswith("#")]
    unreached = [name(page) for page in pages() if page not in seen and page.is_relative_to(REPOSITORY / "docs")]
    assert not unreached


def test_no_page_is_unfinished() -> None:
    marks = ("TODO", "FIXME", "XXX", "BENCH TABLE", "LOREM")
    left = [f"{name(page)}: {mark}" for page in pages() for mark in marks if mark in page.read_text()]
    assert not left
