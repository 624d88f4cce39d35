"""The figures of the paper, one module each: the jobs, their results, and whether the claim holds."""
