"""Experiment trackers: copies of what history.jsonl holds, which stays the only record that outertrain reads."""
