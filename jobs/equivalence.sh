#!/usr/bin/env bash
# The same model, bit for bit, whatever the shape of the job: trains every kind with every solver on 1, 2, 3, 4 and 7 ranks
# with 1 and 2 threads under Open MPI, on 1, 2 and 3 ranks under MPICH, and compares the line `digest …` that each run prints.
#
# usage: jobs/equivalence.sh [--long]       plain: one table a kind, fewer shapes; --long: all tables, shapes, seeds
#   CONSORT=target/release/consort          binary linked with the MPI of $MPIRUN
#   CONSORT_MPICH=target/mpich/release/consort   linked with MPICH; without it that part is skipped
#   CONSORT_EXTRA_DATA=FOLDER               also the HIGGS subset, and with --long Fashion-MNIST, from that folder
# Prints a line a model, and 'digests: N same, M different'. Exit code 1 if any differs or any run fails.
set -euo pipefail
# shellcheck source=jobs/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

# kind | solvers | table, flags. Lines with * only with --long.
MODELS='
  linear   | cholesky qr cd lbfgs sgd adam | data/casp.h5
  logistic | newton lbfgs sgd adam         | data/breast_cancer.h5
  svm      | newton lbfgs sgd adam         | data/digits.h5 --group train
  poisson  | newton lbfgs sgd adam         | data/counts.h5 --group groups --offset offset
  logistic | lbfgs                         | data/digits.h5 --group train
  logistic | lbfgs                         | data/breast_cancer.h5 --l1 0.01 --l2 0 --class-weight balanced
  boost    | auto                          | data/breast_cancer.h5 --rounds 5
  forest   | auto                          | data/digits.h5 --group train --trees 8
  forest   | auto                          | data/casp.h5 --trees 4 --scope local --lanes 3
  bag      | auto                          | data/breast_cancer.h5 --learner forest --members 5
* linear   | cholesky qr cd lbfgs sgd adam | data/diabetes.h5
* logistic | newton lbfgs sgd adam         | data/digits.h5 --group train
* logistic | newton lbfgs sgd adam         | data/breast_cancer.h5 --weight row_weight
* svm      | newton lbfgs sgd adam         | data/breast_cancer.h5
* poisson  | newton lbfgs sgd adam         | data/counts.h5 --group years
'
# The same on tables of CONSORT_EXTRA_DATA, converted first.
EXTRA_MODELS='
  logistic | newton lbfgs sgd adam         | higgs.h5
* linear   | cholesky qr cd lbfgs sgd adam | higgs.h5
* svm      | newton lbfgs sgd adam         | higgs.h5
* poisson  | newton lbfgs sgd adam         | higgs.h5
* logistic | lbfgs sgd adam                | fashion.h5 --group train
* svm      | lbfgs                         | fashion.h5 --group train
'
# Ranks x threads. The first is what the others are compared with.
SHAPES="1x1 2x1 3x1 4x1 7x1 1x2 3x2"
SHAPES_LONG="1x1 2x1 3x1 4x1 7x1 1x2 2x2 3x2 4x2 7x2"
MPICH_RANKS="1 2 3"       # plain: only for the first solver of a line, as MPICH does not yield
SEEDS="0"
SEEDS_LONG="0 1"
TIMEOUT_S=300             # of one run: a hang is a failure
HIGGS_CONVERT="--target 0" # the subset is text without a header, the label in its first column

# Few steps are enough: bits that differ do so at once.
steps_of() { # steps_of SOLVER
    case $1 in
        cholesky | qr | auto) ;;
        sgd | adam) say "--epochs 2" ;;
        cd) say "--l1 0.01 --max-iterations 20" ;;
        *) say "--max-iterations 20" ;;
    esac
}

LONG=
case ${1:-} in
    --long) LONG=1 SHAPES=$SHAPES_LONG SEEDS=$SEEDS_LONG ;;
    '') ;;
    *) die 2 "usage: jobs/equivalence.sh [--long]" ;;
esac
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
CONSORT=${CONSORT:-$TARGET/release/consort}
CONSORT_MPICH=${CONSORT_MPICH:-$TARGET/mpich/release/consort}
[ -x "$CONSORT" ] || die 2 "no program at $CONSORT: cargo build --release, or set CONSORT"
if ! [ -x "$CONSORT_MPICH" ] || ! have "$MPIRUN_MPICH"; then
    say "SKIPPED: MPICH (no program at $CONSORT_MPICH, or no $MPIRUN_MPICH)"
    CONSORT_MPICH=
fi
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
cd "$ROOT"

# The digest that `consort train` prints under a launcher; the output goes to $WORK/log. Fails if there is none.
digest_of() { # digest_of openmpi|mpich RANKS THREADS FLAGS…
    local mpi=$1 ranks=$2 threads=$3
    shift 3
    if [ "$mpi" = mpich ]; then
        timeout "$TIMEOUT_S" "$MPIRUN_MPICH" -n "$ranks" "$CONSORT_MPICH" train "$@" --threads "$threads" -o "$WORK/model.h5"
    else
        mpi_environment "$ranks" "$threads" # runs in a command substitution: does not outlive it
        timeout "$TIMEOUT_S" "$MPIRUN" -n "$ranks" "$CONSORT" train "$@" --threads "$threads" -o "$WORK/model.h5"
    fi </dev/null >"$WORK/log" 2>&1 || return
    tail -n 1 "$WORK/log" | grep -oxE 'digest [0-9a-f]{64}' | cut -d ' ' -f 2
}

SAME=0
DIFFERENT=0

# Trains one model in every shape and says whether the digests are the same.
compare() { # compare MPICH? FLAGS…
    local with_mpich=$1 first='' name from shape shapes found bad='' n=0
    shift
    name="train ${*//"$ROOT/"/}"
    from=$(seconds)
    shapes=$(for shape in $SHAPES; do say "openmpi:$shape"; done)
    if [ -n "$CONSORT_MPICH" ] && [ -n "$with_mpich" ]; then
        shapes+=" $(for shape in $MPICH_RANKS; do say "mpich:${shape}x1"; done)"
    fi
    for shape in $shapes; do
        local mpi=${shape%%:*} cut=${shape#*:}
        found=$(digest_of "$mpi" "${cut%x*}" "${cut#*x}" "$@") || found="none (exit code $?)"
        [ -n "$first" ] || first=$found
        n=$((n + 1))
        if [ "$found" != "$first" ] || [ "${#found}" -ne 64 ]; then
            bad=1
            say "  $mpi, ${cut%x*} ranks, ${cut#*x} threads: $found, but 1 rank found $first; last lines of its output:"
            tail -n 5 "$WORK/log" | sed 's/^/    /'
            [ "${#first}" -eq 64 ] || break # no model at all: the other shapes would say the same
        fi
    done
    if [ -z "$bad" ]; then
        SAME=$((SAME + 1))
        say "same       $n shapes  ${first:0:16}…  $name ($(since "$from"))"
    else
        DIFFERENT=$((DIFFERENT + 1))
        say "DIFFERENT  $n shapes  $name ($(since "$from"))"
    fi
}

# Every solver of every line of a list. Lines of tables that are not there are skipped, saying so.
compare_all() { # compare_all LIST FOLDER
    local line kind solvers rest solver seed first
    while IFS='|' read -r kind solvers rest; do
        [ -n "${kind// /}" ] || continue
        case $kind in \**) [ -n "$LONG" ] || continue && kind=${kind#\*} ;; esac
        kind=${kind// /}
        # shellcheck disable=SC2206 # words: a table and flags
        line=($rest)
        if ! [ -r "$2/${line[0]}" ]; then
            say "SKIPPED: $kind on ${line[0]}: not in $2"
            continue
        fi
        first=1
        for solver in $solvers; do
            for seed in $SEEDS; do
                # shellcheck disable=SC2046 # flags
                compare "${LONG:-$first}" "$kind" "$2/${line[0]}" "${line[@]:1}" --solver "$solver" $(steps_of "$solver") --seed "$seed"
                first=
            done
        done
    done <<<"$1"
}

say "$(flavour "$MPIRUN") from $MPIRUN, shapes (ranks x threads) $SHAPES; $(cores) cores"
compare_all "$MODELS" "$ROOT"

if [ -d "${CONSORT_EXTRA_DATA:-}" ]; then
    gzip -dc "$CONSORT_EXTRA_DATA/higgs-subset/binary.train.gz" >"$WORK/higgs.tsv"
    # shellcheck disable=SC2086 # flags
    "$CONSORT" convert "$WORK/higgs.tsv" "$WORK/higgs.h5" $HIGGS_CONVERT >"$WORK/log" 2>&1 || { cat "$WORK/log"; DIFFERENT=$((DIFFERENT + 1)); }
    if [ -n "$LONG" ]; then
        images=$CONSORT_EXTRA_DATA/fashion-mnist
        "$CONSORT" convert "$images/train-images-idx3-ubyte.gz" "$images/train-labels-idx1-ubyte.gz" "$WORK/fashion.h5" --group train \
            >"$WORK/log" 2>&1 || { cat "$WORK/log"; DIFFERENT=$((DIFFERENT + 1)); }
    fi
    compare_all "$EXTRA_MODELS" "$WORK"
else
    say "SKIPPED: HIGGS and Fashion-MNIST (CONSORT_EXTRA_DATA names no folder)"
fi
say "digests: $SAME same, $DIFFERENT different"
[ "$DIFFERENT" -eq 0 ] && [ "$SAME" -gt 0 ]
