"""Results for people: the HTML page, its plots, tables, and exported optimizers."""
