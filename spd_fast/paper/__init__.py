"""The paper's experiments: what it states, the runs that repeat it, and the numbers that come of them."""
