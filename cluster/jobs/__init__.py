"""Named, idempotent, resumable jobs, which have lower priority than training: evaluation, random search, figures."""
