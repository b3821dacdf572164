#!/usr/bin/env bash
# Runs Consort on this machine's ranks and threads, bound sanely.
#
# usage: jobs/local.sh [train KIND DATA… FLAGS | evaluate … | predict … | any other words of consort]
#        without words: the settings below
# Settings, here or in the environment:
RANKS=${RANKS:-2}                     # processes
THREADS=${THREADS:-1}                 # threads of each; RANKS x THREADS above the cores works, slowly
KIND=${KIND:-logistic}                # linear logistic svm poisson …
DATA=${DATA:-data/digits.h5}          # file or files, apart by spaces
MODEL=${MODEL:-model.h5}              # written
FLAGS=${FLAGS---group train}          # further words: --target, --solver, --l2, …

set -euo pipefail
# shellcheck source=jobs/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
CONSORT=${CONSORT:-${CARGO_TARGET_DIR:-$ROOT/target}/release/consort}
[ -x "$CONSORT" ] || die 2 "no program at $CONSORT: run jobs/quickstart.sh or cargo build --release, or set CONSORT"
have "$MPIRUN" || die 2 "no launcher '$MPIRUN': bash jobs/setup.sh installs it, or set MPIRUN"

if [ $# -eq 0 ]; then
    # shellcheck disable=SC2086 # lists of words
    set -- train "$KIND" $DATA -o "$MODEL" $FLAGS
fi

# Each rank on cores of its own where there are enough, else unbound and yielding.
bind=()
case $(flavour "$MPIRUN") in
    openmpi)
        if [ $((RANKS * THREADS)) -le "$(cores)" ]; then
            bind=(--map-by "slot:PE=$THREADS" --bind-to core)
        else
            mpi_environment "$RANKS" "$THREADS"
            bind=(--bind-to none --oversubscribe)
        fi
        mpi_environment 1 1 # root's permission
        ;;
    mpich)
        [ $((RANKS * THREADS)) -gt "$(cores)" ] || bind=(-bind-to "core:$THREADS")
        ;;
esac
case $1 in
    train | evaluate | predict | verify) set -- "$@" --threads "$THREADS" ;;
esac
exec "$MPIRUN" -n "$RANKS" "${bind[@]}" "$CONSORT" "$@"
