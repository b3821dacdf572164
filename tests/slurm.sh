#!/usr/bin/env bash
# train.sbatch in the queue of a real SLURM: whatever interrupts it, it ends with the digest of a run alone.
#
# usage: CONSORT=PROGRAM tests/slurm.sh      started by jobs/test.sh
#   uses the SLURM of SLURM_CONF, or starts one (tests/cluster/slurm-up) and ends it
# Exit code 3: SKIPPED, with the reason; 1: something failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 70
CONSORT=${CONSORT:-$PWD/target/release/consort}
TREES=${TREES:-1500} # enough work to be interrupted in the middle of it

say() { echo "slurm: $*"; }
[ -x "$CONSORT" ] || { say "no program at $CONSORT: cargo build --release"; exit 1; }
WORK=$(mktemp -d)
OWN=
finish() {
    [ -z "$OWN" ] || tests/cluster/slurm-down
    rm -rf "$WORK"
}
trap finish EXIT
if [ -z "${SLURM_CONF:-}" ]; then
    export CONSORT_SLURM_DIR=$WORK/slurm
    chmod 755 "$WORK"
    OWN=1
    tests/cluster/slurm-up 2 2 >"$WORK/up"
    code=$?
    [ "$code" -ne 3 ] || { say "SKIPPED: SLURM cannot be started here"; exit 3; }
    [ "$code" -eq 0 ] || exit 1
    # shellcheck source=/dev/null # written just now
    . "$WORK/up"
fi

export CONSORT KIND=forest DATA=data/digits.h5 EVERY=100steps
export FLAGS="--group train --trees $TREES"
alone=$("$CONSORT" train forest "$DATA" --group train --trees "$TREES" --threads 1 -o "$WORK/alone.h5" 2>/dev/null | grep '^digest')
[ -n "$alone" ] || { say "the run alone gave no digest"; exit 1; }

submit() { # submit NAME [sbatch words]: the number of the job
    local name=$1
    shift
    MODEL=$WORK/$name.h5 CHECKPOINT=$WORK/$name.kept sbatch --parsable --nodes=1 --ntasks=2 --cpus-per-task=1 --time=10 \
        --output="$WORK/$name.log" "$@" jobs/train.sbatch
}
wait_until() { # wait_until SECONDS COMMAND…
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.2
    done
}
over() { ! squeue --noheader --jobs="$1" --states=PENDING,RUNNING,COMPLETING,CONFIGURING 2>/dev/null | grep . >/dev/null; }
kept() { [ -n "$(ls -A "$WORK/$1.kept" 2>/dev/null)" ]; }
# Ended, with the digest of the run alone, after at least so many runs.
same() { # same NAME JOB RUNS
    wait_until 120 over "$2" || { say "$1: not over after 120 s"; cat "$WORK/$1.log"; scancel "$2"; return 1; }
    if ! grep -xF "$alone" "$WORK/$1.log" >/dev/null || ! grep "run $3," "$WORK/$1.log" >/dev/null; then
        say "$1: not the '$alone' of a run alone in run $3:"
        cat "$WORK/$1.log"
        return 1
    fi
    say "ok: $1"
}

FAILED=0
job=$(submit quiet) && same quiet "$job" 1 || FAILED=1

# What SLURM does before a time limit.
job=$(submit told) && wait_until 30 kept told && scancel --batch --signal=USR1 "$job" && same told "$job" 2 || FAILED=1

# What an administrator does.
job=$(submit requeued) && wait_until 30 kept requeued && scontrol requeue "$job" && same requeued "$job" 2 || FAILED=1

exit "$FAILED"
