#!/usr/bin/env bash
# What every rank asks of the file system to train on one table: system calls that touch the table, by rank.
#
# usage: opens.sh CONSORT TABLE.h5 [WORDS…]      WORDS: as for `consort train logistic TABLE.h5`, such as --group train
# One JSON line per number of ranks: opens, reads and seeks of the library (metadata) and preads of the first rank, and the most of
# any other. Needs strace and a launcher (CONSORT_MPIEXEC, default mpirun).
set -euo pipefail
consort=$1 table=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
more=()
if "${CONSORT_MPIEXEC:-mpirun}" --version 2>/dev/null | grep -q "Open MPI"; then
    more=(--oversubscribe --bind-to none)
    [ "$(id -u)" != 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi
cat >"$work/rank.sh" <<'EOF'
#!/usr/bin/env bash
rank=${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-0}}
exec strace -f -y -qq -e trace=openat,read,pread64,lseek,fstat,newfstatat -o "$WORK/calls.$rank" "$@"
EOF
chmod +x "$work/rank.sh"
export WORK=$work
name=$(basename "$table")
for ranks in 1 2 8 32; do
    rm -f "$work"/calls.*
    "${CONSORT_MPIEXEC:-mpirun}" "${more[@]}" -n "$ranks" "$work/rank.sh" "$consort" train logistic "$table" "$@" \
        --threads 1 --max-iterations 1 -o "$work/model.h5" --force >/dev/null
    count() { grep -c "$2" <(grep -F "$name" "$work/calls.$1") || true; }
    others_opens=0 others_reads=0 others_preads=0
    for ((rank = 1; rank < ranks; rank++)); do
        opens=$(count "$rank" "openat(") reads=$(count "$rank" " \(read\|lseek\)(") preads=$(count "$rank" "pread64(")
        others_opens=$((opens > others_opens ? opens : others_opens))
        others_reads=$((reads > others_reads ? reads : others_reads))
        others_preads=$((preads > others_preads ? preads : others_preads))
    done
    printf '{"bench":"opens","ranks":%d,"first":{"opens":%d,"reads_and_seeks":%d,"preads":%d},"most_of_others":{"opens":%d,"reads_and_seeks":%d,"preads":%d}}\n' \
        "$ranks" "$(count 0 "openat(")" "$(count 0 " \(read\|lseek\)(")" "$(count 0 "pread64(")" \
        "$others_opens" "$others_reads" "$others_preads"
done
