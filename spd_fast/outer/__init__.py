"""The outer loop: a dish is changed until the motifs that are trained on it rank their cells as the truth does."""
