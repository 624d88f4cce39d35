"""What is reported about a run while it trains: metrics, status, alerts, the terminal dashboard."""

import os

for _name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
    os.environ.pop(_name, None)  # prometheus_client reads it when imported, and would keep our metrics in shared files
