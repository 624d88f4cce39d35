"""The one call of the protocol: workers and aggregators send a sample and receive the newest parameters.

The messages are in `common.messages`. A caller that repeats a call repeats the same payload.
"""

from collections.abc import Callable

Exchange = Callable[[bytes | None, int, int], bytes]  # (packed sample or None, known epoch and version) -> packed reply
