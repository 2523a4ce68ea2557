"""What knows no cells: files, errors, seeds, the machine, progress, rank agreement, shared types."""
