#!/usr/bin/env bash
# From nothing to a trained model: installs what is missing, builds, turns real images into HDF5, trains under MPI,
# evaluates and predicts. A few minutes the first time, seconds after that. Run it as often as you like.
#
# usage: jobs/quickstart.sh [OUT_DIR]        default: quickstart/ in the project
#   RANKS=2 THREADS=1                        shape of the job; it never changes the model
set -euo pipefail
# shellcheck source=jobs/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

RANKS=${RANKS:-2}
THREADS=${THREADS:-1}
ITERATIONS=60
LEAST_ACCURACY=0.84 # on the test images; digits reaches 0.9 too
IMAGES=/usr/share/datasets/fashion-mnist # from Debian's package dataset-fashion-mnist (MIT licence)

OUT=${1:-$ROOT/quickstart}
CONSORT=${CARGO_TARGET_DIR:-$ROOT/target}/release/consort

set_up
step "build" "$CARGO" build --release --locked --manifest-path "$ROOT/Cargo.toml"
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)

# Every command is printed as a person would type it, then run.
run() {
    say "\$ $(printf '%q ' "$@")"
    "$@"
}
consort_ranks() {
    say "\$ mpirun -n $RANKS consort $*"
    launch "$RANKS" "$THREADS" "$CONSORT" "$@"
}

images_missing() { ! [ -r "$IMAGES/train-images-idx3-ubyte.gz" ]; }
if images_missing && have apt-get; then
    install_packages dataset-fashion-mnist || true
fi
if images_missing; then
    say "Fashion-MNIST is not here (Debian package dataset-fashion-mnist); going on with data/digits.h5"
    TABLE=$ROOT/data/digits.h5
else
    TABLE=$OUT/fashion.h5
    convert() {
        run "$CONSORT" convert "$IMAGES/train-images-idx3-ubyte.gz" "$IMAGES/train-labels-idx1-ubyte.gz" "$TABLE" --group train --force &&
            run "$CONSORT" convert "$IMAGES/t10k-images-idx3-ubyte.gz" "$IMAGES/t10k-labels-idx1-ubyte.gz" "$TABLE" --group test --append
    }
    step "images to HDF5" convert
fi
step "what is in the table" run "$CONSORT" inspect "$TABLE"
step "train" consort_ranks train logistic "$TABLE" --group train -o "$OUT/model.h5" --max-iterations "$ITERATIONS" --threads "$THREADS"

evaluate() {
    consort_ranks evaluate "$OUT/model.h5" "$TABLE" --group test --threads "$THREADS" --json >"$OUT/metrics.json" || return
    cat "$OUT/metrics.json"
    local accuracy
    accuracy=$(json_field accuracy <"$OUT/metrics.json")
    awk -v a="$accuracy" -v least="$LEAST_ACCURACY" 'BEGIN { exit !(a != "" && a + 0 >= least) }' ||
        { say "test accuracy '$accuracy' is below $LEAST_ACCURACY"; return 1; }
    say "test accuracy $accuracy (at least $LEAST_ACCURACY is asked for)"
}
step "evaluate" evaluate
step "predict" consort_ranks predict "$OUT/model.h5" "$TABLE" --group test -o "$OUT/predictions.h5" --threads "$THREADS"

cat <<EOT

The table, the model, the metrics and the predictions:
  $TABLE
  $OUT/model.h5
  $OUT/metrics.json
  $OUT/predictions.h5          datasets prediction, probability, row
The program: $CONSORT

What to try next
  $CONSORT inspect $OUT/model.h5
  $CONSORT train svm $TABLE --group train -o $OUT/svm.h5
  RANKS=3 $0 $(printf '%q' "$OUT")          # another number of ranks: the line 'digest …' is the same
  $CONSORT verify $OUT/model.h5 $TABLE --group train      # retrains in other shapes and compares the bits
  $CONSORT doctor                                           # does MPI bind the ranks well?
  jobs/local.sh, jobs/train.sbatch                          # your own tables, here and under SLURM
EOT
