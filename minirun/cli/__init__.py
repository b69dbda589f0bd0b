"""Layer 4, the command line: the only place that prints or exits."""
