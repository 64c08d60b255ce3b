"""A network of our own, so that ports 8883 and 443 are free and need no privilege of the machine's.

Called once by `run.py`, before it starts a thread or a process. Linux only. Where the kernel refuses
(no right to make a namespace), the cases run in the machine's network, as anywhere else.
"""

import ctypes
import fcntl
import os
import socket
import struct

CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1


def enter():
    """Moves this process into a fresh network with nothing but loopback. Gives whether that worked."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Who isn't root may make a network inside a user namespace of its own.
    flags = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWNET | CLONE_NEWUSER
    if not hasattr(libc, "unshare") or libc.unshare(flags) != 0:
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        found = fcntl.ioctl(control, SIOCGIFFLAGS, request)
        up = struct.unpack("16sh14x", found)[1] | IFF_UP
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", up))
    return True
