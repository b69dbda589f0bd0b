"""Networks of containers: a bridge, a pair of virtual cables per container, an address, and one table of the firewall.

sysctl      one kernel setting
addresses   subnets and addresses as numbers
ipam        which container holds which address: one file per lease
rotation    which address is tried next, without looking at those that are taken
owners      whether the owner of a lease still lives
nat         our nftables table: static rules (ruleset.nft), moving elements
bridge      a network: its record, its bridge, its elements
attach      one container's namespace, cable and address
ports       what ``-p`` means, and whether the port is free
names       the container's resolv.conf and hosts
"""
