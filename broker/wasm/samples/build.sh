#!/usr/bin/env bash
# Builds the sample functions as WebAssembly components: build.sh [OUT], by default target/wasm-samples.
#
# Needs Node 20 or newer with npm; on Debian it installs them when they are missing and it may. The tool
# comes from the npm registry in the versions of package-lock.json, into OUT/.tool (400 MB; it may be
# removed). What is built already isn't built again, and then nothing is fetched.
#
# package.json names preview2-shim because componentize-js 0.23 imports it without saying so.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
out=${1:-$root/target/wasm-samples}
wit=$here/../wit/fleetline.wit
tool=$out/.tool

sum() { cat "$@" | sha256sum | cut -d' ' -f1; }

have_node() {
  if ! command -v npm >/dev/null 2>&1; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
      echo "installing nodejs and npm"
      apt-get update -qq && apt-get install -y -qq nodejs npm
    else
      echo "node (20 or newer) and npm are needed: apt-get install nodejs npm" >&2
      exit 1
    fi
  fi
  local major
  major=$(node -p 'process.versions.node.split(".")[0]')
  if [ "$major" -lt 20 ]; then
    echo "node $major is too old: 20 or newer is needed" >&2
    exit 1
  fi
}

have_tool() {
  have_node
  local wanted
  wanted=$(sum "$here/package.json" "$here/package-lock.json")
  if [ "$(cat "$tool/.done" 2>/dev/null || true)" != "$wanted" ]; then
    echo "fetching the component builder"
    rm -rf "$tool" && mkdir -p "$tool"
    cp "$here/package.json" "$here/package-lock.json" "$tool/"
    (cd "$tool" && npm ci --silent --no-audit --no-fund --ignore-scripts)
    echo "$wanted" >"$tool/.done"
  fi
  # Modules are looked for beside the script.
  cp "$here/build.mjs" "$tool/build.mjs"
}

mkdir -p "$out"
cp "$here/host.json" "$out/host.json"
for source in "$here"/*/function.js; do
  name=$(basename "$(dirname "$source")")
  mkdir -p "$out/$name"
  cp "$here/$name/function.json" "$out/$name/function.json"
  # What the component depends on. The same sum: nothing to do.
  made_of=$(sum "$source" "$wit" "$here/build.mjs" "$here/package-lock.json")
  if [ "$(cat "$out/$name/.done" 2>/dev/null || true)" = "$made_of" ] && [ -s "$out/$name/function.wasm" ]; then
    continue
  fi
  have_tool
  echo "building $name"
  rm -f "$out/$name/.done"
  node "$tool/build.mjs" "$source" "$wit" "$out/$name/function.wasm"
  echo "$made_of" >"$out/$name/.done"
done
echo "samples are in $out"
