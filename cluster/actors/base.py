"""What all our Ray actors share: their names, how they are created, and what happens when a restarted one fails.

    learner     one per run: threaded, restarted by Ray from its newest checkpoint
    fleet       one per run: owns the workers, so that they end when it ends
    worker      many: one core each; JAX is imported when it starts to run
    aggregator  one per node, optional; owned by the fleet

Each run has a Ray namespace, in which `learner` and `fleet` are names. An actor class is a shell around a plain class.
"""

import os
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray

RESTART_DELAY_S = 3.0


def actor_class(cls: type, options: Mapping[str, Any], **threads: int) -> Any:
    """Returns a Ray actor class of `cls`, to be created with `.remote(...)`.

    Ray never retries its calls: we do, where a retry is safe.

    Args:
      options: Ray's actor options, such as `name` and `max_restarts`.
      threads: number of threads of each concurrency group of methods.
    """
    return ray.remote(num_cpus=0, max_task_retries=0, concurrency_groups=threads)(cls).options(**options)  # type: ignore[call-overload]


@contextmanager
def retried_by_ray() -> Iterator[None]:
    """Wraps the body of a constructor, so that a restarted actor that fails there is restarted again.

    Ray abandons an actor whose constructor raises, even with max_restarts=-1, but not one whose process exits. So a
    restarted actor that cannot start, because its storage is unavailable for example, exits after a delay. In the
    first start the exception is raised, for the launching command to report.
    """
    try:
        yield
    except Exception:
        if not ray.get_runtime_context().was_current_actor_reconstructed:
            raise
        traceback.print_exc()
        time.sleep(RESTART_DELAY_S)
        os._exit(1)
