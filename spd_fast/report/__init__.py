"""Reports: pages, tables and figures of runs, scoreboards and benches."""
