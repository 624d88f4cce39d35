"""The figures of the paper, one module each: what is computed, the picture, and whether the claim holds."""
