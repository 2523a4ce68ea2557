"""Predictors: they learn from labelled cells and predict the accuracies of other cells."""
