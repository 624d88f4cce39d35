"""Tasks of the user's own: a model, its loss and its data (`outertrain.Task`), as a task family of the unroll engine."""
