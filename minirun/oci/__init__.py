"""Layer 1, documents of the Open Container Initiative: what they contain by default. No kernel calls here."""
