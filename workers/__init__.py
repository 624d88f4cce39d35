"""Turns parameters into samples, or into scores. Imports `common` only."""
