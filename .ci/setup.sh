#!/usr/bin/env bash
# Installs the system packages that a build needs, when they are missing. Debian and its kin.
#
#   build-essential   C and C++ compiler for RocksDB (C++20: gcc 11 or later)
#   libclang-dev      RocksDB's bindings are made at build time
#   ccache            keeps RocksDB's objects outside the checkout: the second build is quick
#   pkg-config        used by build scripts
set -euo pipefail

missing=()
command -v g++ >/dev/null || missing+=(build-essential)
command -v pkg-config >/dev/null || missing+=(pkg-config)
command -v ccache >/dev/null || missing+=(ccache)
ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* >/dev/null 2>&1 || missing+=(libclang-dev)

if ! command -v cargo >/dev/null; then
  echo "setup: cargo is missing. Install a Rust toolchain (1.95 or later) first, then run this again." >&2
  exit 1
fi
if [ ${#missing[@]} -eq 0 ]; then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "setup: please install: ${missing[*]} (no apt-get here to do it)" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo "setup: run this as root, or install: ${missing[*]}" >&2; exit 1; }
  as_root=(sudo)
fi
echo "setup: installing ${missing[*]}"
install() { DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null; }
install 2>/dev/null || { "${as_root[@]}" apt-get update >/dev/null && install; }
