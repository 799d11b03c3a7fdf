#!/usr/bin/env bash
# The batch scripts of jobs/slurm as they are, on a Slurm of our own: two nodes on this machine, in a temporary folder.
# quantize.sbatch is signalled in the middle, requeued and finished; its store is a plain mpirun's, byte for byte;
# evaluate.sbatch tells a plain mpirun's figures.
# The last line is "N passed, N failed"; "0 passed, 0 failed, 1 skipped" where Slurm is neither there nor to be installed.
#   --no-install   leave the system's packages alone
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
root=$PWD

install=yes
if [ "${1:-}" = --no-install ]; then install=no; shift; fi
[ $# -eq 0 ] || { echo "tests/slurm/run.sh: \"$1\" is no option; usage: tests/slurm/run.sh [--no-install]" >&2; exit 2; }

# Slurm's daemons lie where only root's PATH leads.
PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d "${TMPDIR:-/tmp}/qdist-slurm.XXXXXX") || exit 1
passed=0 failed=0 skipped=0

# ---- the end, whatever happens -----------------------------------------------------------------------------------------------

# Everything that Slurm or a job started carries the path of our configuration in its environment.
ours() { grep -lsxzF "SLURM_CONF=$work/slurm.conf" /proc/[0-9]*/environ | cut -d / -f 3; }
none_of_ours() { [ -z "$(ours)" ]; }

end_ours() {
  local signal
  for signal in TERM KILL; do
    ours | xargs -r kill -s "$signal" 2>/dev/null
    await 10 none_of_ours && return 0
  done
  echo "processes of Slurm are left: $(ours | xargs)" >&2
}

# At its end munged writes a seed into our folder: only after that the folder can go.
end_munged() {
  kill "$1" 2>/dev/null && ! await 5 is_gone "$1" && kill -KILL "$1"
}
is_gone() { ! kill -0 "$1" 2>/dev/null; }

tear_down() {
  trap '' INT TERM HUP
  if [ -n "${SLURM_CONF:-}" ]; then
    brief scancel --user="$(id -un)" 2>/dev/null && await 20 no_jobs
    export -n SLURM_CONF # our own helpers are none of them
    end_ours
  fi
  [ ! -f "$work/munged.pid" ] || end_munged "$(cat "$work/munged.pid")"
  rm -rf "$work"
}
trap tear_down EXIT
trap 'exit 130' INT TERM HUP

finish() { # counts for .ci/run
  mkdir -p "$root/build/tests"
  echo "$passed $failed $skipped" >"$root/build/tests/slurm.counts"
  local summary="$passed passed, $failed failed"
  [ "$skipped" -eq 0 ] || summary="$summary, $skipped skipped"
  echo "$summary"
  [ "$failed" -eq 0 ]
  exit
}

pass() { passed=$((passed + 1)); echo "ok: slurm: $1"; }
skip() { skipped=1; echo "SKIPPED: slurm: $1"; finish; }
fail() { # what the next steps need is missing: all logs, and the end
  failed=$((failed + 1))
  local log
  for log in "$work"/log/*.log "$work"/*.log; do
    [ ! -s "$log" ] || { echo "---- ${log##*/}"; tail -n 40 "$log"; }
  done >&2
  echo "FAILED: slurm: $1"
  finish
}

# ---- waiting, always with an end ---------------------------------------------------------------------------------------------

brief() { timeout --kill-after=5 20 "$@"; } # a client of Slurm may wait for a daemon that is gone

await() { # await SECONDS COMMAND...: until it holds
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.1
  done
}

no_jobs() { [ -z "$(brief squeue --noheader 2>/dev/null)" ]; }
field() { brief scontrol --oneliner show job "$1" 2>/dev/null | tr ' ' '\n' | sed -n "s/^$2=//p" | head -n 1; } # field JOB NAME
state_is() { [[ " ${*:2} " == *" $(field "$1" JobState) "* ]]; }
says() { grep -q -e "$2" "$1" 2>/dev/null; }
ended() { state_is "$1" COMPLETED FAILED CANCELLED TIMEOUT NODE_FAIL OUT_OF_MEMORY; }
says_or_ended() { says "$1" "$2" || ended "$3"; }

# ---- Slurm on this machine ---------------------------------------------------------------------------------------------------

commands=(sbatch scancel scontrol sinfo squeue slurmctld slurmd munged mungekey)
missing() { local c; for c in "${commands[@]}"; do command -v "$c" >/dev/null || echo "$c"; done; }

if [ -n "$(missing)" ] && [ "$install" = yes ]; then jobs/dependencies.sh slurm-wlm munge >&2; fi
[ -z "$(missing)" ] || skip "there is no $(missing | xargs) here, and the packages slurm-wlm and munge could not be installed"

free_port() { # free_port FIRST: the first from there on that nobody listens on
  local port=$1
  while { : <"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null; do port=$((port + 1)); done
  echo "$port"
}

# cred_expire is also how long a requeued job rests before it starts again (by default two minutes).
configure() {
  local user host port node
  user=$(id -un) host=$(hostname -s)
  port=$(free_port $((20000 + $$ % 10000)))
  mkdir -p "$work"/{log,state,spool/n1,spool/n2,tmp/n1,tmp/n2}
  cat >"$work/slurm.conf" <<END
ClusterName=qdist
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket,cred_expire=5
SlurmUser=$user
SlurmdUser=$user
SlurmctldPidFile=$work/slurmctld.pid
SlurmctldLogFile=$work/log/slurmctld.log
StateSaveLocation=$work/state
SlurmdPidFile=$work/slurmd.%n.pid
SlurmdLogFile=$work/log/slurmd.%n.log
SlurmdSpoolDir=$work/spool/%n
SlurmdParameters=config_overrides
TmpFS=$work/tmp/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MailProg=/bin/true
END
  for node in n1 n2; do
    port=$(free_port $((port + 1)))
    echo "NodeName=$node NodeHostname=$host NodeAddr=127.0.0.1 Port=$port CPUs=16 CoresPerSocket=16 RealMemory=1000"
  done >>"$work/slurm.conf"
  echo "PartitionName=qdist Nodes=ALL Default=YES MaxTime=INFINITE State=UP" >>"$work/slurm.conf"
}

start() { # start NAME COMMAND...: a daemon, which puts itself behind
  timeout --kill-after=5 30 "${@:2}" >>"$work/log/$1.start.log" 2>&1 </dev/null || fail "$1 does not start"
}

nodes_are_up() { [ "$(brief sinfo --noheader --Node --states=idle 2>/dev/null | wc -l)" -eq 2 ]; }

bring_up() {
  configure
  mungekey --create --keyfile="$work/munge.key" || fail "mungekey makes no key"
  start munged munged --force --key-file="$work/munge.key" --socket="$work/munge.socket" --pid-file="$work/munged.pid" \
    --log-file="$work/log/munged.log" --seed-file="$work/munge.seed"
  export SLURM_CONF=$work/slurm.conf
  start slurmctld slurmctld
  start slurmd.n1 slurmd -N n1
  start slurmd.n2 slurmd -N n2
  await 60 nodes_are_up || fail "the two nodes are not up after a minute"
}

# ---- the jobs ----------------------------------------------------------------------------------------------------------------

# shellcheck source=jobs/environment.sh
. jobs/environment.sh
slots_by_slurm() { unset OMPI_MCA_rmaps_base_oversubscribe PRTE_MCA_rmaps_default_mapping_policy; }

{ cmake -S . -B build && cmake --build build --target qdist -j "$(nproc)"; } >"$work/build.log" 2>&1 || fail "the build fails"

# Small, yet long enough to be met in the middle.
export QDIST_PROGRAM=$root/build/qdist QDIST_THREADS=1
export QDIST_MODEL=$root/jobs/demo/qdist-tiny QDIST_DATASET=$root/docs/formats.md QDIST_OUTPUT=$work/store
export QDIST_OPTIONS="--method gptq --bits 4 --group-size 128 --nsamples 128 --seqlen 128 --isa avx2"
export QDIST_EVALUATE_DATASET=$root/docs/formats.md QDIST_EVALUATE_OPTIONS="--seqlen 128 --max-windows 8"
export QDIST_REPORT=$work/report.json

# plain COMMAND OPTION...: by mpirun alone, with another number of ranks; behind, so that a signal to us is not kept waiting.
plain() {
  timeout --kill-after=10 300 mpirun -np 3 build/qdist "$@" 2>>"$work/plain.log" </dev/null &
  wait $!
}

submit() { # submit SCRIPT [OPTION...]: its job's number
  (slots_by_slurm && cd "$work" && brief sbatch --parsable "${@:2}" "$root/jobs/slurm/$1" 2>>"$work/sbatch.log")
}

same_stores() { # but logs, and the job's file, which names the output
  local a b name
  a=$(cd "$work/plain" && find . -type f ! -name '*.log' ! -name job.yaml | LC_ALL=C sort)
  b=$(cd "$work/store" && find . -type f ! -name '*.log' ! -name job.yaml | LC_ALL=C sort)
  [ -n "$a" ] && [ "$a" = "$b" ] || { diff <(echo "$a") <(echo "$b") >&2; return 1; }
  while read -r name; do cmp "$work/plain/$name" "$work/store/$name" >&2 || return 1; done <<<"$a"
}

figures() { grep -v '"model"\|host_bytes"\|"seconds"' "$1"; }

bring_up
# Shared memory between the two nodes would be taken for one node's.
export OMPI_MCA_btl=tcp,self

quantize=$(submit quantize.sbatch) || fail "quantize.sbatch is not accepted"
evaluate=$(submit evaluate.sbatch --dependency="afterok:$quantize") || fail "evaluate.sbatch is not accepted"
log=$work/qdist-quantize-$quantize.log

await 240 says_or_ended "$log" '^1 of 6 blocks on disk;' "$quantize"
says "$log" '^1 of 6 blocks on disk;' || fail "no block is done"
brief scancel --signal=USR1 --batch "$quantize" || fail "the job cannot be signalled"
await 120 says_or_ended "$log" 'qdist ended with' "$quantize"
says "$log" 'qdist ended with 75' || fail "the signalled job does not end with 75"
! says "$log" '^6 of 6 blocks on disk;' || fail "the signal came after the last block"
await 30 state_is "$quantize" PENDING RUNNING COMPLETED || fail "the job is not requeued: $(field "$quantize" JobState)"
pass "the signal ends the job with 75, and it is requeued"

await 300 ended "$quantize"
state_is "$quantize" COMPLETED && [ "$(field "$quantize" Restarts)" = 1 ] \
  || fail "the requeued job ends as $(field "$quantize" JobState)"
says "$log" 'start 0 on' && says "$log" 'start 1 on' || fail "the second start is not in the same log"
says "$log" 'going on with .*[1-5] of 6 blocks are there' || fail "the requeued job does not go on where it stopped"
[ "$(grep -c '^[1-6] of 6 blocks on disk;' "$log")" -eq 6 ] || fail "a block was done twice or not at all"
pass "the requeued job goes on and finishes, in the same log"

# shellcheck disable=SC2086 # options: several words
plain quantize --model "$QDIST_MODEL" --dataset "$QDIST_DATASET" --output "$work/plain" $QDIST_OPTIONS \
  || fail "plain mpirun quantizes nothing"
same_stores || fail "its store differs from a plain mpirun's"
pass "its store is a plain mpirun's, byte for byte"

await 300 ended "$evaluate"
state_is "$evaluate" COMPLETED || fail "evaluate.sbatch ends as $(field "$evaluate" JobState)"
# shellcheck disable=SC2086
plain evaluate --model "$work/plain" --dataset "$QDIST_EVALUATE_DATASET" $QDIST_EVALUATE_OPTIONS --json >"$work/plain.json" \
  || fail "plain mpirun evaluates nothing"
says "$QDIST_REPORT" '"perplexity"' && diff <(figures "$work/plain.json") <(figures "$QDIST_REPORT") >&2 \
  || fail "evaluate.sbatch and a plain mpirun tell different figures"
pass "evaluate.sbatch runs after it and tells the figures of a plain mpirun"

refused=$(QDIST_OPTIONS="--bits 99" submit quantize.sbatch) || fail "quantize.sbatch is not accepted again"
await 120 ended "$refused"
state_is "$refused" FAILED && [ "$(field "$refused" ExitCode)" = 2:0 ] && [ "$(field "$refused" Restarts)" = 0 ] \
  || fail "a job of wrong options ends as $(field "$refused" JobState) $(field "$refused" ExitCode), not with 2"
pass "a job that fails ends with qdist's exit code and is not requeued"

finish
