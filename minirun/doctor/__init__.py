"""What this machine lacks (``checkup``), and what was left behind on it (``leaks``).

Both look and change nothing; only ``leaks.fix`` removes, and only what is certainly ours. None of it is on the path of
a container's start.
"""
