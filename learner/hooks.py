"""What a learner calls besides its run; a test replaces any of it."""

import time
from collections.abc import Callable
from typing import NamedTuple

from common.files import no_failpoint
from learner.failpoints import Failpoint
from learner.observer import NullObserver, Observer


class Hooks(NamedTuple):
    """The functions and objects that a learner is given."""

    observer: Observer = NullObserver()
    clock: Callable[[], float] = time.time  # unix seconds
    auxiliary: Callable[[], dict[str, bytes]] = dict  # stored in each checkpoint alongside the learner's own state
    failpoint: Failpoint = no_failpoint


NO_HOOKS = Hooks()
