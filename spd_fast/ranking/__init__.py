"""From labelled cells and candidates to the candidates that are worth training next."""
