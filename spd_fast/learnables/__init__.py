"""Learnables: what an outer loop can learn. Each kind has a file, and a table names them all."""
