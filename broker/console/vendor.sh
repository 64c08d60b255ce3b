#!/bin/sh
# Makes assets/vendor and assets/map anew from pinned npm releases, and checks that they are what is kept.
#
#   ./vendor.sh          check: exits with 1 when a kept file differs from its release
#   ./vendor.sh --write  replaces the kept files and their sums (after a version below was changed)
#
# Needs node and npm with access to the registry. The build of the crate needs neither: the files are kept.
set -eu
cd "$(dirname "$0")"

UPLOT=1.6.32
SIGNALR=10.0.11
TOPOJSON=3.1.0
ATLAS=2.0.2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
npm install --prefix "$work" --ignore-scripts --no-audit --no-fund --silent \
  "uplot@$UPLOT" "@microsoft/signalr@$SIGNALR" "topojson-client@$TOPOJSON" "world-atlas@$ATLAS"
from="$work/node_modules"
to="$work/assets"
mkdir -p "$to/vendor/uplot" "$to/vendor/signalr" "$to/map"

cp "$from/uplot/dist/uPlot.esm.js" "$from/uplot/dist/uPlot.min.css" "$from/uplot/LICENSE" "$to/vendor/uplot/"
cp "$from/@microsoft/signalr/dist/browser/signalr.min.js" "$to/vendor/signalr/"
# The release names its licence but doesn't bring the text along.
grep -q '"license": "MIT"' "$from/@microsoft/signalr/package.json"
cat >"$to/vendor/signalr/LICENSE" <<'MIT'
The MIT License (MIT)

Copyright (c) .NET Foundation and Contributors

All rights reserved.

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
MIT
{
  echo "uPlot $UPLOT"; echo; cat "$to/vendor/uplot/LICENSE"; echo; echo
  echo "@microsoft/signalr $SIGNALR"; echo; cat "$to/vendor/signalr/LICENSE"; echo; echo
  echo "Map outlines: world-atlas $ATLAS, made from Natural Earth, which is in the public domain."; echo
  cat "$from/world-atlas/LICENSE"
} >"$to/vendor/LICENSES.txt"
node map.mjs "$from" "$to/map"

(cd "$to" && find vendor map -type f | LC_ALL=C sort | xargs sha256sum) >"$work/SHA256SUMS"
if [ "${1:-}" = --write ]; then
  rm -rf assets/vendor assets/map
  cp -r "$to/vendor" "$to/map" assets/
  cp "$work/SHA256SUMS" assets/vendor/SHA256SUMS
  echo "written"
else
  diff "$work/SHA256SUMS" assets/vendor/SHA256SUMS
  (cd assets && sha256sum --quiet -c vendor/SHA256SUMS)
  echo "kept files are those of the releases"
fi
