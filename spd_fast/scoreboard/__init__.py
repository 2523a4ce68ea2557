"""The scoreboard: how well learned dishes rank test cells, beside other ways to score cells."""
