#!/usr/bin/env python3
"""Runs the interop cases: public packages, unmodified, against real `fleetline` processes.

    jepsen/interop/run.py                     every case
    jepsen/interop/run.py --only node.ws      cases whose name contains this (a glob works too; may be given often)
    jepsen/interop/run.py --list              names and the hub that they need

Each case is a process of its own (`CASE_FILE NAME`), so that a hanging SDK thread or a crash of Node
hurts nothing else. It ends with 0, or says why not on its last line `REASON …`. Cases of the kind
`single` run two at a time, the others alone, because they break what they share. Output of a case is
in `target/interop/logs/NAME.log`, nodes' logs in `target/interop/run/KIND`. Everything runs in a network
namespace of its own where that is allowed (`harness/namespace.py`).

Ends with 1 when a case failed, 2 when the hub could not be started. Standard library only.
"""

import argparse
import concurrent.futures
import fcntl
import fnmatch
import os
import subprocess
import sys
import time

# The source tree stays as it is.
sys.dont_write_bytecode = True

from harness import control, namespace  # noqa: E402
from harness.hub import KINDS, Hub, NodeEnded  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
HOME = os.path.join(ROOT, "target", "interop")
PYTHON = os.path.join(HOME, "venv", "bin", "python")
REALTIME_PYTHON = os.path.join(HOME, "realtime-venv", "bin", "python")
# A case that hangs ends here; every wait inside a case is shorter and says what it waited for.
CASE_S_MAX = 240


def case_files():
    """Every file with cases, with the program that runs it."""
    for folder, ending, program in (
        ("python", ".py", PYTHON),
        ("node", ".js", "node"),
        ("realtime", ".py", REALTIME_PYTHON),
        ("realtime", ".js", "node"),
        ("functions", ".js", "node"),
    ):
        for name in sorted(os.listdir(os.path.join(HERE, folder))):
            if name.endswith(ending) and not name.startswith("kit"):
                yield [program, os.path.join(HERE, folder, name)]


def environment(**more):
    found = {
        **os.environ,
        "NODE_PATH": os.pathsep.join(os.path.join(HOME, name, "node_modules") for name in ("node", "realtime")),
        "PYTHONPATH": os.path.join(HERE, "python"),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    # Proxies of the surroundings must not stand between an SDK and localhost.
    return {name: value for name, value in found.items() if not name.lower().endswith("_proxy")} | more


def all_cases():
    """`(name, kind, command)` of every case, as the files themselves list them."""

    def listed(command):
        done = subprocess.run(
            [*command, "--list"], capture_output=True, text=True, env=environment(), check=False
        )
        if done.returncode != 0:
            raise SystemExit(f"{command[1]} --list: {done.stderr}")
        return [(*line.split(), command) for line in done.stdout.splitlines()]

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return [case for cases in pool.map(listed, case_files()) for case in cases]


def chosen(cases, only, skip):
    def fits(name, patterns):
        return any(fnmatch.fnmatch(name, f"*{pattern}*") for pattern in patterns)

    return [case for case in cases if (not only or fits(case[0], only)) and not fits(case[0], skip)]


def run_case(case, env):
    """Runs one case. Gives its name, the reason of its failure (None: passed) and its seconds."""
    name, _, command = case
    log_path = os.path.join(HOME, "logs", f"{name}.log")
    begun = time.monotonic()
    with open(log_path, "wb") as log:
        try:
            code = subprocess.run(
                [*command, name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=env,
                timeout=CASE_S_MAX,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            code = f"hung for {CASE_S_MAX} s"
    seconds = time.monotonic() - begun
    if code == 0:
        return name, None, seconds
    with open(log_path, encoding="utf-8", errors="replace") as log:
        lines = [line.strip() for line in log if line.strip()]
    told = [line.removeprefix("REASON ") for line in lines if line.startswith("REASON ")]
    reason = told[-1] if told else f"ended with {code}: {lines[-1] if lines else 'no output'}"
    return name, reason, seconds


def run_kind(kind, cases, binary, commands, address):
    """Starts the hub of this kind, runs its cases and stops it. Gives the results."""
    hub = Hub(binary, os.path.join(HOME, "run"), kind, HOME)
    results = []

    def report(result):
        name, reason, seconds = result
        print(f"ok {name} ({seconds:.1f} s)" if reason is None else f"FAIL {name} {reason}", flush=True)
        results.append(result)

    try:
        hub.start()
        commands.hub = hub
        authority = hub.rest.hub["authority"]
        env = environment(
            INTEROP_CONTROL=address,
            INTEROP_HUB=hub.path,
            NODE_EXTRA_CA_CERTS=authority,
            REQUESTS_CA_BUNDLE=authority,
            SSL_CERT_FILE=authority,
        )
        if kind == "single":
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                for done in concurrent.futures.as_completed(
                    [pool.submit(run_case, case, env) for case in cases]
                ):
                    report(done.result())
        else:
            for case in cases:
                report(run_case(case, env))
                hub.restore()
    finally:
        hub.close()
    return results


def alone():
    """Holds the folder until this process ends: a second run would remove the data of the first under it."""
    lock = open(os.path.join(HOME, "lock"), "w", encoding="ascii")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("waiting for another run to end", file=sys.stderr)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="run cases that contain this"
    )
    arguments.add_argument("--skip", action="append", default=[], metavar="PATTERN", help="leave these out")
    arguments.add_argument("--list", action="store_true", help="print names and kinds, run nothing")
    arguments.add_argument("--no-setup", action="store_true", help="packages are installed already")
    arguments.add_argument("--binary", default=os.path.join(ROOT, "target", "debug", "fleetline"))
    arguments.add_argument(
        "--shared-network", action="store_true", help="use this machine's ports 8883 and 443"
    )
    options = arguments.parse_args()
    if not options.no_setup:
        subprocess.run([os.path.join(HERE, "setup.sh")], check=True)
    cases = chosen(all_cases(), options.only, options.skip)
    if options.list:
        print("\n".join(f"{name}  {kind}" for name, kind, _ in cases))
        return 0
    if not cases:
        print("no case fits", file=sys.stderr)
        return 2
    os.makedirs(os.path.join(HOME, "logs"), exist_ok=True)
    lock = alone()
    if not options.shared_network and not namespace.enter():
        print("no network of our own: ports 8883 and 443 of this machine are used", file=sys.stderr)
    commands = control.Commands(HOME)
    address = control.serve(commands)
    results = []
    for kind in KINDS:
        if wanted := [case for case in cases if case[1] == kind]:
            try:
                results += run_kind(kind, wanted, options.binary, commands, address)
            except (OSError, RuntimeError, NodeEnded) as error:
                print(f"the hub ({kind}) failed: {error}", file=sys.stderr)
                return 2
    lock.close()
    failed = [name for name, reason, _ in results if reason is not None]
    print(f"{len(results) - len(failed)} passed, {len(failed)} failed of {len(cases)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
