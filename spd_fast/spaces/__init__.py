"""Candidates, from which motifs are made: cells and perceptrons, one by one and in columns."""
