"""The name server of the containers: one process on the host for all networks of a state directory.

wire        DNS messages as bytes
zones       who is called what, and who may know it
lists       zones kept true to the lease files, by inotify
upstream    questions that are not ours, asked of the host's resolvers
streams     clients that come by TCP
server      the loop that does it all
start       how it is started, and gets its sockets

Nothing of it is imported by a container's start but ``start``, when the server does not run: see ``nameservice``.
"""
