"""How the libraries below share this machine's cores with each other and with other processes."""

from __future__ import annotations

import os


def settle() -> None:
    """Let threads that wait sleep. To be called before torch is imported; what the user has set stays.

    OpenMP's threads spin while they wait. Two prunings on the two cores of a laptop then wait for each other's
    spinning: SynFlow on ResNet-110 took 480 s beside other work instead of 19 s (2 cores, load 4.5).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
