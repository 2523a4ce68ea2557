"""Code that knows nothing of cells: files, stores, errors, seeds, sums, the machine, progress, ranks and shared types."""
