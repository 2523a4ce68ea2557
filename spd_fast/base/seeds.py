"""Seeds for single purposes, which are derived from the one seed of a recipe or a call."""

import hashlib

__all__ = [
    "derived_seed",
]


def derived_seed(seed: int, purpose: str, index: int = 0) -> int:
    """Return a seed for one purpose, 0 to 2^63 - 1. It is independent of those for other purposes, and the same on every
    machine."""
    text = f"spd_fast/{seed}/{purpose}/{index}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
