#!/usr/bin/env bash
# Other programs read our stores: h5py, hdf5plugin, safetensors and numpy by docs/formats.md alone; and the package gguf's files of
# all types are read as it reads them.
#   --full         instead: PyTorch and transformers, logits of every model equal ours; minutes; writes BUILD/interop/report.md
#   --build DIR    the build folder (build/), where qdist and its filter plug-in are
#   --python PATH  this interpreter, with all packages, instead of a virtual environment
# Without --python the packages come from PyPI into BUILD/interop/venv, which is kept; where they cannot be had all is skipped,
# loudly.  Each check is a line of BUILD/tests/interop.tap, which tests/run.sh counts.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=$root/build
python=
full=no

usage() {
  echo "tests/interop/run.sh: $1; usage: tests/interop/run.sh [--full] [--build DIR] [--python PATH]" >&2
  exit 2
}

while [ $# -gt 0 ]; do
  case $1 in
    --full) full=yes ;;
    --build | --python)
      [ $# -ge 2 ] || usage "$1 needs a value"
      if [ "$1" = --build ]; then build=$2; else python=$2; fi
      shift
      ;;
    *) usage "\"$1\" is no option" ;;
  esac
  shift
done

[ -d "$build" ] || usage "there is no folder $build (cmake makes it)"
build=$(cd "$build" && pwd)
for file in qdist hdf5-plugin/libqdist_h5zstd.so; do
  [ -f "$build/$file" ] || usage "$build holds no $file: build it first"
done
# shellcheck source=jobs/environment.sh
. "$root/jobs/environment.sh"
export PYTHONDONTWRITEBYTECODE=1

work=$build/interop
tap=$build/tests/interop.tap
mkdir -p "$work" "$build/tests"
: >"$tap"

skip() { # skip WHAT WHY
  echo "interop: $1 SKIPPED: $2"
  echo "ok - interop::${1// /_} # SKIP $2" >>"$tap"
}

# ---- packages

given=$python

# have FILE: its packages in its versions are there; a given interpreter is taken as it is.
have() { [ -n "$given" ] || "$python" "$here/installed.py" "$here/$1.txt"; }

fetch() { # fetch FILE: its packages, from wheels only
  local wanted=$here/$1.txt
  echo "+ $wanted" >>"$work/pip.log"
  timeout 600 "$python" -m pip install --disable-pip-version-check --no-input --only-binary :all: --retries 1 --timeout 30 \
    -r "$wanted" >>"$work/pip.log" 2>&1
}

prepare() { # an environment with the packages; where that fails, $reason says why
  reason="there is no python3"
  command -v python3 >/dev/null || return 1
  python=$work/venv/bin/python
  if ! "$python" -m pip --version >/dev/null 2>&1; then
    reason="python3 makes no virtual environment (Debian: python3-venv)"
    rm -rf "$work/venv"
    python3 -m venv "$work/venv" >"$work/venv.log" 2>&1 || return 1
  fi
  reason="packages cannot be had from PyPI, is there a network? ($work/pip.log)"
  : >"$work/pip.log"
  have requirements || fetch requirements
}

reason=
if [ -z "$python" ] && ! prepare; then
  skip "everything" "$reason"
  exit 0
fi

# ---- the light part

status=0
if [ "$full" = no ]; then
  rm -rf "$work/light"
  mkdir "$work/light"
  "$python" "$here/light.py" make "$build/qdist" "$work/light"
  HDF5_PLUGIN_PATH=$work/nowhere "$python" "$here/light.py" check none "$work/light" "$tap" || status=1
  HDF5_PLUGIN_PATH=$build/hdf5-plugin "$python" "$here/light.py" check plugin "$work/light" "$tap" || status=1
  if have requirements-hdf5plugin || fetch requirements-hdf5plugin; then
    HDF5_PLUGIN_PATH=$work/nowhere "$python" "$here/light.py" check hdf5plugin "$work/light" "$tap" || status=1
  else
    skip "reader hdf5plugin" "the package hdf5plugin cannot be had from PyPI ($work/pip.log)"
  fi
  if have requirements-gguf || fetch requirements-gguf; then
    HDF5_PLUGIN_PATH=$build/hdf5-plugin "$python" "$here/gguf_types.py" "$build/qdist" "$work/light" "$tap" || status=1
  else
    skip "GGUF types" "the package gguf cannot be had from PyPI ($work/pip.log)"
  fi
  exit "$status"
fi

# ---- the heavy part

if ! have requirements-full && ! fetch requirements-full; then
  skip "the heavy part" "PyTorch and transformers cannot be had from PyPI ($work/pip.log)"
  exit 0
fi
cmake --build "$build" --target interop_logits >"$work/build.log" || { cat "$work/build.log"; exit 1; }
rm -rf "$work/full"
mkdir "$work/full"
export HDF5_PLUGIN_PATH=$build/hdf5-plugin
"$python" "$here/full.py" "$build/qdist" "$build/tests/interop_logits" "$work/full" "$work/report.md"
