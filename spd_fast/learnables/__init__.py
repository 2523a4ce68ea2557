"""What an outer loop can learn: a file for each kind, and the table that names them all."""
