#!/usr/bin/env bash
# Runs the browser test: ./run.sh [FOLDER FOR SCREENSHOTS]
#
# Installs what it needs, at fixed versions, into target/console-browser, and Debian's chromium by apt when
# there is none. Does nothing of that when it is there already.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
home="$here/../../../../target/console-browser"
pins="playwright-core@1.65.1 ws@8.23.0"

if [ -z "${CHROMIUM:-}" ] && ! command -v chromium >/dev/null; then
  echo "browser test: installing chromium" >&2
  as_root=()
  if [ "$(id -u)" -ne 0 ]; then as_root=(sudo); fi
  install() { DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y --no-install-recommends chromium >/dev/null; }
  install 2>/dev/null || { "${as_root[@]}" apt-get update >/dev/null && install; }
fi
mkdir -p "$home"
home=$(cd "$home" && pwd)
if [ ! -f "$home/.pins" ] || [ "$(cat "$home/.pins")" != "$pins" ]; then
  # shellcheck disable=SC2086
  npm install --prefix "$home" --ignore-scripts --no-audit --no-fund --silent $pins >&2
  echo "$pins" >"$home/.pins"
fi
FLEETLINE_BROWSER="$home" exec node "$here/test.mjs" "$@"
