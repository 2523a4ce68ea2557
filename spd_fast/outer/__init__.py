"""The outer loop: it changes a dish until the motifs that are trained on it rank their cells as the truth does."""
