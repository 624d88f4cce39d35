"""Networks of the built-in task families, as matrix products in a batch-last layout."""
