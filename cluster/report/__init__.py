"""What a run leaves behind: the page with its pictures, the table, and the exported optimizer."""
