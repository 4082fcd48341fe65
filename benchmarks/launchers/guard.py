"""Leads a process group, and kills it, itself included, when whoever holds the other end of standard input is gone.

Executed as a script by `process.attend`, which kills the group itself when the job has ended: the end of the input means that it cannot.
Prints the number of the group. The leader is nobody's child: Ray kills the children of a worker that it ends, one by one, and what
those have started would live on.
"""

import os
import signal
import sys

if __name__ == "__main__":
    leader = os.fork()
    if leader:
        os.setpgid(leader, leader)
        print(leader, flush=True)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is for the job, which has some grace
        os.close(1)
        sys.stdin.read()
        # At once: the devices may be another run's by now, and what lies on disk is whole at any time. By number, as it may have come here
        # before the other process made it the leader.
        os.setpgid(0, 0)
        os.killpg(os.getpid(), signal.SIGKILL)
