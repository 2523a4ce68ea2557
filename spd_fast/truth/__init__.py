"""Truth: cells with the measured accuracies of their full-size networks, read from files or measured by training."""
