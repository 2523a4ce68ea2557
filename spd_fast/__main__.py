"""``python -m spd_fast``, the command where `spd-fast` is not on the search path."""

from spd_fast.cli import main

if __name__ == "__main__":
    main()
