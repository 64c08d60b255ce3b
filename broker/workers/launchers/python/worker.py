"""Entry of the Python worker: `python worker.py --host H --port P --workerId W ...`.

Started by the node with the app's folder as working directory. The first line of standard input is
the secret that lets this process in at the node; the pipe then stays open as the life line: when it
ends, the node is gone, and so is this process, whatever its functions are doing.

Works from Python 3.9 on, with azure-functions, grpcio and protobuf from PyPI.
"""

import os
import sys
import threading


def read_secret():
    """The secret, a line of its own, read byte by byte so that nothing after it is lost."""
    line = bytearray()
    while len(line) < 256:
        byte = os.read(0, 1)
        if byte in (b"", b"\n"):
            break
        line += byte
    return line.decode("ascii")


def watch_life_line():
    """Moves the pipe away from standard input and ends the process when it closes."""
    pipe = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)

    def wait():
        while os.read(pipe, 64):
            pass
        os._exit(1)

    threading.Thread(target=wait, name="life line", daemon=True).start()


def main():
    os.umask(0o077)
    secret = read_secret()
    watch_life_line()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
    from fleetline_worker import link

    # The app must not find our modules: only the package itself stays, which is loaded by now.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != here]
    link.run(sys.argv[1:], secret)


if __name__ == "__main__":
    main()
