#!/usr/bin/env bash
# qdist beside llama.cpp: the same model, text and cores, in turns, medians.  llama.cpp comes by pip (llama-cpp-python, built
# for this CPU), the model from jobs/fetch-smollm2.sh.  Theirs: the file as it is (Q4_1, head Q8_0) and requantized to Q4_0 by
# their own quantizer (head Q8_0), the type that they repack for this CPU.  Ours, made from the same file: GPTQ with 4 bits in
# groups of 64, and SpQR with about 3.99 bits in the blocks, heads with 8 bits.
#   evaluate   windows of 512 tokens with the logits of all of them; ours is the command's whole time with loading and NLL,
#              theirs llama_decode alone; "whole" counts their loading too, and our whole process
#   generate   one sequence, greedy, tokens a second behind the first new one, behind a few tokens and behind 512; "prompt" are
#              the 512; loading is left out on both sides
#   --arithmetic A,...  ours (f32,int8)
#   --windows N         of the evaluation (16)
#   --new-tokens N      to generate (128)
#   --rounds N          (5)
#   --threads N,...     (1,2); each is tied to as many of the cores that this shell may use
#   --text FILE         evaluated, and calibrated with (the pages of docs/)
#   --build DIR         (build); its target qdist is brought up to date
#   --venv DIR          llama-cpp-python, made once (BUILD/llama-cpp-venv): 20 minutes of a core
#   --folder DIR        models, stores, results (BUILD/against-llama-cpp); what is there is used again
#   --json              one JSON object on stdout instead of the table
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
package=llama-cpp-python version=0.3.36

arithmetics=f32,int8 windows=16 new=128 rounds=5 threads=1,2 build=$root/build json=no
text="" venv="" folder=""

usage() {
  echo "against_llama_cpp.sh: $1; see --help" >&2
  exit 2
}

fail() {
  echo "against_llama_cpp.sh: $1" >&2
  exit 1
}

while [ $# -gt 0 ]; do
  case $1 in
    --arithmetic | --windows | --new-tokens | --rounds | --threads | --text | --build | --venv | --folder)
      [ $# -ge 2 ] || usage "$1 needs a value"
      case $1 in
        --arithmetic) arithmetics=$2 ;;
        --windows) windows=$2 ;;
        --new-tokens) new=$2 ;;
        --rounds) rounds=$2 ;;
        --threads) threads=$2 ;;
        --text) text=$2 ;;
        --build) build=$2 ;;
        --venv) venv=$2 ;;
        --folder) folder=$2 ;;
      esac
      shift
      ;;
    --json) json=yes ;;
    -h | --help)
      sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0"
      exit 0
      ;;
    *) usage "\"$1\" is no option" ;;
  esac
  shift
done
for number in "$windows" "$new" "$rounds" ${threads//,/ }; do
  [[ $number =~ ^[1-9][0-9]{0,5}$ ]] || usage "\"$number\" is no number from 1 on"
done
[ "$new" -ge 2 ] || usage "--new-tokens 1 leaves nothing behind the first"
[ -z "$text" ] || [ -f "$text" ] || usage "there is no file $text"
venv=${venv:-$build/llama-cpp-venv} folder=${folder:-$build/against-llama-cpp}
python=$venv/bin/python
qdist=$build/qdist

# Cores that this shell may use, one a line.
cores() { taskset -cp $$ | sed 's/.*: //' | tr , '\n' | awk -F- '{ for (c = $1; c <= (NF > 1 ? $2 : $1); c++) print c }'; }
for t in ${threads//,/ }; do [ "$t" -le "$(cores | wc -l)" ] || usage "--threads $t: there are $(cores | wc -l) cores"; done

say() { echo "$*" >&2; }

# shellcheck source=jobs/environment.sh
. "$root/jobs/environment.sh"
cmake --build "$build" --target qdist >/dev/null
mkdir -p "$folder"

# ---- llama.cpp

has_package() {
  [ -x "$python" ] && "$python" -c "
import importlib.metadata, sys
sys.exit(importlib.metadata.version('$package') != '$version')" 2>/dev/null
}

if ! has_package; then
  say "building $package $version in $venv (log: $folder/build.log)"
  python3 -m venv "$venv" || fail "python3 with venv is needed (Debian: python3-venv)"
  CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" CMAKE_BUILD_PARALLEL_LEVEL=$(nproc) nice "$python" -m pip install --verbose \
    --disable-pip-version-check --no-input --no-binary "$package" "$package==$version" >"$folder/build.log" 2>&1 \
    || { tail -n 3 "$folder/build.log" >&2; fail "$package could not be built with pip: is there a network?"; }
fi

cpus=$(cores | paste -sd, -)

# Without our settings for OpenMP: theirs are their own.
theirs() { taskset -c "$cpus" env -u OMP_NUM_THREADS -u OMP_WAIT_POLICY "$python" "$here/run_llama_cpp.py" "$@"; }

ours() { # the command's JSON
  taskset -c "$cpus" "$qdist" "$@" --json 2>"$folder/ours.log" || { tail -n 1 "$folder/ours.log" >&2; fail "qdist $1 failed"; }
}

# ---- models

gguf=$("$root/jobs/fetch-smollm2.sh" "$build/models")
calibration=16
if [ -z "$text" ]; then
  text=$folder/text.txt
  cat "$root"/docs/*.md >"$text"
fi
theirs prepare "$gguf" "$text" "$folder" "$windows" "$calibration"

make_store() { # NAME OPTION...
  local store=$folder/$1
  shift
  [ ! -f "$store/manifest.json" ] || return 0
  say "quantizing: $store"
  "$qdist" quantize -m "$gguf" -d "$folder/calibration.i32" --nsamples "$calibration" --seqlen 512 --quant-lm-head 8 "$@" \
    -o "$store" >"$store.log" 2>&1 || { tail -n 3 "$store.log" >&2; fail "qdist quantize failed"; }
}

make_store gptq --method gptq -b 4 -g 64 --quant-embeddings 8
# 3.99 bits in the blocks: with 8 bits in a head that is a fifth of the weights, 5.04 over all that is quantized.
make_store spqr --method spqr --avg-bits 5.04

sides=()
for arithmetic in ${arithmetics//,/ }; do
  if "$qdist" evaluate --help | grep -E -- "--arithmetic=.*\<$arithmetic(\||\$)" >/dev/null; then
    sides+=("$arithmetic")
  else
    say "against_llama_cpp.sh: WITHOUT $arithmetic, an arithmetic that this qdist does not know"
  fi
done

# ---- measuring

results=$folder/results.txt # lines: threads, side, model, what, value
: >"$results"

note() { # THREADS SIDE MODEL, lines "what value" on stdin
  awk -v of="$1 $2 $3" '{ print of, $0 }' >>"$results"
}

figure() { sed -n "s/^ *\"$1\": \([-+.0-9e]*\),\{0,1\}\$/\1/p"; } # NAME, of the JSON on stdin

run_theirs() { # FILE MODEL THREADS
  theirs evaluate "$1" "$folder/evaluation.i32" "$3" | note "$3" llama.cpp "$2"
  for prompt in short long; do
    theirs generate "$1" "$folder/$prompt.i32" "$3" "$new" | sed "s/^/$prompt./" | note "$3" llama.cpp "$2"
  done
}

# Our tokens must be theirs.
same_prompt() { # PROMPT JSON
  diff -q <(sed -n '/"prompt_ids"/,/\]/p' <<<"$2" | grep -oE '[0-9]+') \
    <(od -An -v -t d4 -w4 "$folder/$1.i32" | tr -d ' ') >/dev/null
}

run_ours() { # ARITHMETIC MODEL THREADS
  local json start=$EPOCHREALTIME end
  json=$(ours evaluate -m "$folder/$2" -d "$folder/evaluation.i32" --seqlen 512 --arithmetic "$1" -t "$3")
  end=$EPOCHREALTIME
  {
    echo "perplexity $(figure perplexity <<<"$json")"
    awk -v n=$((windows * 512)) -v s="$(figure seconds <<<"$json")" -v whole="$end - $start" \
      'BEGIN { split(whole, t, " - "); print "tokens_per_second", n / s; print "whole_tokens_per_second", n / (t[1] - t[2]) }'
  } | note "$3" "$1" "$2"
  for prompt in short long; do
    json=$(ours generate -m "$folder/$2" --prompt-file "$folder/$prompt.txt" --max-new-tokens "$new" --arithmetic "$1" -t "$3")
    same_prompt "$prompt" "$json" || fail "the prompt $prompt.txt has other tokens in qdist than in llama.cpp"
    [ "$(figure new_tokens <<<"$json")" = "$new" ] || say "$1 $2: fewer than $new tokens behind $prompt.txt: it came to an end"
    for what in prompt_tokens_per_second new_tokens_per_second; do echo "$prompt.$what $(figure $what <<<"$json")"; done \
      | note "$3" "$1" "$2"
  done
}

before=$(cut -d ' ' -f 1-3 /proc/loadavg)
cpu=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
compiler=$(cc --version | head -n 1)
theirs describe "$gguf" "$folder/q4_0.gguf" >"$folder/llama_cpp.txt"
for t in ${threads//,/ }; do
  cpus=$(cores | head -n "$t" | paste -sd, -)
  for round in $(seq "$rounds"); do
    say "$t threads, round $round of $rounds, load $(cut -d ' ' -f 1 /proc/loadavg)"
    run_theirs "$folder/q4_0.gguf" q4_0 "$t"
    run_theirs "$gguf" q4_1 "$t"
    for arithmetic in "${sides[@]}"; do
      run_ours "$arithmetic" gptq "$t"
      run_ours "$arithmetic" spqr "$t"
    done
  done
done
after=$(cut -d ' ' -f 1-3 /proc/loadavg)

# The same work, measured alike: the original file's perplexity is theirs but for their rounding of activations to 8 bits.
original=$(ours evaluate -m "$gguf" -d "$folder/evaluation.i32" --seqlen 512 -t "$(cores | wc -l)" | figure perplexity)
theirs_ppl=$(awk '$2 == "llama.cpp" && $3 == "q4_1" && $4 == "perplexity" { print $5; exit }' "$results")
awk -v a="$original" -v b="$theirs_ppl" 'BEGIN { exit !(a / b > 0.98 && a / b < 1.02) }' \
  || fail "perplexity of $gguf: ours $original, llama.cpp's $theirs_ppl: not the same text or model"

# ---- telling

# Lines: threads side model what median least most, in the order in which they came.
medians() {
  awk '{ key = $1 " " $2 " " $3 " " $4; if (!(key in n)) order[++keys] = key; value[key, ++n[key]] = $5 }
    END {
      for (k = 1; k <= keys; k++) {
        key = order[k]; m = n[key]
        for (i = 1; i <= m; i++) v[i] = value[key, i] + 0
        for (i = 2; i <= m; i++) for (j = i; j > 1 && v[j] < v[j - 1]; j--) { x = v[j]; v[j] = v[j - 1]; v[j - 1] = x }
        print key, m % 2 ? v[(m + 1) / 2] : (v[m / 2] + v[m / 2 + 1]) / 2, v[1], v[m]
      }
    }' "$results"
}

quoted() { sed 's/\\/\\\\/g; s/"/\\"/g; s/.*/"&"/'; }

print_json() {
  printf '{"cpu": %s, "compiler": %s, "load_before": "%s", "load_after": "%s",\n' "$(quoted <<<"$cpu")" \
    "$(quoted <<<"$compiler")" "$before" "$after"
  printf ' "llama_cpp": [%s],\n' "$(quoted <"$folder/llama_cpp.txt" | paste -sd, -)"
  printf ' "windows": %s, "new_tokens": %s, "rounds": %s, "perplexity_of_original": %s,\n "results": [\n' "$windows" "$new" \
    "$rounds" "$original"
  medians | awk '{
      printf "%s  {\"threads\": %s, \"side\": \"%s\", \"model\": \"%s\", ", (NR > 1 ? ",\n" : ""), $1, $2, $3
      printf "\"what\": \"%s\", \"median\": %s, \"least\": %s, \"most\": %s}", $4, $5, $6, $7
    }
    END { print "\n]}" }'
}

print_table() {
  cat "$folder/llama_cpp.txt"
  echo "cpu $cpu, $compiler"
  echo "load $before before, $after behind; $windows windows of 512, $new new tokens"
  echo "tokens a second: medians (least-most) of $rounds rounds"
  echo "perplexity of $(basename "$gguf"): ours $original, llama.cpp's $theirs_ppl"
  medians | awk '
    {
      row = $1 " " $2 " " $3
      if (!(row in seen)) { seen[row] = 1; order[++rows] = row }
      at[row, $4] = $4 == "perplexity" ? sprintf("%.3f", $5) : sprintf("%.1f (%.1f-%.1f)", $5, $6, $7)
    }
    END {
      rates = "tokens_per_second whole_tokens_per_second long.prompt_tokens_per_second "
      n = split("perplexity " rates "short.new_tokens_per_second long.new_tokens_per_second", what, " ")
      printf "%-26s %10s %23s %23s", "threads side model", "perplexity", "evaluate", "whole"
      printf " %23s %23s %23s\n", "prompt", "generate", "behind 512"
      for (r = 1; r <= rows; r++) {
        printf "%-26s %10s", order[r], at[order[r], what[1]]
        for (i = 2; i <= n; i++) printf " %23s", at[order[r], what[i]]
        printf "\n"
      }
    }'
}

if [ "$json" = yes ]; then print_json; else print_table; fi
