"""What netlink.py tells is what is there, also while others change it."""

from __future__ import annotations

from tests.fakehost import FakeHost

# The kernel tells of so many links in several messages; after the first one a link goes of which it has told already.
CHANGED = """
import os
from minirun.linux import netlink
other = netlink.Socket()
other.ask(*(netlink.new_pair(f"v{n}", f"w{n}", 1500) for n in range(60)))

class Socket(netlink.Socket):
    reads = 0

    def _read(self):
        found = list(super()._read())
        Socket.reads += 1
        if Socket.reads == 1:
            other.ask(netlink.delete_link("v0"))
        return found

for expected in "changed", "unchanged":
    reads = Socket.reads
    names = [netlink.Link(body).name for body in Socket().ask(netlink.get_links())]
    assert len(names) == len(set(names)) and {"v59", "w59"} < set(names) and "v0" not in names, names
    print(expected, Socket.reads - reads)
"""


def test_a_dump_that_was_disturbed_is_repeated(host: FakeHost) -> None:
    (_, changed), (_, unchanged) = (line.split() for line in host.python(CHANGED).splitlines())
    assert int(changed) > int(unchanged) > 2
