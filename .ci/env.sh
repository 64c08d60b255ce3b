# Build environment shared by `make`, `.ci/run` and developers (`. .ci/env.sh`).
#
# RocksDB is the largest build of the tree. When ccache is installed, its C++ objects are cached
# outside the checkout, so a second profile or a fresh clone does not compile them again. Without
# ccache everything still builds, only slower.
if command -v ccache >/dev/null 2>&1; then
  export CC="ccache gcc" CXX="ccache g++"
  export CCACHE_DIR="${CCACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/ccache}"
  export CCACHE_MAXSIZE="${CCACHE_MAXSIZE:-10G}"
  export CCACHE_NOHASHDIR=1 CCACHE_SLOPPINESS=include_file_mtime,include_file_ctime
fi
