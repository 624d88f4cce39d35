"""Where a run or a job takes place: this process, this machine, or a Ray cluster."""
