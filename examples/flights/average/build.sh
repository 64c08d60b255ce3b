#!/usr/bin/env bash
# Builds the function app `average` into a folder: build.sh [OUT], by default target/demo/average.
#
# What makes a component of JavaScript is the script of broker/wasm/samples, with the tool in the versions of its
# package-lock.json, from the npm registry. What is built already isn't built again.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
out=${1:-$root/target/demo/average}
samples=$root/broker/wasm/samples
wit=$root/broker/wasm/wit/fleetline.wit
# Beside the app, not within: all that is in there is deployed.
tool=$out.tool
done_file=$out.done

sum() { cat "$@" | sha256sum | cut -d' ' -f1; }

made_of=$(sum "$here"/function.* "$here/host.json" "$wit" "$samples/build.mjs" "$samples/package-lock.json")
if [ "$(cat "$done_file" 2>/dev/null || true)" = "$made_of" ] && [ -s "$out/average/function.wasm" ]; then
  exit 0
fi

lock=$(sum "$samples/package.json" "$samples/package-lock.json")
if [ "$(cat "$tool/.done" 2>/dev/null || true)" != "$lock" ]; then
  echo "      fetching the component builder (npm)"
  rm -rf "$tool" && mkdir -p "$tool"
  cp "$samples/package.json" "$samples/package-lock.json" "$tool/"
  (cd "$tool" && npm ci --silent --no-audit --no-fund --ignore-scripts)
  echo "$lock" >"$tool/.done"
fi
# Modules are looked for beside the script.
cp "$samples/build.mjs" "$tool/build.mjs"

echo "      building the function"
mkdir -p "$out/average"
rm -f "$done_file"
cp "$here/host.json" "$out/host.json"
cp "$here/function.json" "$out/average/function.json"
node "$tool/build.mjs" "$here/function.js" "$wit" "$out/average/function.wasm"
echo "$made_of" >"$done_file"
