"""What a scrape of a metrics registry reads."""

from prometheus_client import CollectorRegistry, generate_latest


def exposition(registry: CollectorRegistry) -> str:
    """The text exposition format."""
    return generate_latest(registry).decode()
