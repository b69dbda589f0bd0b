"""minirun: a container is really just a process.

The package is layered; each layer imports only downward (see docs/architecture.md):

    4  cli                             the only place that prints or exits
    3  engine · doctor · topology      compose what is below
    2  runtime │ image │ network       siblings: none imports another
    1  step · oci                      no kernel calls in oci
    0  linux · store · errors · strict_json
"""

__version__ = "0.1.0"
