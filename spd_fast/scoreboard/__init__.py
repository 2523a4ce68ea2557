"""The scoreboard: how well scores rank cells that nobody learned from, beside everything that is known without a dish."""
