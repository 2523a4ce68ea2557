"""The interface to the compiled engine. No other folder trains motifs with `_core`."""
