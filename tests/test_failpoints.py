import signal
import subprocess
import sys

import pytest

from common.errors import UserError
from common.files import no_failpoint
from learner.failpoints import POINTS, FailpointReached, from_environment


def point(text):
    return from_environment({"OUTERTRAIN_FAILPOINT": text})


def test_failpoint_unset_does_nothing():
    assert from_environment({}) is no_failpoint
    for name in POINTS:
        no_failpoint(name)


def test_failpoint_raises_once_at_the_nth_time():
    reached = point("before_merge:3:raise")
    for _ in range(2):
        reached("before_merge")
        reached("after_merge")
    with pytest.raises(FailpointReached, match="before_merge"):
        reached("before_merge")
    reached("before_merge")


def test_failpoint_kills_by_sigkill():
    code = "from learner.failpoints import from_environment\nfrom_environment()('after_fsync')\nprint('alive')"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"OUTERTRAIN_FAILPOINT": "after_fsync"}, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == b""


@pytest.mark.parametrize("text", ["nowhere", "before_merge:x", "before_merge:1:explode", "before_merge:-1", ":1"])
def test_failpoint_unknown_name_is_a_user_error(text):
    with pytest.raises(UserError, match=r"is not a failpoint: write name\[:nth"):
        point(text)
