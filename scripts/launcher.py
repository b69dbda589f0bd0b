"""Write the program ``minirun``: a few lines that start Python without its site module.

    launcher.py PROGRAM [CHECKOUT]

``python -IS`` starts in 8 ms, pip's own console script in 15 and more: ``site`` looks through every installed package
for .pth files. What it would have told is written into the launcher instead: where the packages are.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

TEMPLATE = """#!{python} -IS
import sys
sys.path += {paths!r}
from minirun.cli.main import main
main()
"""


def main() -> None:
    """Write the launcher for this interpreter's packages, and those of a checkout before them."""
    program, *checkout = map(Path, sys.argv[1:])
    paths = [str(path.resolve()) for path in checkout] + [sysconfig.get_path("purelib")]
    program.write_text(TEMPLATE.format(python=sys.executable, paths=paths))
    program.chmod(0o755)


main()
