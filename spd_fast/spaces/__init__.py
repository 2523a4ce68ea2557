"""Spaces of candidates: what can be made into a motif, one by one and in columns."""
