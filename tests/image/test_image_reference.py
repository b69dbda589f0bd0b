"""What image references mean, and which are refused."""

from __future__ import annotations

import pytest

from minirun.errors import InvalidDocument
from minirun.image import reference

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.23", "docker.io/library/alpine:3.23"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/alpine", "docker.io/library/alpine:latest"),
        ("docker.io/library/alpine:latest", "docker.io/library/alpine:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("host.example/a/b/c:V1_x.y-z", "host.example/a/b/c:V1_x.y-z"),
        ("Host/app", "Host/app:latest"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("10.0.0.1:80/a__b/c.d/e---f_g", "10.0.0.1:80/a__b/c.d/e---f_g:latest"),
        (f"alpine@{DIGEST}", f"docker.io/library/alpine@{DIGEST}"),
        (f"alpine:3.23@{DIGEST}", f"docker.io/library/alpine@{DIGEST}"),
        ("a" * 63, f"docker.io/library/{'a' * 63}:latest"),
    ],
)
def test_full_form(text: str, full: str) -> None:
    assert str(reference.parse(text)) == full
    assert str(reference.parse(full)) == full


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            ":",
            "@",
            "/",
            "a/",
            "/a",
            "a//b",
            "alpine:",
            "alpine@",
            "Alpine",
            "al pine",
            "alpine\n",
            "al\0pine",
        ),
        *("-a", "a-", ".a", "a.", "_a", "a..b", "a___b", "a._b", "a.-b", "é", "../etc", "a/../b", "--help"),
        *("alpine:-x", "alpine:.x", "alpine:a/b", "alpine:" + "x" * 129, "alpine:a:b", "٣/a:٣"),
        *("alpine@sha256:abc", f"alpine@{DIGEST.upper()}", f"alpine@md5:{'0' * 32}", f"alpine@{DIGEST}@{DIGEST}"),
        *("host:/a", "host:0/a", "host:65536/a", "host:٣/a", "host:1x/a", "-h.x/a", "h..x/a", "[::1/a", "[x]:1/a"),
        *("f" * 64, "a" * 256, "x.y/" + "a/" * 200 + "a"),
    ],
)
def test_bad_references_are_refused_in_one_line(text: str) -> None:
    with pytest.raises(InvalidDocument) as refusal:
        reference.parse(text)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_familiar_is_the_short_spelling_of_the_same_image() -> None:
    for name in ("alpine:latest", "team/app:1", "localhost:5000/app:1"):
        assert reference.familiar(str(reference.parse(name))) == name
