"""Pages, tables and figures of runs, scoreboards and benches."""
