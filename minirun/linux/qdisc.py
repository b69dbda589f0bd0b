"""rtnetlink messages of traffic control (tc(8)): token buckets, and a detour for what comes in.

A queue can only hold back what leaves a device. What leaves the host's end of a cable is what the container receives;
what the container sends comes in there. It is led to a device of its own (ifb) and leaves that through a queue.
Loaded by whoever sets a rate, and by nobody else. Constants bear the names of linux/pkt_sched.h and linux/pkt_cls.h.
"""

from __future__ import annotations

from _struct import Struct

from minirun.linux import netlink
from minirun.linux.netlink import NLM_F_CREATE, NLM_F_EXCL, Message, attribute, nested

RTM_NEWQDISC, RTM_NEWTFILTER = 36, 44
TCA_KIND, TCA_OPTIONS = 1, 2
TC_H_ROOT, TC_H_INGRESS, INGRESS_HANDLE, ETH_P_ALL = 0xFFFFFFFF, 0xFFFFFFF1, 0xFFFF0000, 0x0003
INGRESS_FILTERS = 0xFFFFFFF2  # TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)
TC_LINKLAYER_ETHERNET = 1
TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST = 1, 4, 6
TCA_U32_SEL, TCA_U32_ACT, TC_U32_TERMINAL = 5, 7, 1
TCA_ACT_KIND, TCA_ACT_OPTIONS, TCA_MIRRED_PARMS, TCA_EGRESS_REDIR, TC_ACT_STOLEN = 1, 2, 2, 1, 4

_header = Struct("=BxxxiIII")  # tcmsg: family, index, handle, parent, info
_rate = Struct("=BBHhHI")  # tc_ratespec: cell log, link layer, overhead, cell align, mpu, bytes a second
_bucket = Struct("=III")  # of tc_tbf_qopt, behind two rates: limit, buffer, mtu
_selector = Struct("=BBBxHHhhI")  # tc_u32_sel: flags, shift, keys, mask of offset, offset, offsets, hash mask
_key = Struct("=IIii")  # tc_u32_key: mask, value, offset, mask of offset
_mirred = Struct("=IIiiiiI")  # tc_mirred: index, capab, action, refcnt, bindcnt, what to do, to which device
_long = Struct("=Q")

LEAST_BURST, MOST_BURST = 16 << 10, 64 << 20  # bytes
_HUNDREDTH = 8 * 100  # of a second, in bytes of a rate in bits


def burst(rate: int, mtu: int) -> int:
    """How many bytes may pass at once: two hundredths of a second, and never less than two packets.

    From 26 Mbit/s on a whole segment of TSO (64 KiB) fits; below, the kernel cuts such segments first.
    """
    return max(2 * (mtu + 18), LEAST_BURST, min(2 * rate // _HUNDREDTH, MOST_BURST))


def queue(rate: int, mtu: int) -> int:
    """How many bytes may wait: a tenth of a second, and never less than TCP sends at once; more is dropped."""
    return burst(rate, mtu) + max(128 << 10, min(10 * rate // _HUNDREDTH, 1 << 30))


def _message(kind: int, index: int, handle: int, parent: int, info: int, *inner: bytes) -> Message:
    body = _header.pack(netlink.AF_UNSPEC, index, handle, parent, info) + b"".join(inner)
    return Message(kind, NLM_F_CREATE | NLM_F_EXCL, body, "rate")


def bucket(index: int, rate: int, mtu: int) -> Message:
    """``tc qdisc add dev INDEX root tbf rate RATEbit burst BURST limit LIMIT``: see tc-tbf(8)."""
    speed = rate // 8
    spec = _rate.pack(0, TC_LINKLAYER_ETHERNET, 0, 0, 0, min(speed, 0xFFFFFFFF))
    size = burst(rate, mtu)
    parameters = spec + bytes(_rate.size) + _bucket.pack(queue(rate, mtu), 0, 0)  # a burst in bytes replaces "buffer"
    options = [attribute(TCA_TBF_PARMS, parameters), attribute(TCA_TBF_BURST, size)]
    if speed > 0xFFFFFFFF:
        options.append(attribute(TCA_TBF_RATE64, _long.pack(speed)))
    return _message(RTM_NEWQDISC, index, 0, TC_H_ROOT, 0, attribute(TCA_KIND, "tbf"), nested(TCA_OPTIONS, *options))


def ingress(index: int) -> Message:
    """``tc qdisc add dev INDEX ingress``: a place for filters of what comes in."""
    return _message(RTM_NEWQDISC, index, INGRESS_HANDLE, TC_H_INGRESS, 0, attribute(TCA_KIND, "ingress"))


def redirect(index: int, to: int) -> Message:
    """``tc filter add dev INDEX ingress ... u32 match u32 0 0 action mirred egress redirect dev TO``: every frame."""
    everything = _selector.pack(TC_U32_TERMINAL, 0, 1, 0, 0, 0, 0, 0) + _key.pack(0, 0, 0, 0)
    mirred = attribute(TCA_MIRRED_PARMS, _mirred.pack(0, 0, TC_ACT_STOLEN, 0, 0, TCA_EGRESS_REDIR, to))
    action = nested(1, attribute(TCA_ACT_KIND, "mirred"), nested(TCA_ACT_OPTIONS, mirred))
    options = nested(TCA_OPTIONS, attribute(TCA_U32_SEL, everything), nested(TCA_U32_ACT, action))
    protocol = 1 << 16 | int.from_bytes(ETH_P_ALL.to_bytes(2, "big"), "little")
    return _message(RTM_NEWTFILTER, index, 0, INGRESS_FILTERS, protocol, attribute(TCA_KIND, "u32"), options)
