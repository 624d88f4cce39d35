"""Networks of the shipped task families, as matrix products in a batch-last layout."""
