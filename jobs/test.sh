#!/usr/bin/env bash
# Runs every test, the fast ones first, under MPI too; installs what is missing.
#
# usage: jobs/test.sh [--long]        --long: more shapes, seeds and tables, and the build without MPI
#   CONSORT_EXTRA_DATA=FOLDER         more real tables; tests that want them skip without it, saying so
# Goes on after a failure. Ends with the line 'N passed, M failed' about its own steps (`cargo test` counts its tests itself);
# exit code 1 if any failed.
set -uo pipefail
# shellcheck source=jobs/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$ROOT" || exit 70

LONG=
case ${1:-} in
    --long) LONG=--long && export CONSORT_LONG=1 CONSORT_KILLS=${CONSORT_KILLS:-200} ;;
    '') ;;
    *) die 2 "usage: jobs/test.sh [--long]" ;;
esac
BEGIN=$(seconds)
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
CONSORT=$TARGET/release/consort
export CONSORT_REQUIRE_MPI=1 # a missing mpirun is a failure here, not a skipped test
WORK=$(mktemp -d)
trap 'CONSORT_SLURM_DIR=$WORK/slurm tests/cluster/slurm-down; rm -rf "$WORK"' EXIT

step "set-up" set_up tests || exit
# For the tests that start mpirun themselves, on more ranks than cores.
mpi_environment 7 2

# ---- Source -------------------------------------------------------------------------------------------------------------

if "$CARGO" fmt --version >/dev/null 2>&1; then
    step "formatting" "$CARGO" fmt --check
else
    skip_step "formatting" "no rustfmt beside $CARGO"
fi
if "$CARGO" clippy --version >/dev/null 2>&1; then
    step "clippy" "$CARGO" clippy --locked --features faults --all-targets -- -D warnings
    [ -z "$LONG" ] || step "clippy without MPI" "$CARGO" clippy --locked --no-default-features --all-targets -- -D warnings
else
    skip_step "clippy" "no clippy beside $CARGO"
fi
if have shellcheck; then
    step "shellcheck" shellcheck -x -S warning jobs/*.sh jobs/*.sbatch tests/*.sh tests/cluster/* .ci/run
else
    skip_step "shellcheck" "not installed"
fi

# ---- Rust tests: units, thread world, topics, real MPI, documentation -----------------------------------------------------

# With failures on request, for tests/faults.rs; the program of the next steps, which people have, is built without.
step "cargo test" "$CARGO" test --locked --features faults --no-fail-fast
[ -z "$LONG" ] || step "cargo test without MPI" "$CARGO" test --locked --no-fail-fast --no-default-features
step "documentation" env RUSTDOCFLAGS="-D warnings" "$CARGO" doc --locked --no-deps --quiet

# ---- The program ----------------------------------------------------------------------------------------------------------

if ! step "build" "$CARGO" build --locked --release; then
    say "$PASSED passed, $FAILED failed"
    exit 1
fi

# The words of the program on two ranks, from a table to a metric.
main_job() {
    local accuracy
    "$CONSORT" inspect data/digits.h5 &&
        launch 2 1 "$CONSORT" doctor &&
        launch 2 1 "$CONSORT" train logistic data/digits.h5 --group train -o "$WORK/model.h5" --threads 1 &&
        launch 2 1 "$CONSORT" evaluate "$WORK/model.h5" data/digits.h5 --group test --threads 1 --json >"$WORK/metrics.json" &&
        launch 3 1 "$CONSORT" predict "$WORK/model.h5" data/digits.h5 --group test -o "$WORK/predictions.h5" --threads 1 &&
        [ -s "$WORK/predictions.h5" ] || return
    accuracy=$(json_field accuracy <"$WORK/metrics.json")
    say "test accuracy $accuracy"
    awk -v a="$accuracy" 'BEGIN { exit !(a != "" && a + 0 >= 0.88) }'
}

# A bad input under mpirun: one message on rank 0, exit code 3, nothing written, nobody hangs.
bad_input() {
    local code=0
    (mpi_environment 3 1 && timeout 30 "$MPIRUN" -n 3 "$CONSORT" train logistic "$WORK/no-such-file.h5" -o "$WORK/none.h5") \
        >"$WORK/bad" 2>&1 || code=$?
    cat "$WORK/bad"
    [ "$code" -eq 3 ] || { say "exit code $code, not 3"; return 1; }
    [ "$(grep -c '^consort: .*no-such-file' "$WORK/bad")" -eq 1 ] || { say "not exactly one message that names the file"; return 1; }
    ! [ -e "$WORK/none.h5" ]
}

# Nobody's job can be made to fail from outside.
no_faults() { ! grep -q CONSORT_FAULT "$CONSORT"; }

step "no failures on request" no_faults
step "main job under mpirun" main_job
step "bad input under mpirun" bad_input

# ---- The same bits in every shape, under two MPIs -----------------------------------------------------------------------------

# In a folder of its own, since cargo does not see that MPICC has changed.
build_mpich() {
    MPICC=$MPICC_MPICH "$CARGO" build --locked --release --bin consort --target-dir "$TARGET/mpich" || return
    ! have ldd || ldd "$TARGET/mpich/release/consort" | grep libmpich || { say "not linked with MPICH"; return 1; }
}
if have "$MPICC_MPICH" && have "$MPIRUN_MPICH"; then
    step "build with MPICH" build_mpich
else
    skip_step "build with MPICH" "no $MPICC_MPICH and $MPIRUN_MPICH"
fi
# shellcheck disable=SC2086 # empty or one flag
step "same bits in every shape" env CONSORT="$CONSORT" CONSORT_MPICH="$TARGET/mpich/release/consort" jobs/equivalence.sh $LONG

# ---- Several hosts, where root may make them ----------------------------------------------------------------------------------

mpi_tests() { "$CARGO" test --locked --features faults --test mpi --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))/\1/p'; }
SKIPS_WITH=3 step "several hosts, a slow and a cut network" env CONSORT="$CONSORT" MPI_TESTS="$(mpi_tests)" tests/hosts.sh

# ---- SLURM, where there is one or root may start one ----------------------------------------------------------------------

# The batch scripts in an allocation: the digest of a run alone; a table that is missing; srun without the plugin that MPI needs.
in_job() { salloc --quiet --immediate=60 --ntasks=2 --cpus-per-task=1 --time=5 "$@"; }
under_slurm() {
    local folder=$TARGET/slurm alone launcher code=0 # the nodes see the project, but perhaps not /tmp
    local -x CONSORT=$CONSORT MODEL=$folder/model.h5
    mkdir -p "$folder" || return
    alone=$("$CONSORT" train logistic data/digits.h5 --group train -o "$MODEL" 2>/dev/null | grep '^digest')
    for launcher in srun "$MPIRUN"; do
        LAUNCHER=$launcher in_job bash jobs/train.sbatch >"$folder/log" 2>&1 || code=$?
        cat "$folder/log"
        grep -xF "$alone" "$folder/log" >/dev/null || { say "$launcher: exit code $code, not the '$alone' of a run alone"; return 1; }
    done
    RANKS="1 2" REPEATS=1 WEAK_ROWS=5000 OUT=$folder/scaling in_job bash jobs/scaling.sbatch || return
    [ "$(wc -l <"$folder/scaling.tsv")" -eq 5 ] || { say "not four rows in $folder/scaling.tsv"; return 1; }
    code=0
    DATA=no-such-file.h5 in_job bash jobs/train.sbatch || code=$?
    [ "$code" -eq 3 ] || { say "a missing table: exit code $code, not 3"; return 1; }
    code=0
    PMI=none in_job bash jobs/train.sbatch || code=$?
    [ "$code" -eq 4 ] || { say "srun --mpi=none: exit code $code, not 4"; return 1; }
}
has_slurm() { have salloc && timeout 10 sinfo --noheader --states=idle 2>/dev/null | grep idle >/dev/null; }
# shellcheck source=/dev/null # written by slurm-up
in_own_slurm() ( . "$WORK/slurm-up" && "$@" )

# One of our own for the queue; an allocation is that of the machine's SLURM, where there is one.
own=0
CONSORT_SLURM_DIR=$WORK/slurm tests/cluster/slurm-up 3 2 >"$WORK/slurm-up" 2>"$WORK/slurm-up.err" || own=$?
if has_slurm; then
    step "batch scripts under SLURM" under_slurm
elif [ "$own" -eq 0 ]; then
    step "batch scripts under SLURM" in_own_slurm under_slurm
else
    skip_step "batch scripts under SLURM" "no SLURM with a free node answers"
fi
# Whatever interrupts a job, it goes on to the same digest.
# shellcheck disable=SC2086 # empty or one flag
case $own in
    0) step "requeued jobs under SLURM" in_own_slurm env CONSORT="$CONSORT" tests/slurm.sh $LONG ;;
    3) skip_step "requeued jobs under SLURM" "$(tail -n 1 "$WORK/slurm-up.err")" ;;
    *) step "requeued jobs under SLURM" sh -c 'cat "$1"; exit 1' sh "$WORK/slurm-up.err" ;;
esac
CONSORT_SLURM_DIR=$WORK/slurm tests/cluster/slurm-down

# ---- What a newcomer runs -----------------------------------------------------------------------------------------------------

step "quick start" jobs/quickstart.sh "$WORK/quickstart"
step "quick start again" jobs/quickstart.sh "$WORK/quickstart"

say "=== all: $(since "$BEGIN")$([ "$SKIPPED" -eq 0 ] || say ", $SKIPPED skipped")"
say "$PASSED passed, $FAILED failed"
[ "$FAILED" -eq 0 ]
