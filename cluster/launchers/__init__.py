"""Where a run is trained and jobs are computed: this process, this machine, or a Ray cluster."""
