"""Ray actors: shells around plain classes, and the clients that talk to them."""
