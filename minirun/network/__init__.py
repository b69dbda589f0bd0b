"""Networks of containers: bridges, virtual cables, addresses, and one table of the firewall, in two families.

What a network is, and what it needs in the kernel
    addresses     subnets and addresses as numbers, IPv4 and IPv6
    network       the record of a network
    creation      what is decided when one is created: subnets, gateway, MTU
    bridge        its steps: record, forwarding, bridge, elements
    member        further bridges, for more containers than one can hold

One container on it
    endpoint      one plug: interface, addresses, port of the bridge, and what follows from them
    attach        the steps in their order: netns (the namespace), cable (both ends, rates, addresses) and those below
    ipam          who has which address: one file per lease; rotation (which is next), owners (who lives)
    names         the container's resolv.conf and hosts
    nameservice   the step that sees to the name server, which is in nameserver/

The firewall
    nat           our table: static rules (ruleset.nft), moving elements
    ports         what ``-p`` means; claim (whether a port is free), taken and holders (who has it), proxy (for [::1]),
                  flows (what connection tracking has to forget)
    guests        whoever has a lease on a network, for inspect
    reload        everything put back at once
    foreign/      other firewalls: do they stop us, and how they are opened

cni/              the plugin minirun-cni: the same steps in namespaces of others
survey            what is plugged in now (pyroute2); sysctl, helper: a setting, a program
"""
