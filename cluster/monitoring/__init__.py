"""What is reported about a run while it trains: metrics, status, alerts, the terminal dashboard."""
