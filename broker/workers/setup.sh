#!/usr/bin/env bash
# Makes the folder that Python and Node workers run from: a venv with azure-functions, grpcio and
# protobuf, and a node_modules with @azure/functions and @grpc/grpc-js, all unmodified and pinned.
#
#   broker/workers/setup.sh [PREFIX]      default: target/workers of this checkout
#
# Run again it does nothing, unless a version below or the interpreter has changed. PYTHON and NPM
# name other interpreters than those of the system.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
prefix=${1:-"$here/../../target/workers"}
mkdir -p "$prefix"
prefix=$(cd "$prefix" && pwd)

# A worker runs as `nobody` when the node is root, so an interpreter below someone's home is the
# second choice.
python=${PYTHON:-}
if [ -z "$python" ]; then
  for candidate in /usr/bin/python3 "$(command -v python3 || true)"; do
    if [ -x "$candidate" ] && "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
      python=$candidate
      break
    fi
  done
fi
[ -n "$python" ] || { echo "setup: no Python of 3.9 or later with venv found; set PYTHON" >&2; exit 1; }
npm=${NPM:-npm}
command -v "$npm" >/dev/null || { echo "setup: no npm found; set NPM" >&2; exit 1; }

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
pip_packages=(grpcio==1.85.3 protobuf==7.36.2)
if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 13))'; then
  # From 3.13 on the request handlers are published as packages of their own. Version 1's brings a
  # top-level package `tests` along, which would hide an app's.
  pip_packages+=(azure-functions==2.3.0 azure-functions-runtime==1.3.0 azure-functions-runtime-v1==1.2.0)
else
  pip_packages+=(azure-functions==1.26.0)
fi
npm_packages=(@azure/functions@4.16.5 @grpc/grpc-js@1.14.7 @grpc/proto-loader@0.8.1)

python_stamp="$python $version ${pip_packages[*]}"
if [ "$(cat "$prefix/python.stamp" 2>/dev/null || true)" != "$python_stamp" ]; then
  echo "setup: Python packages into $prefix/python"
  rm -rf "$prefix/python"
  "$python" -m venv "$prefix/python"
  "$prefix/python/bin/python" -m pip install --quiet --disable-pip-version-check "${pip_packages[@]}"
  rm -rf "$prefix"/python/lib/python*/site-packages/tests
  echo "$python_stamp" > "$prefix/python.stamp"
fi

node_stamp="${npm_packages[*]}"
if [ "$(cat "$prefix/node.stamp" 2>/dev/null || true)" != "$node_stamp" ]; then
  echo "setup: Node packages into $prefix/node"
  rm -rf "$prefix/node"
  mkdir -p "$prefix/node"
  echo '{"name":"fleetline-workers","private":true}' > "$prefix/node/package.json"
  "$npm" install --prefix "$prefix/node" --silent --no-audit --no-fund --ignore-scripts --save-exact "${npm_packages[@]}"
  echo "$node_stamp" > "$prefix/node.stamp"
fi

# Readable for the user that workers run as, whatever this shell's umask is.
chmod -R go+rX "$prefix"
