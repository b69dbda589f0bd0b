"""Layer 2, the runtime: an OCI bundle goes in, a process comes out. It knows no images and no networks."""
