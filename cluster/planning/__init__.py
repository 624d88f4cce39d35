"""What a run will take: a simulation of the whole system, and the plan that `outertrain plan` prints."""
