"""Computes gradient samples and evaluation results from given outer-parameters. Imports `common` only."""
