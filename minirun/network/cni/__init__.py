"""The Container Network Interface, CNI 1.1: how other engines give their containers a place in a network of ours.

protocol    what every plugin must say: versions, error codes, the parameters in the environment
document    reading JSON that somebody else wrote: every mistake is told by its place
config      the network configuration: what a network shall be
wishes      what one attachment asks for: ports, addresses, a MAC, limits, names
result      what ADD answers, in the form of each version, and what was answered before us in a chain

Those are pure: they read no file and ask the kernel nothing.
"""
