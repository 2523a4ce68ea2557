"""The benches of `spd-fast bench`. Each first verifies that results are right, then times, and records machine and settings.

Every bench is a module with ``run(...)``, which returns a record of plain values that JSON can hold, and ``tables(record)``. Their
figures are in `spd_fast.report.speed`. Benches and tests compare with the reference, `spd_fast.reference.pytorch`.
"""
