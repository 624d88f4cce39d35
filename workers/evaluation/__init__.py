"""Evaluation of frozen optimizers on unseen tasks: jobs, results, tuning, comparison, timing, random search."""
