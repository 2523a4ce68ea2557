"""Independent implementations of motifs, which share no code with the engine. Tests and benches compare the engine with them."""
