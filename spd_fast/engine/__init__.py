"""The door to the compiled engine: alone trains motifs with `_core`."""
