"""Our table: it comes back with everything after somebody flushed it, and the kernel decides who has a port."""

from __future__ import annotations

from tests.fakehost import FakeHost
from tests.network.containers import Attached, Serve, ask, identity


def table(host: FakeHost) -> str:
    """The whole table as nft shows it."""
    return host.run(["nft", "list", "table", "inet", "minirun"]).stdout


def test_elements_carry_the_name_and_go_with_undo(host: FakeHost) -> None:
    Attached(host, "db", "br0", "5432:5432")
    before = table(host)
    web = Attached(host, "web", "br0", "8080:80", "127.0.0.1:8443:443", "53:53/udp", "9000-9002:90-92")
    comment = f'comment "web {identity("web")[:12]}" : {web.address}'
    shown = table(host)
    for line in (
        f"tcp . 8080 {comment} . 80",
        f"127.0.0.1 . tcp . 8443 {comment} . 443",
        f"udp . 53 {comment} . 53",
        f"tcp . 9002 {comment} . 92",
    ):
        assert line in shown
    web.undo()
    assert table(host) == before
    web.undo()
    assert table(host) == before


def test_everything_comes_back_after_a_flush(host: FakeHost, serve: Serve) -> None:
    web = Attached(host, "web", "br0", "8080:80")
    serve(web)
    before = table(host)
    host.run(["nft", "flush", "ruleset"])
    assert ask(host.outside, host.address, 8080) == "ConnectionRefusedError 111"
    host.python("from minirun.network import bridge; bridge.ensure()")
    assert table(host) == before
    assert ask(host.outside, host.address, 8080) == f"web sees {host.outside_address}"


def test_a_flush_during_a_start_does_not_stop_it(host: FakeHost) -> None:
    Attached(host, "web", "br0", "8080:80")
    code = """
import os, sys
from minirun.network import bridge, nat
network = bridge.ensure()
os.system("nft flush ruleset")
nat.Publish("br0", "0" * 64, "late 000000000000", [["pub4_any", ["tcp", "8081"], ["10.201.0.9", "80"]]]).do()
"""
    host.python(code)
    assert "tcp . 8080" in table(host)
    assert "tcp . 8081" in table(host)


MEANWHILE = """
from minirun import store, strict_json
from minirun.network import bridge, helper, ipam, nat
network, run = bridge.ensure(), helper.run

def then_others_come(*words):
    run(*words)
    nat.TABLE.add([nat.Element("pub4_any", ["tcp", "8081"], ["10.201.0.8", "80"], "another")])
    ports = [["pub4_any", ["tcp", str(number)], ["10.201.0.9", "80"]] for number in (8081, 8082)]
    publish = nat.Publish("br0", "0" * 64, "late 000000000000", ports)
    store.create(store.directory(ipam.state_directory("br0"), "published") + "/late",
        strict_json.dumps(publish.record()))

helper.run = then_others_come
nat.reassert()
"""


def test_of_what_comes_while_it_is_loaded_one_taken_key_does_not_stop_the_rest(host: FakeHost) -> None:
    host.python(MEANWHILE)
    assert 'tcp . 8081 comment "another" : 10.201.0.8 . 80' in table(host)
    assert 'tcp . 8082 comment "late 000000000000" : 10.201.0.9 . 80' in table(host)


LOCKED = """
from minirun.network import bridge, nat, network
bridge.ensure()
with network.Lock():
    nat.TABLE.drop()
    nat.Publish("br0", "0" * 64, "late 000000000000", [["pub4_any", ["tcp", "8081"], ["10.201.0.9", "80"]]]).do()
"""


def test_a_flush_while_a_network_is_made_does_not_stop_it_either(host: FakeHost) -> None:
    host.python(LOCKED)
    assert "tcp . 8081" in table(host)


def test_foreign_tables_are_never_touched(host: FakeHost) -> None:
    host.run(["nft", "add table inet foreign; add chain inet foreign c { type filter hook forward priority 0; }"])
    before = host.run(["nft", "list", "table", "inet", "foreign"]).stdout
    web = Attached(host, "web", "br0", "8080:80")
    host.run(["nft", "delete", "table", "inet", "minirun"])
    host.python("from minirun.network import bridge; bridge.ensure()")
    web.undo()
    host.python("from minirun.network import bridge; bridge.remove('br0')")
    assert host.run(["nft", "list", "table", "inet", "foreign"]).stdout == before


def test_the_kernel_decides_a_race_for_a_port(host: FakeHost) -> None:
    web = Attached(host, "web", "br0", "8080:80")
    code = """
from minirun.errors import Conflict
from minirun.network import nat
late = nat.Publish("br0", "f" * 64, "late ffffffffffff", [
    ["pub4_any", ["tcp", "9090"], ["10.201.0.9", "80"]], ["pub4_any", ["tcp", "8080"], ["10.201.0.9", "80"]]])
try:
    late.do()
except Conflict as error:
    print(error)
late.undo()
"""
    before = table(host)
    assert "tcp . 8080" in host.python(code)
    assert table(host) == before  # neither half of the loser's ports nor a hole in the winner's
    assert host.run(["ls", f"{host.state}/networks/br0/published"]).stdout == f"{web.id}\n"


def test_undo_leaves_the_element_of_the_ports_next_holder(host: FakeHost) -> None:
    web = Attached(host, "web", "br0", "8080:80")
    host.run(["nft", "delete element inet minirun pub4_any { tcp . 8080 }"])
    Attached(host, "next", "br0", "8080:80")
    before = table(host)
    web.undo()
    assert table(host) == before


def test_hundreds_of_ports_are_one_transaction(host: FakeHost) -> None:
    web = Attached(host, "web", "br0", "10001-11000:10000-10999")
    assert table(host).count('comment "web ') == 1000
    web.undo()
    assert table(host).count('comment "web ') == 0
