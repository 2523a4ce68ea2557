"""Truth: cells and the accuracies that trained networks of them reached, read from files or measured."""
