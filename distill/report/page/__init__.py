"""One HTML file that says what came of some runs: from plain data, without a model, a network or a browser."""
