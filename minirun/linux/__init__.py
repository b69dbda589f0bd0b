"""Layer 0: the kernel, one module per subject. Nothing here knows what a container is."""
