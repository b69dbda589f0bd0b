"""The order in which addresses are tried, against a slow model: none is left out, none comes twice, none is barred."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from minirun.network import addresses, rotation
from minirun.network.addresses import IPV4, IPV6, Subnet
from minirun.network.network import Pool
from minirun.network.rotation import Rotation


@st.composite
def pools(draw: st.DrawFn) -> list[Pool]:
    """One to three small subnets of a family, each with a gateway anywhere and perhaps a range."""
    bits = draw(st.sampled_from((IPV4, IPV6)))
    found = []
    for number in range(draw(st.integers(1, 3))):
        size = 1 << draw(st.integers(0, 7))
        subnet = Subnet((10 << 24) + number * 4096 if bits == IPV4 else (0xFD << 120) + number * 4096, 0, bits)
        subnet.prefix = bits - size.bit_length() + 1
        within = None
        if draw(st.booleans()):
            length = 1 << draw(st.integers(0, size.bit_length() - 1))
            base = subnet.base + draw(st.integers(0, size // length - 1)) * length
            within = Subnet(base, bits - length.bit_length() + 1, bits)
        found.append(Pool(subnet, subnet.address(draw(st.integers(0, size - 1))), within))
    return found


def model(wanted: Sequence[Pool]) -> list[str]:
    """Every address that is given by itself, in its place."""
    gateways, found = {pool.gateway for pool in wanted}, []
    for pool in wanted:
        for offset in range(pool.subnet.size):
            address = pool.subnet.address(offset)
            end = pool.subnet.size > 2 and (offset == 0 or (":" not in address and offset == pool.subnet.size - 1))
            if not end and address not in gateways and (pool.range is None or pool.range.contains(address)):
                found.append(address)
    return found


@settings(deadline=None, max_examples=300)
@given(pools(), st.sampled_from((0, 3, 16, 960)), st.sampled_from((4, 64)), st.randoms(use_true_random=False))
def test_every_address_once_and_no_other(wanted: list[Pool], lap: int, chunk: int, chance: random.Random) -> None:
    every = model(wanted)
    taken, chunks = chance.sample(every, chance.randint(0, len(every))), rotation.CHUNK
    rotation.CHUNK = chunk
    try:
        with tempfile.TemporaryDirectory() as folder, Rotation(folder, wanted, lap) as rotating:
            assert rotating.size() == len(every)
            first = list(rotating.addresses())
            assert first == [address for address in every if address in first]  # in order
            assert lap or first == every
            if every:
                rotating.took(chance.choice(every))
            rotating.recount([*taken, "no address", "10.99.0.1", "fd99::1"])
            found = list(rotating.addresses(new=True))
            assert sorted(found) == sorted(set(every) - set(taken))
            assert found == list(rotating.look(taken))
            if found:
                rotating.took(found[0])
                after = list(rotating.addresses())
                assert after == list(rotating.look())
                assert set(after) <= set(found[1:])
                assert lap or after == found[1:]
    finally:
        rotation.CHUNK = chunks


@given(pools(), st.binary(max_size=200))
@settings(deadline=None, max_examples=100)
def test_any_hints_will_do(wanted: list[Pool], hints: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, Rotation(folder, wanted, 16) as rotating:
        family = 4 if wanted[0].subnet.bits == IPV4 else 6
        with open(f"{folder}/given{family}", "wb") as file:
            file.write(hints)
        found = list(rotating.addresses())
        assert len(set(found)) == len(found)
        assert set(found) <= set(model(wanted)) and all(addresses.is_address(address) for address in found)
        assert list(rotating.look()) == found
        rotating.recount([])
        assert sorted(rotating.addresses(new=True)) == sorted(model(wanted))
