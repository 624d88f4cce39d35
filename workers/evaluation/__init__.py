"""Evaluation of frozen optimizers on unseen tasks: jobs, baselines, timing, random search, comparison."""
