"""``python -m spd_fast.cli``."""

from spd_fast.cli import main

main()
