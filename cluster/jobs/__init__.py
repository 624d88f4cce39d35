"""Named, idempotent, resumable jobs that run behind training: evaluation, random search, figures."""
