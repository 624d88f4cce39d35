"""The curriculum over windows (paper section 4.3): a linear ramp over outer updates, with jitter; and horizons."""

from common.config import CurriculumConfig, TaskConfig


def window(config: CurriculumConfig, version: int, uniform: float, steps_left: int) -> int:
    """Inner steps of the next truncation, in 1 .. steps_left.

    Args:
      version: outer updates of theta so far, or where `curriculum.hold` has the ramp.
      uniform: a draw from U(0, 1), for the jitter.
      steps_left: inner steps until the inner problem ends, at least 1.
    """
    done = min(version / config.updates, 1.0) if config.updates else 1.0
    length = config.start + done * (config.end - config.start)
    jittered = length * (1.0 + config.jitter * (2.0 * uniform - 1.0))
    return max(1, min(round(jittered), steps_left))


def horizon(config: TaskConfig, uniform: float) -> int:
    """Steps of an inner problem, log-uniform between the shortest and the longest of `task.inner_steps`.

    Args:
      uniform: a draw from U(0, 1).
    """
    drawn = config.shortest * (config.longest / config.shortest) ** uniform
    return min(max(round(drawn), config.shortest), config.longest)
