"""Print what pyproject.toml asks pip for, one requirement a line: the packages, and those of the tests."""

import ast
import re
from pathlib import Path

text = (Path(__file__).resolve().parents[1] / "pyproject.toml").read_text()
for key in ("dependencies", "test"):  # tomllib would do it, from Python 3.11 on
    found = re.search(rf"^{key} = (\[[^\]]*\])", text, re.MULTILINE)
    if found:
        print(*ast.literal_eval(found[1]), sep="\n")
