"""The Container Network Interface, CNI 1.1: how other engines give their containers a place in a network of ours.

protocol    what every plugin must say: versions, error codes, the parameters in the environment
document    reading JSON that somebody else wrote: every mistake is told by its place
config      the network configuration: what a network shall be
wishes      what one attachment asks for: ports, addresses, a MAC, limits, names
result      what ADD answers, in the form of each version, and what was answered before us in a chain

Those are pure: they read no file and ask the kernel nothing.

plug        the steps of an attachment that are not those of a container of ours
attachments what we know of attachments: their records, their locks
networks    the network of minirun that stands for one of CNI
add         ADD
end         DEL, GC
check       CHECK, STATUS
"""
