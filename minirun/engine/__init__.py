"""Layer 3, the engine: from "alpine on br0 with 64 MB" to a bundle, a network and a plan, and back to nothing."""
