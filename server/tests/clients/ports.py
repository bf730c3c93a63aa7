"""Ports of this machine for what is to listen there in a moment.

In: nothing. Out: `free_port`. The system gives those from 32768 on to whoever connects, so that one of them may be gone by then.
"""

import random
import socket

# Above those that browsers refuse, below those that the service has for RTP.
FIRST, LAST = 11_000, 19_999
_given = set()


def free_port():
    """One on which nobody listens, and another one each time."""
    for port in random.sample(range(FIRST, LAST + 1), LAST + 1 - FIRST):
        if port in _given:
            continue
        try:
            with socket.create_server(("127.0.0.1", port)):
                pass
        except OSError:
            continue
        _given.add(port)
        return port
    raise RuntimeError(f"expected that one port of {FIRST} to {LAST} is free")
