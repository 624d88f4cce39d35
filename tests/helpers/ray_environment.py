"""The environment of tests that start a Ray cluster. To be imported before Ray, which reads it once."""

import os

from cluster.actors import ray_session

os.environ.update(ray_session.SETTINGS)
os.environ.update(
    {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4, "RAY_prestart_worker_first_driver": "0"}
)
