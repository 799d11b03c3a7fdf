#!/usr/bin/env bash
# Build everything and run every test.  The last line is "N passed, N failed", with ", N skipped" where there are any.
#   --sanitize     with AddressSanitizer and UBSan, in build-sanitize/
#   --only LAYER   support, kernels, storage, workers, pipeline, jobs, end_to_end or interop (may be repeated)
#   --no-install   leave the system's packages alone
# QDIST_TEST_DATA names a folder of larger models and texts; the tests that need it are skipped without.
set -euo pipefail
cd "$(dirname "$0")/.."

build=build
install=yes
only=()
options=()

usage() {
  echo "tests/run.sh: $1; usage: tests/run.sh [--sanitize] [--only LAYER]... [--no-install]" >&2
  exit 2
}

while [ $# -gt 0 ]; do
  case $1 in
    --sanitize)
      build=build-sanitize
      options=(-DQDIST_SANITIZE=address,undefined)
      ;;
    --only)
      [ $# -ge 2 ] || usage "--only needs a layer"
      case $2 in
        support | kernels | storage | workers | pipeline | jobs | end_to_end | interop) only+=("$2") ;;
        *) usage "there is no layer \"$2\"" ;;
      esac
      shift
      ;;
    --no-install) install=no ;;
    -h | --help)
      sed -n '2,/^set /{s/^# \{0,1\}//p}' "$0"
      exit 0
      ;;
    *) usage "\"$1\" is no option" ;;
  esac
  shift
done

[ "$install" = no ] || jobs/dependencies.sh
. jobs/environment.sh

# Programs that run MPI switch leak detection off themselves: the library's own leaks are not ours.
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"

cores=$(nproc)
cmake -S . -B "$build" "${options[@]}" >"$build.configure.log" 2>&1 || { cat "$build.configure.log"; rm -f "$build.configure.log"; exit 1; }
mv "$build.configure.log" "$build/configure.log"
cmake --build "$build" -j "$cores"

rm -f "$build"/tests/*.tap
labels=()
if [ ${#only[@]} -gt 0 ]; then
  pattern=$(IFS='|'; echo "${only[*]}")
  labels=(-L "^($pattern)\$")
fi
status=0
ctest --test-dir "$build" --output-on-failure -j "$cores" "${labels[@]}" --output-junit "$PWD/$build/tests/programs.xml" || status=$?

# One line a program ("name state"), then its tests from the .tap file that Criterion writes.  A program that ended badly without a test
# to blame (it crashed, ran out of time, leaked) counts as one failure; one without a .tap is a test by itself.
sed -n 's/.*<testcase name="\([^"]*\)".* status="\([^"]*\)".*/\1 \2/p' "$build/tests/programs.xml" >"$build/tests/programs"
passed=0 failed=0 skipped=0
while read -r name state; do
  tap=$build/tests/${name##*/}.tap
  if [ ! -f "$tap" ]; then
    if [ "$state" = run ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $name"; fi
    continue
  fi
  grep -E '^ok .*# SKIP' "$tap" | sed "s/^ok - \(.*[^ ]\) *# SKIP/SKIPPED: \1:/" || true
  bad=$(grep -cE '^not ok' "$tap" || true)
  skips=$(grep -cE '^ok .*# SKIP' "$tap" || true)
  good=$(($(grep -cE '^ok' "$tap" || true) - skips))
  grep -E '^not ok' "$tap" | sed 's/^not ok - /FAILED: /' || true
  if [ "$bad" -eq 0 ] && [ "$state" != run ]; then
    bad=1
    echo "FAILED: $name ended badly without a test to blame"
  fi
  passed=$((passed + good)) failed=$((failed + bad)) skipped=$((skipped + skips))
done <"$build/tests/programs"

if [ $((passed + failed)) -eq 0 ]; then
  echo "no test was run" >&2
  failed=1
fi
[ "$status" -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
echo "$passed $failed $skipped" >"$build/tests/counts"
summary="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || summary="$summary, $skipped skipped"
echo "$summary"
[ "$failed" -eq 0 ]
