"""Kills a group of processes when whoever holds the other end of standard input is gone.

Executed as a script by `process.attend`. It reads the number of the group, then a word if the group has ended by itself; the end of the
input without that word means that the other side was killed.
"""

import contextlib
import os
import signal
import sys

group, ended = sys.stdin.readline(), sys.stdin.readline()
if group and not ended:
    with contextlib.suppress(ProcessLookupError):  # it ended in this moment
        # At once: the devices may be another run's by now, and what lies on disk is whole at any time.
        os.killpg(int(group), signal.SIGKILL)
