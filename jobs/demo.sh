#!/usr/bin/env bash
# Quantize a small model on this machine and tell what it cost: install what is missing, build, fetch two texts, quantize with four
# ranks, evaluate.  jobs/demo.sh [--model MODEL] [--dataset FILE]: any other model (a folder or a GGUF file; smollm2-135m is fetched),
# any other calibration text.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
model=$root/jobs/demo/qdist-tiny
dataset=
ranks=4

usage() {
  echo "jobs/demo.sh: $1; usage: jobs/demo.sh [--model MODEL] [--dataset FILE]" >&2
  exit 2
}

while [ $# -gt 0 ]; do
  case $1 in
    --model | --dataset)
      [ $# -ge 2 ] || usage "$1 needs a value"
      if [ "$1" = --model ]; then model=$2; else dataset=$2; fi
      shift
      ;;
    -h | --help)
      echo "jobs/demo.sh [--model MODEL] [--dataset FILE]: quantize a small model (or another, a folder or a GGUF file) with four ranks and"
      echo "tell what it cost; --model smollm2-135m fetches that model first (94 MB)"
      exit 0
      ;;
    *) usage "\"$1\" is no option" ;;
  esac
  shift
done
[ -z "$dataset" ] || [ -e "${dataset#*:}" ] || usage "there is no file $dataset"
if [ "$model" = smollm2-135m ] && [ ! -e "$model" ]; then model=$("$root/jobs/fetch-smollm2.sh") || exit 1; fi
if [ ! -f "$model" ] && [ ! -f "$model/config.json" ]; then usage "$model is no GGUF file, nor a folder with config.json"; fi

fail() {
  echo "jobs/demo.sh: $1" >&2
  exit 1
}

"$root/jobs/dependencies.sh"
# shellcheck source=jobs/environment.sh
. "$root/jobs/environment.sh"

work=$root/build/demo
mkdir -p "$work"
echo "building (log: build/demo/build.log)"
{ cmake -S "$root" -B "$root/build" && cmake --build "$root/build" --target qdist qdist_h5zstd -j "$(nproc)"; } >"$work/build.log" 2>&1 \
  || { tail -n 20 "$work/build.log" >&2; fail "the build failed"; }
qdist=$root/build/qdist

# ---- texts -------------------------------------------------------------------------------------------------------------------

download() { # a Debian package into the current folder, as any user
  local quiet=(-qq)
  [ "$(id -u)" != 0 ] || quiet+=(-o APT::Sandbox::User=root)
  apt-get "${quiet[@]}" download "$1" && return 0
  [ "$(id -u)" = 0 ] || return 1
  apt-get -qq update && apt-get "${quiet[@]}" download "$1"
}

fetch() { # fetch PACKAGE MEMBER: the text of a member of a Debian package, in $work/PACKAGE.txt
  local text=$work/$1.txt folder=$work/$1.deb.d
  [ ! -s "$text" ] || return 0
  rm -rf "$folder"
  mkdir -p "$folder"
  if (cd "$folder" && download "$1") >"$work/$1.log" 2>&1 && dpkg-deb -x "$folder"/"$1"_*.deb "$folder" >>"$work/$1.log" 2>&1; then
    gzip -dc "$folder/$2" >"$text.part"
  elif [ -f "/$2" ]; then
    gzip -dc "/$2" >"$text.part"
  else
    tail -n 3 "$work/$1.log" >&2
    fail "the text of the Debian package $1 could not be fetched (apt-get download $1): is there a network, and did apt-get update ever run? \
--dataset FILE takes any text for calibration; $1's goes to $text by hand as well."
  fi
  mv "$text.part" "$text"
  rm -rf "$folder"
}

fetch debian-policy usr/share/doc/debian-policy/policy.txt.gz
evaluation=$work/debian-policy.txt
if [ -z "$dataset" ]; then
  fetch debian-faq usr/share/doc/debian/FAQ/debian-faq.en.txt.gz
  dataset=$work/debian-faq.txt
fi

# ---- quantize and evaluate ---------------------------------------------------------------------------------------------------

run() { # run LOG COMMAND...: shows the command as one would type it; its standard output is ours
  local log=$1 command status=0
  shift
  command="$*"
  echo "\$ ${command//$root\//}" >&2
  "$@" 2>"$log" || status=$?
  [ "$status" -eq 0 ] || { cat "$log" >&2; fail "this ended with $status: ${command//$root\//}"; }
}

watch() { # as run; the lines of finished blocks are shown as they come
  local log=$1 command="${*:2}"
  shift
  echo "\$ ${command//$root\//}" >&2
  "$@" 2>&1 >/dev/null | tee "$log" | sed -un '/^calibration:/p; /^first sequence:/p; /^[0-9]* of [0-9]* blocks on disk/p; /^wrote /p' >&2 \
    || { cat "$log" >&2; fail "this failed: ${command//$root\//}"; }
}

number() { # number KEY FILE: the first value of KEY in printed JSON
  sed -n "s/.*\"$1\": *\(-\{0,1\}[0-9][0-9.eE+-]*\).*/\1/p" "$2" | head -n 1
}

round() { # round DIGITS NUMBER
  if [ -n "$2" ]; then LC_ALL=C awk -v n="$2" -v digits="$1" 'BEGIN { printf "%.*f", digits, n }'; else echo -; fi
}

mebibytes() { round 2 "$(LC_ALL=C awk -v n="$1" 'BEGIN { print n / 1048576 }')"; }

evaluate() { # evaluate NAME MODEL [OPTION...]
  run "$work/$1.evaluate.log" mpirun -np $ranks "$qdist" evaluate --model "$2" --dataset "$evaluation" --seqlen 512 --max-windows 64 --json \
    "${@:3}" >"$work/$1.json"
}

table=$work/table
row() { printf '%-12s %-9s %9s %10s %11s %10s %8s\n' "$@"; }
row model method bits/w MiB perplexity "KL (nats)" seconds >"$table"

evaluate original "$model"
bytes=$(find -L "$model" -maxdepth 1 \( -name '*.safetensors' -o -name '*.gguf' \) -printf '%s\n' | awk '{ n += $1 } END { print n + 0 }')
if [ -f "$model" ]; then # its bits are those of the file, shared among its weights
  name=$(basename "$model" .gguf)
  run "$work/models.log" "$qdist" models --model-path "$(dirname "$model")" --json >"$work/models.json"
  weights=$(sed -n "/\"name\": \"$name.gguf\"/,/}/s/.*\"parameters\": \([0-9]*\).*/\1/p" "$work/models.json" | head -n 1)
  bits=$(LC_ALL=C awk -v b="$bytes" -v n="$weights" 'BEGIN { print(n ? 8 * b / n : "") }')
else
  name=$(basename "$(cd "$model" && pwd)")
  bits=$(sed -n 's/.*"\(torch_\)\{0,1\}dtype": *"\(b\{0,1\}float\)\([0-9]*\)".*/\3/p' "$model/config.json" | head -n 1)
fi
row "${name:0:12}" original "$(round 2 "$bits")" "$(mebibytes "$bytes")" "$(round 4 "$(number perplexity "$work/original.json")")" - - >>"$table"

quantize() { # quantize METHOD BITS: a row of the table
  local output=$work/out-$1-$2 begin end bytes
  rm -rf "$output" # a finished store would be left as it is
  begin=$(date +%s.%N)
  watch "$work/$1-$2.quantize.log" mpirun -np $ranks "$qdist" quantize --model "$model" --method "$1" --bits "$2" --group-size 128 \
    --dataset "$dataset" --nsamples 64 --seqlen 512 --output "$output"
  end=$(date +%s.%N)
  run "$work/$1-$2.inspect.log" "$qdist" inspect "$output" --json >"$work/$1-$2.inspect.json"
  evaluate "$1-$2" "$output" --reference "$model"
  bytes=$(du -sb "$output" | cut -f 1)
  row "${name:0:12}" "$1 $2" "$(round 2 "$(number bits_per_weight "$work/$1-$2.inspect.json")")" "$(mebibytes "$bytes")" \
    "$(round 4 "$(number perplexity "$work/$1-$2.json")")" "$(round 5 "$(number kl_mean "$work/$1-$2.json")")" \
    "$(round 1 "$(LC_ALL=C awk -v a="$begin" -v b="$end" 'BEGIN { print b - a }')")" >>"$table"
}

quantize gptq 4
quantize gptq 3
quantize rtn 3

echo
cat "$table"
echo
echo "Calibrated on ${dataset//$root\//}, 64 sequences of 512 tokens; evaluated on ${evaluation//$root\//}, 64 windows of 512."
echo "bits/w: of the quantized weights, scales and zeros included; MiB: all files; seconds: quantization, $ranks ranks."
