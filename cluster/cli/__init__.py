"""The command line: one file per command, loaded when the command is used."""

import time

STARTED = time.time()  # unix time when our code began: earlier steps of a process that exec'ed us are not ours
