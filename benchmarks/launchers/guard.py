"""Kills its process group, itself included, when whoever holds the other end of standard input is gone.

Executed as a script by `process.attend`, which kills the group itself when the job has ended: the end of the input means that it cannot.
"""

import os
import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is for the job, which has some grace
    sys.stdin.read()
    # At once: the devices may be another run's by now, and what lies on disk is whole at any time.
    os.killpg(0, signal.SIGKILL)
