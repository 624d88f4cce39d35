"""The pictures of the figures, one module each. Importing one loads matplotlib."""
