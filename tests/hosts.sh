#!/usr/bin/env bash
# Ranks on several hosts: every conversation with several ranks on each, where long sums go node first, and the bytes that they send;
# a slow network between them: the same digest; and a cable that is pulled: the job ends in bounded time with the name of the rank, and
# goes on elsewhere with the same bits.
#
# usage: CONSORT=PROGRAM MPI_TESTS=PROGRAM tests/hosts.sh      started by jobs/test.sh; MPI_TESTS: tests/mpi.rs, as cargo has built it
# Exit code 3: SKIPPED, with the reason; 1: something failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 70
CONSORT=$(readlink -f "${CONSORT:-target/release/consort}")
hosts=$PWD/tests/cluster/hosts
BOUND=20 # seconds from the cut to the end of the job

say() { echo "hosts: $*"; }
[ -x "${MPI_TESTS:=}" ] || { say "no program MPI_TESTS: cargo test --test mpi --no-run"; exit 1; }
[ -x "$CONSORT" ] || { say "no program at $CONSORT: cargo build --release"; exit 1; }
command -v mpirun >/dev/null && mpirun --version | grep -q "Open MPI" || { say "SKIPPED: no mpirun of Open MPI"; exit 3; }
WORK=$(mktemp -d)
export CONSORT_HOSTS_DIR=$WORK/hosts
finish() {
    "$hosts" down
    rm -rf "$WORK"
}
trap finish EXIT
FAILED=0

# ---- Node first ----
"$hosts" up 3 '' 2 >"$WORK/up" || { code=$?; [ "$code" -ne 3 ] || say "SKIPPED: no hosts can be made here"; exit "$code"; }
# shellcheck source=/dev/null # written just now
. "$WORK/up"
for words in "-n 6" "-n 6 --map-by node" "-n 5"; do # neighbours together, dealt out, a host with one rank
    # shellcheck disable=SC2086 # several words
    if timeout 300 "$hosts" run h1 mpirun $words "$MPI_TESTS" --inside cases >"$WORK/cases" 2>&1; then
        say "ok: all conversations, mpirun $words"
    else
        say "conversations on three hosts fail, mpirun $words:"
        cat "$WORK/cases"
        FAILED=1
    fi
done
# Megabytes that all hosts send for ten sums of 4 MiB. Every host: 2 (3 − 1)/3 of that, however ranks are numbered.
crossed() { # crossed MODE WORDS OF MPIRUN…
    local mode=$1 host before=0 after=0
    shift
    for host in h1 h2 h3; do before=$((before + $("$hosts" sent "$host"))); done
    timeout 300 "$hosts" run h1 mpirun -n 6 "$@" "$MPI_TESTS" --inside "$mode" >&2 || echo 999999
    for host in h1 h2 h3; do after=$((after + $("$hosts" sent "$host"))); done
    echo $(((after - before) / 1000000))
}
for mapping in slot node; do
    bare=$(crossed bare-sums --map-by "$mapping")
    for mode in sums started-sums; do
        ours=$(crossed "$mode" --map-by "$mapping")
        say "ten $mode by $mapping: $ours MB cross, the library alone: $bare MB"
        # 168 MB, and a tenth for packets, start and end. With neighbours on other hosts the library sends more than twice that.
        [ "$ours" -le 185 ] && { [ "$mapping" = slot ] || [ $((2 * ours)) -le "$bare" ]; } || { say "more than expected"; FAILED=1; }
    done
done
"$hosts" down

# ---- A slow network, and one that is cut ----
"$hosts" up 3 20mbit >"$WORK/up" || { code=$?; [ "$code" -ne 3 ] || say "SKIPPED: no hosts can be made here"; exit "$code"; }
# shellcheck source=/dev/null # written just now
. "$WORK/up"

job=("$CONSORT" train logistic "$PWD/data/breast_cancer.h5" --solver sgd --epochs 4000 --seed 3 --threads 1)
alone=$("${job[@]}" -o "$WORK/alone.h5" 2>/dev/null | grep '^digest')
[ -n "$alone" ] || { say "the run alone gave no digest"; exit 1; }
kept() { compgen -G "$WORK/$1/step-*" >/dev/null; }
same() { # same NAME: its log has the digest of the run alone
    grep -qxF "$alone" "$WORK/$1.log" && say "ok: $1" && return
    say "$1: not the '$alone' of a run alone:"
    cat "$WORK/$1.log"
    return 1
}

"$hosts" run h1 mpirun -n 3 "${job[@]}" -o "$WORK/slow.h5" >"$WORK/slow.log" 2>&1
same slow || FAILED=1

for cut in h2 h1; do # h1: of rank 0 and of mpirun
    words=("${job[@]}" -o "$WORK/$cut.h5" --checkpoint "$WORK/$cut.kept" --every 1s --stall-timeout 3s)
    setsid "$hosts" run h1 mpirun -n 3 "${words[@]}" >"$WORK/cut-$cut.log" 2>&1 &
    mpirun=$!
    for _ in $(seq 600); do kept "$cut.kept" && break; sleep 0.05; done
    "$hosts" cut "$cut"
    since=$SECONDS
    while kill -0 "$mpirun" 2>/dev/null; do
        [ $((SECONDS - since)) -le "$BOUND" ] || break
        sleep 0.1
    done
    if kill -0 "$mpirun" 2>/dev/null || ! grep -qE "consort: rank [0-2] of 3 on h[1-3] has not been heard for" "$WORK/cut-$cut.log"; then
        say "$cut cut: no end after $BOUND s, or nothing said:"
        cat "$WORK/cut-$cut.log"
        FAILED=1
    else
        say "ok: $cut cut, over after $((SECONDS - since)) s"
    fi
    [ ! -e "$WORK/$cut.h5" ] || { say "$cut cut: it ended before it was cut"; FAILED=1; }
    "$hosts" down && "$hosts" up 3 20mbit >/dev/null || exit 1
    "$hosts" run h1 mpirun -n 2 "${words[@]}" >"$WORK/resumed-$cut.log" 2>&1
    grep -q "goes on after step" "$WORK/resumed-$cut.log" || { say "$cut cut: the checkpoint was not used"; FAILED=1; }
    same "resumed-$cut" || FAILED=1
done
exit "$FAILED"
