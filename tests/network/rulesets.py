"""Rules of other firewalls, as they were seen in the kernel after the real programs had run.

The parts that packets of a container meet are whole; what hangs at other hooks is left out.
"""

from __future__ import annotations

# Docker 20.10 with one network; its FORWARD policy is DROP. ``{0}`` is iptables-nft or iptables-legacy.
DOCKER = """
{0} -P FORWARD DROP
{0} -N DOCKER; {0} -N DOCKER-ISOLATION-STAGE-1; {0} -N DOCKER-ISOLATION-STAGE-2; {0} -N DOCKER-USER
{0} -A FORWARD -j DOCKER-USER
{0} -A FORWARD -j DOCKER-ISOLATION-STAGE-1
{0} -A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
{0} -A FORWARD -o docker0 -j DOCKER
{0} -A FORWARD -i docker0 ! -o docker0 -j ACCEPT
{0} -A FORWARD -i docker0 -o docker0 -j ACCEPT
{0} -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
{0} -A DOCKER-ISOLATION-STAGE-1 -j RETURN
{0} -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
{0} -A DOCKER-ISOLATION-STAGE-2 -j RETURN
{0} -A DOCKER-USER -j RETURN
{0} -A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
"""

# ufw 0.36 after `ufw allow 22/tcp; ufw enable`.
UFW = """
{0} -P INPUT DROP; {0} -P FORWARD DROP
for c in before-logging before after after-logging reject track user user-logging; do
  {0} -N ufw-$c-forward; {0} -N ufw-$c-input
done
{0} -N ufw-skip-to-policy-input; {0} -N ufw-logging-deny; {0} -N ufw-not-local
for c in before-logging before after after-logging reject track; do
  {0} -A FORWARD -j ufw-$c-forward; {0} -A INPUT -j ufw-$c-input
done
{0} -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
{0} -A ufw-before-forward -p icmp --icmp-type destination-unreachable -j ACCEPT
{0} -A ufw-before-forward -p icmp --icmp-type echo-request -j ACCEPT
{0} -A ufw-before-forward -j ufw-user-forward
{0} -A ufw-after-logging-forward -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "
{0} -A ufw-before-input -i lo -j ACCEPT
{0} -A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
{0} -A ufw-before-input -m conntrack --ctstate INVALID -j ufw-logging-deny
{0} -A ufw-before-input -m conntrack --ctstate INVALID -j DROP
{0} -A ufw-before-input -p udp --sport 67 --dport 68 -j ACCEPT
{0} -A ufw-before-input -j ufw-not-local
{0} -A ufw-before-input -d 224.0.0.251/32 -p udp --dport 5353 -j ACCEPT
{0} -A ufw-before-input -j ufw-user-input
{0} -A ufw-user-input -p tcp --dport 22 -j ACCEPT
{0} -A ufw-after-input -p udp --dport 137 -j ufw-skip-to-policy-input
{0} -A ufw-after-input -m addrtype --dst-type BROADCAST -j ufw-skip-to-policy-input
{0} -A ufw-skip-to-policy-input -j DROP
{0} -A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
{0} -A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
{0} -A ufw-not-local -m addrtype --dst-type BROADCAST -j RETURN
{0} -A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j ufw-logging-deny
{0} -A ufw-not-local -j DROP
"""

# firewalld 1.3 with its zone `public` for everything; {forward} is what a zone or policy adds.
FIREWALLD = """
table inet firewalld {
  chain filter_INPUT {
    type filter hook input priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    jump filter_INPUT_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state { established, related } accept
    ct status dnat accept
    iifname "lo" accept
    ct state invalid drop
    ip6 daddr { ::/96, ::ffff:0.0.0.0/96, 2002::/24, 2002:a00::/24 } reject with icmpv6 addr-unreachable
    jump filter_FORWARD_ZONES
    reject with icmpx admin-prohibited
  }
  chain filter_INPUT_ZONES { goto filter_IN_public; }
  chain filter_FORWARD_ZONES { goto filter_FWD_public; }
  chain filter_IN_public {
    jump filter_IN_public_allow
    meta l4proto { icmp, ipv6-icmp } accept
    reject with icmpx admin-prohibited
  }
  chain filter_IN_public_allow {
    tcp dport 22 accept
    ip6 daddr fe80::/64 udp dport 546 accept
  }
  chain filter_FWD_public {
    jump filter_FORWARD_POLICIES_pre
    jump filter_FWD_public_allow
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD_POLICIES_pre { }
  chain filter_FWD_public_allow { }
}
"""

# firewalld after `--zone=trusted --add-interface=br0`.
FIREWALLD_TRUSTED = FIREWALLD.replace(
    "chain filter_FORWARD_ZONES { ", 'chain filter_FORWARD_ZONES { iifname "br0" goto filter_FWD_trusted; '
).replace("chain filter_FWD_public {", "chain filter_FWD_trusted { accept; }\n  chain filter_FWD_public {")

# libvirt's own network: everything about its bridge, and nothing about others.
LIBVIRT = """
{0} -N LIBVIRT_FWX; {0} -N LIBVIRT_FWI; {0} -N LIBVIRT_FWO
{0} -A FORWARD -j LIBVIRT_FWX; {0} -A FORWARD -j LIBVIRT_FWI; {0} -A FORWARD -j LIBVIRT_FWO
{0} -A LIBVIRT_FWX -i virbr0 -o virbr0 -j ACCEPT
{0} -A LIBVIRT_FWI -d 192.168.122.0/24 -o virbr0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
{0} -A LIBVIRT_FWI -o virbr0 -j REJECT
{0} -A LIBVIRT_FWO -s 192.168.122.0/24 -i virbr0 -j ACCEPT
{0} -A LIBVIRT_FWO -i virbr0 -j REJECT
"""


def chain(rules: str, policy: str = "drop", family: str = "inet") -> str:
    """A table of nobody in particular, with one chain for forwarded packets."""
    head = f"type filter hook forward priority 0; policy {policy};"
    return f"table {family} other {{\n chain forward {{\n {head}\n {rules}\n }}\n}}\n"
