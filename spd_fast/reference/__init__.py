"""Independent implementations of motifs, which share no code with the engine that is held against them."""
