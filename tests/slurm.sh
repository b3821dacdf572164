#!/usr/bin/env bash
# The batch scripts in the queue of a real SLURM: whatever interrupts a job, it ends with the digest of a run alone.
#
# usage: CONSORT=PROGRAM tests/slurm.sh [--long | CASE…]      started by jobs/test.sh
#   --long: also a power cut, and real time limits, which SLURM counts in minutes; CASE…: only these, one after the other
#   uses the SLURM of SLURM_CONF, which has to be one of tests/cluster/slurm-up 3 2, or starts one and ends it
#   WORK_S      how long a run on one core is to take: the trees are counted from a short run on this machine (8)
#   KEEP_LOGS   a folder that the jobs' logs are copied to
# Exit code 3: SKIPPED, with the reason; 1: something failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 70
CONSORT=${CONSORT:-$PWD/target/release/consort}
WORK_S=${WORK_S:-8}

say() { echo "slurm: $*"; }
[ -x "$CONSORT" ] || { say "no program at $CONSORT: cargo build --release"; exit 1; }
WORK=$(mktemp -d)
OWN=
finish() {
    [ -z "$OWN" ] || tests/cluster/slurm-down
    [ -z "${KEEP_LOGS:-}" ] || { mkdir -p "$KEEP_LOGS" && cp "$WORK"/*.log "$KEEP_LOGS"; }
    rm -rf "$WORK"
}
trap finish EXIT
chmod 755 "$WORK"
if [ -z "${SLURM_CONF:-}" ]; then
    export CONSORT_SLURM_DIR=$WORK/slurm
    OWN=1
    tests/cluster/slurm-up 3 2 >"$WORK/up"
    code=$?
    [ "$code" -ne 3 ] || { say "SKIPPED: SLURM cannot be started here"; exit 3; }
    [ "$code" -eq 0 ] || exit 1
    # shellcheck source=/dev/null # written just now
    . "$WORK/up"
fi

# Nodes that claim more cores than there are: without yielding, ranks that wait hold the cores.
export OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
unset FLAGS MODEL CHECKPOINT JOB_FILE FOLDER LAUNCHER PMI
export CONSORT KIND=forest DATA=data/casp.h5 BIND=none
SETTINGS="--target y --max-depth 8"

alone() { # alone WORDS…: the line with the digest of a run without SLURM
    # shellcheck disable=SC2086 # a list
    "$CONSORT" train forest "$DATA" $SETTINGS --threads "${THREADS:-2}" "$@" -o "$WORK/alone-$BASHPID.h5" 2>/dev/null | grep '^digest'
}
# Interruptions have to fall in the middle of the work, on any machine.
took() { # took TREES: milliseconds of a run alone on one core
    local began
    began=$(date +%s%N)
    THREADS=1 alone --trees "$1" >/dev/null || return
    echo $((($(date +%s%N) - began) / 1000000))
}
if ! START_MS=$(took 1) || ! MS=$(took 41); then
    say "a run alone gave no digest"
    exit 1
fi
trees() { echo $((40 * $1 * 1000 / (MS > START_MS ? MS - START_MS : 1) + 20)); } # trees SECONDS
TREES=$(trees "$WORK_S")
LIMIT=$((4 + 2 * START_MS / 1000 + WORK_S / 8))s # Consort stops three seconds before
export EVERY=$((TREES / 20 + 1))steps
DIGEST=$(alone --trees "$TREES") || { say "the run alone gave no digest"; exit 1; }
say "$TREES trees, a checkpoint every $EVERY, a limit of $LIMIT"

submit() { # submit NAME NODE [sbatch words]: the number of the job
    local name=$1 node=$2
    shift 2
    [ "$#" -gt 0 ] && [ -e "${*: -1}" ] || set -- "$@" jobs/train.sbatch
    FLAGS="$SETTINGS --trees ${COUNT:-$TREES} ${WORDS:-}" MODEL=$WORK/$name.h5 CHECKPOINT=$WORK/$name.kept \
        sbatch --parsable --nodes=1 --nodelist="$node" --ntasks=2 --cpus-per-task=1 --time=10 --output="$WORK/$name.log" "$@"
}
wait_until() { # wait_until SECONDS COMMAND…
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.2
    done
}
queued() { # a busy controller that does not answer has said nothing
    local left
    left=$(squeue --noheader --jobs="$1" --states=PENDING,RUNNING,COMPLETING,CONFIGURING 2>&1) || [[ $left == *"Invalid job id"* ]] || return 0
    [[ -n $left && $left != *"Invalid job id"* ]]
}
# A job that was pre-empted is in none of these states for a moment, before it waits again.
over() { ! queued "$1" && sleep 2 && ! queued "$1"; }
state() { scontrol show job "$1" 2>/dev/null | grep -oE "JobState=[A-Z_]+|ExitCode=[0-9]+" | tr '\n' ' '; }
kept() { find "$WORK/$1.kept${2:-}" -name 'step-*' 2>/dev/null | grep . >/dev/null; } # kept NAME [PART]
runs() { grep -c ' job [0-9]*, run [0-9]*,' "$WORK/$1.log"; }
wrong() { # wrong NAME WHY
    say "FAILED: $1: $2; its log:"
    cat "$WORK/$1.log" 2>/dev/null
    return 1
}
# Ended, with the digest of the run alone, after at least so many runs; LIMIT_S for longer ones.
same() { # same NAME JOB RUNS
    wait_until "${LIMIT_S:-240}" over "$2" || { wrong "$1" "not over in time ($(state "$2"))"; scancel "$2"; return 1; }
    grep -xF "$DIGEST" "$WORK/$1.log" >/dev/null || { wrong "$1" "not the '$DIGEST' of a run alone"; return 1; }
    [ "$(runs "$1")" -ge "$3" ] || { wrong "$1" "$(runs "$1") runs, not at least $3"; return 1; }
    say "ok: $1 ($(runs "$1") runs, ${SECONDS} s)"
}

# ---- The cases: each NAME NODE --------------------------------------------------------------------------------------------

quiet() { local job; job=$(submit "$@") && same "$1" "$job" 1; }

# What SLURM does before a time limit.
told() { local job; job=$(submit "$@") && wait_until 60 kept "$1" && scancel --batch --signal=USR1 "$job" && same "$1" "$job" 2; }
told_mpirun() { LAUNCHER=mpirun told "$@"; }

# What an administrator does.
requeued() { local job; job=$(submit "$@") && wait_until 60 kept "$1" && scontrol requeue "$job" && same "$1" "$job" 2; }

# A node that is taken down under the job, and comes back.
node_down() {
    local job
    job=$(submit "$@") && wait_until 60 kept "$1" && scontrol update "NodeName=$2" State=DOWN Reason=test && same "$1" "$job" 2
}

# Somebody's job with more right to the node.
preempted() {
    local job
    job=$(submit "$@") && wait_until 60 kept "$1" &&
        sbatch --quiet --partition=urgent --nodelist="$2" --ntasks=2 --time=1 --output=/dev/null --wrap='sleep 1' && same "$1" "$job" 2
}

# Consort stops in time by itself, again and again.
limited() { local job; job=$(WORDS="--time-limit $LIMIT" submit "$@") && same "$1" "$job" 2; }

# The bound on it; then a person goes on.
bounded() {
    local job
    job=$(WORDS="--time-limit 3s" MAX_REQUEUE=1 submit "$@") && wait_until 240 over "$job" || return
    [ "$(runs "$1")" -eq 2 ] && grep "not started again: it was started again 1 times" "$WORK/$1.log" >/dev/null || { wrong "$1" "not ended after two runs"; return; }
    [ "$(state "$job")" = "JobState=FAILED ExitCode=75 " ] || { wrong "$1" "ended as $(state "$job")"; return; }
    job=$(submit "$@") && same "$1" "$job" 3
}

# The end for good, and the state is kept all the same.
cancelled() {
    local job
    job=$(submit "$@") && wait_until 60 kept "$1" && scancel "$job" && wait_until 60 over "$job" || { wrong "$1" "not over"; return; }
    case $(state "$job") in
        JobState=CANCELLED*) ;;
        *) wrong "$1" "ended as $(state "$job")"; return ;;
    esac
    job=$(submit "$@") && same "$1" "$job" 2 && { grep "goes on after step" "$WORK/$1.log" >/dev/null || wrong "$1" "began anew"; }
}

# A rank that always fails in the same place: a launcher that ends the others by TERM leaves the marker, and nothing is gained.
crashing() {
    local job
    cat >"$WORK/$1.sh" <<'PROGRAM'
#!/usr/bin/env bash
# Keeps one state, then never gets further.
while [ "$1" != --checkpoint ]; do shift; done
[ -e "$2/step-1-a/manifest" ] || { mkdir -p "$2/step-1-a" && touch "$2/step-1-a/manifest"; }
touch "$2/requeue"
exit 137
PROGRAM
    chmod 755 "$WORK/$1.sh"
    job=$(CONSORT=$WORK/$1.sh submit "$@") && wait_until 60 over "$job" || { wrong "$1" "not over"; return; }
    [ "$(runs "$1")" -eq 3 ] && grep "not started again: twice" "$WORK/$1.log" >/dev/null || { wrong "$1" "$(runs "$1") runs, not 3"; return; }
    [ "$(state "$job")" = "JobState=FAILED ExitCode=137 " ] || { wrong "$1" "ended as $(state "$job")"; return; }
    say "ok: $1 ($(runs "$1") runs, ${SECONDS} s)"
}

# A bug: launchers end the other ranks by TERM, which leave the marker; it would come to the same end again.
bug() {
    local job
    cat >"$WORK/$1.sh" <<'PROGRAM'
#!/usr/bin/env bash
while [ "$1" != --checkpoint ]; do shift; done
mkdir -p "$2/step-1-$RANDOM" && touch "$2"/step-1-*/manifest "$2/requeue"
exit 70
PROGRAM
    chmod 755 "$WORK/$1.sh"
    job=$(CONSORT=$WORK/$1.sh submit "$@") && wait_until 60 over "$job" || { wrong "$1" "not over"; return; }
    [ "$(runs "$1")" -eq 1 ] || { wrong "$1" "$(runs "$1") runs, not 1"; return; }
    [ "$(state "$job")" = "JobState=FAILED ExitCode=70 " ] || { wrong "$1" "ended as $(state "$job")"; return; }
    say "ok: $1 ($(runs "$1") runs, ${SECONDS} s)"
}

# Two seeds, one of which is told to stop.
array() {
    local job seed count=$((TREES / 3 + 1))
    job=$(COUNT=$count submit "$@" --array=1-2 --output="$WORK/$1-%a.log" jobs/array.sbatch) || return
    wait_until 60 kept "$1" /seed-2 || { wrong "$1-2" "nothing kept"; return; }
    scancel --batch --signal=USR1 "${job}_2"
    for seed in 1 2; do
        DIGEST=$(alone --trees "$count" --seed "$seed") same "$1-$seed" "${job}_$seed" "$seed" || return
        [ -s "$WORK/$1-$seed.h5" ] || { wrong "$1-$seed" "no model of this seed"; return; }
    done
    [ "$(runs "$1-1")" -eq 1 ] || wrong "$1-1" "was started again with the other"
}

# A script of `consort slurm`, submitted from elsewhere, for a folder with a space: submit_written NAME NODE MINUTES LINES
submit_written() {
    local folder="$WORK/$1 jobs"
    mkdir -p "$folder" && ln -sf "$PWD/data" "$folder/tables" || return
    cat >"$folder/job.toml" <<JOB
kind = "forest"
data = "tables/casp.h5"
target = "y"
max-depth = 8
output = "its model.h5"
checkpoint = "its state"
$4
JOB
    (cd "$folder" && "$CONSORT" slurm job.toml --ntasks-per-node 2 --time "$3" >/dev/null) || return
    ! command -v shellcheck >/dev/null || shellcheck -S warning "$folder/job.sbatch" >&2 || return
    cd / && sbatch --parsable --nodelist="$2" --output="$WORK/$1.log" "$folder/job.sbatch"
}
written() {
    local job
    job=$(submit_written "$@" 10 "trees = $TREES
every = \"$EVERY\"
time-limit = \"$LIMIT\"") && same "$1" "$job" 2 || return
    [ -s "$WORK/$1 jobs/its model.h5" ] || wrong "$1" "no model"
}

# Work of minutes, limits of one: the first job knows when it ends, the second is told by --signal and knows nothing.
time_limit() {
    local job count
    count=$(trees 180)
    job=$(submit_written "$@" 1 "trees = $count") || return
    LIMIT_S=900 DIGEST=$(alone --trees "$count") same "$1" "$job" 2 && { grep "stopped by the time limit" "$WORK/$1.log" >/dev/null || wrong "$1" "did not know"; }
}
time_limit_signal() {
    local job count
    count=$(trees 180)
    job=$(COUNT=$count EVERY=5m SLURM_JOB_END_TIME=9999999999 submit "$@" --time=2 --signal=B:USR1@60) || return
    LIMIT_S=900 DIGEST=$(alone --trees "$count") same "$1" "$job" 2 && { grep "stopped by SIGUSR1" "$WORK/$1.log" >/dev/null || wrong "$1" "was not told"; }
}

# All that runs on a node is killed at once, as by a power cut; the job goes on elsewhere.
power_cut() {
    local job node host pid
    job=$(submit "$1" n1,n2 --nodes=2 --ntasks-per-node=1) && wait_until 60 kept "$1" || return
    node=$2
    pid=$(cat "${SLURM_CONF%/*}/slurmd.$node.pid")
    host=$(readlink "/proc/$pid/ns/uts")
    for pid in /proc/[0-9]*; do
        [ "$(readlink "$pid/ns/uts" 2>/dev/null)" != "$host" ] || kill -KILL "${pid#/proc/}"
    done
    sleep 1
    # shellcheck disable=SC2016 # the inner shell's own words
    wait_until 90 eval '[ "$(runs power_cut)" -ge 2 ] || sinfo --noheader --nodes='"$node"' --format=%t | grep down >/dev/null'
    rm -rf "${SLURM_CONF%/*}/tmp.$node" "${SLURM_CONF%/*}/spool.$node"
    mkdir "${SLURM_CONF%/*}/tmp.$node" "${SLURM_CONF%/*}/spool.$node"
    # shellcheck disable=SC2016 # the inner shell's own words
    unshare --uts sh -c 'hostname "$1" && exec slurmd -N "$1"' sh "$node"
    LIMIT_S=200 same "$1" "$job" 2
}

# ---- Each node has its own, one after the other ----------------------------------------------------------------------------

on() { # on NODE CASE…
    local node=$1 name failed=0
    shift
    for name in "$@"; do "$name" "$name" "$node" || { say "FAILED: $name"; failed=1; }; done
    return "$failed"
}
FAILED=0
at_once() { # waits for what runs beside
    local lane
    for lane in $(jobs -p); do wait "$lane" || FAILED=1; done
}
case ${1:-} in
    '' | --long)
        on n1 quiet told requeued crashing bug &
        on n2 preempted node_down cancelled limited &
        on n3 written told_mpirun array bounded &
        at_once
        if [ "${1:-}" = --long ]; then
            on n2 power_cut || FAILED=1
            on n1 time_limit &
            on n2 time_limit_signal &
            at_once
        fi
        ;;
    *) on n2 "$@" || FAILED=1 ;;
esac
say "$SECONDS s"
exit "$FAILED"
