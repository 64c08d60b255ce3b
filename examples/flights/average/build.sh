#!/usr/bin/env bash
# Builds the function app `average` into a folder: build.sh [OUT], by default target/demo/average.
#
# The tool that makes components of JavaScript comes with the samples of broker/wasm, whose build gets it from
# the npm registry in pinned versions. What is built already isn't built again.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
out=${1:-$root/target/demo/average}
samples=$root/broker/wasm/samples
wit=$root/broker/wasm/wit/fleetline.wit

made_of=$(cat "$here"/function.* "$here/host.json" "$wit" "$samples/build.mjs" "$samples/package-lock.json" |
  sha256sum | cut -d' ' -f1)
done_file=$out.done
if [ "$(cat "$done_file" 2>/dev/null || true)" = "$made_of" ] && [ -s "$out/average/function.wasm" ]; then
  exit 0
fi

"$samples/build.sh" "$root/target/wasm-samples"
echo "building the function average"
mkdir -p "$out/average"
rm -f "$done_file"
cp "$here/host.json" "$out/host.json"
cp "$here/function.json" "$out/average/function.json"
node "$root/target/wasm-samples/.tool/build.mjs" "$here/function.js" "$wit" "$out/average/function.wasm"
echo "$made_of" >"$done_file"
