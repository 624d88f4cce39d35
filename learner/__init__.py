"""Turns samples into parameters. Knows theta as a vector, and no task. Imports `common` only."""
