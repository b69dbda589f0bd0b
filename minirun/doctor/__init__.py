"""What this machine lacks (``checkup``), and what was left behind on it (``leaks``).

Both look and change nothing; only a leak's ``fix`` removes, and only what is certainly ours. None of it is on the path
of a container's start. To read: ``finding``, the table in ``checkup``, and the probes of ``processes``, ``places``,
``cgroups`` and ``networks``, done in a ``child``; then ``leaks``, ``living``, ``leaks_kernel`` and ``leaks_files``.
"""
