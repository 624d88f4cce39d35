"""Ray, imported with the environment of tests that start a cluster: Ray reads its variables once.

Tests write `from helpers.ray_environment import ray`, so that nothing imports Ray before.
"""

import os

from cluster.actors import ray_session

os.environ.update(ray_session.SETTINGS)
os.environ.update(
    {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4, "RAY_prestart_worker_first_driver": "0"}
)

import ray
from ray.cluster_utils import Cluster

__all__ = ["Cluster", "ray"]
