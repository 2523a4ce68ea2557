"""Benches, and the motif in plain PyTorch that they and the tests compare with (`witness`)."""
