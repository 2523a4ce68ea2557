"""Predictors of accuracy: from labelled cells to others."""
