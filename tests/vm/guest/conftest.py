"""These tests are for the inside of a VM (tests/vm/vm.py), where they may use the machine's own cgroups and network.

Elsewhere they are not even collected: `tests/vm/test_vm.py` boots the VM that runs them.
"""

import os

collect_ignore_glob = [] if "MINIRUN_VM" in os.environ else ["test_*.py"]
