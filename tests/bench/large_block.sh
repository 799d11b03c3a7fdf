#!/usr/bin/env bash
# One block of a large model's shape, with synthetic bf16 weights: quantized on one rank within a limit of its address space, then,
# with --ranks N, on N ranks as well, whose store must be the same to the byte.  Prints plan, peak and where the time went.
#   --shape llama70b|half   hidden 8192, ffn 28672, 64 heads, 8 kv heads, 8 sequences of 2048 tokens (default); or half of each width
#                           and of each sequence, an eighth of the work
#   --ranks N               compare with N ranks (none)
#   --limit GIB             address space of a rank (24)
#   --build DIR             (build); its targets qdist and make_llama are brought up to date
#   --folder DIR            where model and stores go (a temporary folder, removed in the end); a model that is there is used again
# Whatever else is given goes to qdist quantize.  llama70b takes 14 GiB of memory, 3 GB of disk and half an hour of a core.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)

shape=llama70b
ranks=
limit=24
build=$root/build
folder=
options=()

while [ $# -gt 0 ]; do
  case $1 in
    --shape | --ranks | --limit | --build | --folder)
      [ $# -ge 2 ] || { echo "large_block.sh: $1 needs a value" >&2; exit 2; }
      case $1 in
        --shape) shape=$2 ;;
        --ranks) ranks=$2 ;;
        --limit) limit=$2 ;;
        --build) build=$2 ;;
        --folder) folder=$2 ;;
      esac
      shift
      ;;
    -h | --help)
      sed -n '2,/^set /{s/^# \{0,1\}//p}' "$0"
      exit 0
      ;;
    *) options+=("$1") ;;
  esac
  shift
done

case $shape in
  llama70b) widths=(8192 28672 64 8) tokens=2048 ;;
  half) widths=(4096 14336 32 4) tokens=1024 ;;
  *) echo "large_block.sh: there is no shape \"$shape\": llama70b or half" >&2; exit 2 ;;
esac

. "$root/jobs/environment.sh"
cmake --build "$build" --target qdist make_llama >/dev/null
if [ -z "$folder" ]; then
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
fi
model=$folder/$shape
text=$folder/$shape.i32
if [ ! -f "$text" ]; then
  mkdir -p "$model"
  "$build/tests/make_llama" "$model" "$text.part" 1 "${widths[@]}" 512 "$tokens" $((8 * tokens))
  mv "$text.part" "$text"
fi

job=(-m "$model" -d "$text" --nsamples 8 --seqlen "$tokens" "${options[@]}")
"$build/qdist" plan "${job[@]}"

# A limit that the system keeps: a job that passes it fails.
quantize() { # RANKS OUTPUT
  local launch=()
  [ "$1" = 1 ] || launch=(mpirun -np "$1")
  rm -rf "$2"
  (
    ulimit -v $((limit * 1024 * 1024))
    "${launch[@]}" "$build/qdist" quantize "${job[@]}" -o "$2"
  )
  sed -n 's/^[^ ]* \(seconds \|rank [0-9]\)/\1/p' "$2/qdist.log"
}

quantize 1 "$folder/$shape-1"
if [ -n "$ranks" ]; then
  quantize "$ranks" "$folder/$shape-$ranks"
  diff -r --exclude=qdist.log "$folder/$shape-1" "$folder/$shape-$ranks"
  echo "1 and $ranks ranks: the same store"
fi
