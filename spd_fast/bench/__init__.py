"""Benches that anyone can rerun: `spd-fast bench`. Each verifies, then times, and records where and how.

Every bench is a module with ``run(...) -> record`` (plain values, ready for JSON) and ``tables(record)``; their figures are in
`spd_fast.report.run.speed`. `reference` is the motif in plain PyTorch that benches and tests compare with.
"""
