"""``python -m spd_fast.cli``."""

from spd_fast.cli import main

if __name__ == "__main__":
    main()
