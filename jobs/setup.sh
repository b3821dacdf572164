# shellcheck shell=bash
# What the scripts of this folder share: find or install what Consort needs, and start it under MPI.
#
#   . jobs/setup.sh            defines the functions below, changes nothing
#   bash jobs/setup.sh [tests] installs what is missing (with `tests`: also what only the tests need) and says what it found
#
# Functions (each says in its comment what it prints, sets and returns):
#   set_up [tests]     everything below in order; quick when nothing is missing
#   launch R T CMD…    CMD on R ranks of T threads, binding and oversubscription set for this machine
#   step NAME CMD…     runs CMD, prints its time, counts it as passed or failed; skip_step NAME WHY
#   json_field FIELD   last value of a field in `--json` output on stdin
#
# Exit code 2 with a list of modules and packages where they cannot be installed.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Tools elsewhere than in PATH: give them in the environment.
: "${MPIRUN:=mpirun}"             # launcher of the MPI that `mpicc` (or $MPICC) belongs to
: "${MPIRUN_MPICH:=mpirun.mpich}" # Debian's names for MPICH beside Open MPI
: "${MPICC_MPICH:=mpicc.mpich}"

say() { printf '%s\n' "$*"; }
die() { # die CODE MESSAGE…
    local code=$1
    shift
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit "$code"
}
have() { command -v "$1" >/dev/null 2>&1; }

# ---- What is missing ---------------------------------------------------------------------------------------------------

# True if version $1 is at least version $2.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# The oldest Rust that builds the crate, as Cargo.toml says.
msrv() { sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$ROOT/Cargo.toml"; }

have_hdf5() {
    [ -n "${HDF5_DIR:-}" ] || have h5cc || { have pkg-config && { pkg-config --exists hdf5 || pkg-config --exists hdf5-serial; }; }
}
# True if any of these patterns names a file.
any_file() {
    local pattern
    for pattern in "$@"; do
        if compgen -G "$pattern" >/dev/null; then return 0; fi
    done
    return 1
}
# True if a folder of LIBRARY_PATH or LD_LIBRARY_PATH, as modules and conda set them, holds such a file.
in_library_path() {
    local dir dirs
    IFS=: read -ra dirs <<<"${LIBRARY_PATH:-}:${LD_LIBRARY_PATH:-}"
    for dir in "${dirs[@]}"; do
        if [ -n "$dir" ] && any_file "$dir/$1"; then return 0; fi
    done
    return 1
}
have_openblas() {
    { have pkg-config && pkg-config --exists openblas; } || any_file '/usr/lib*/libopenblas.so' '/usr/lib/*/libopenblas.so' || in_library_path libopenblas.so
}
have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] || any_file '/usr/lib/llvm-*/lib/libclang*.so*' '/usr/lib*/libclang.so*' '/usr/lib/*/libclang*.so*' ||
        { have llvm-config && any_file "$(llvm-config --libdir)/libclang.so*"; } || in_library_path 'libclang.so*'
}

# Prints the Debian packages for what is not here, one a line; with `tests`, also MPICH and the programs `kill` and `ip`.
# Looks for the tools, not for packages: MPI from a module is as good as MPI from Debian.
missing_packages() {
    have cc || have gcc || printf '%s\n' gcc libc6-dev
    have pkg-config || say pkg-config
    have "${MPICC:-mpicc}" || say libopenmpi-dev
    have "$MPIRUN" || say openmpi-bin
    have_hdf5 || say libhdf5-dev
    have_openblas || say libopenblas-dev
    have_libclang || say libclang-dev
    have clang || say clang
    if [ -e /etc/debian_version ]; then
        [ -s /etc/ssl/certs/ca-certificates.crt ] || say ca-certificates # cargo fetches over https
        if [ "${1:-}" = tests ]; then
            have "$MPICC_MPICH" || say libmpich-dev
            have "$MPIRUN_MPICH" || say mpich
            have ip || say iproute2 # networks between processes of one machine
            [ -n "$(type -P kill)" ] || say procps # the shell's own kill is no program that a test can start
        fi
    fi
}

# ---- Installing ----------------------------------------------------------------------------------------------------------

# Runs a command as root: directly, or through sudo. Returns 1 if neither is possible.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        return 1
    fi
}

UPDATED=
# Refreshes the package lists, once a run and only when something has to be installed.
update_packages() {
    [ -z "$UPDATED" ] || return 0
    say "apt-get update" >&2
    as_root apt-get -qq -o DPkg::Lock::Timeout=300 update >&2 && UPDATED=1
}

# Installs Debian packages by name. Prints what it does; returns 1 if it cannot.
install_packages() {
    have apt-get || return 1
    [ "$(id -u)" -eq 0 ] || have sudo || return 1
    update_packages || return 1
    say "apt-get install $*" >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
        install --no-install-recommends "$@" >&2
}

# What to load where packages cannot be installed. Exit code 2.
say_what_to_load() { # say_what_to_load PACKAGES
    cat >&2 <<EOT
$(basename "$0"): these are missing and cannot be installed from here (Debian's names): $1
Load or install their equals and start again, for example
  modules  module load openmpi hdf5 openblas llvm rust
  conda    conda install -c conda-forge openmpi hdf5 openblas libclang clang pkg-config rust gcc_linux-64
           (then: export HDF5_DIR=\$CONDA_PREFIX LIBCLANG_PATH=\$CONDA_PREFIX/lib LIBRARY_PATH=\$CONDA_PREFIX/lib)
  spack    spack install openmpi hdf5~mpi openblas llvm+clang pkgconf rust && spack load openmpi hdf5 openblas llvm pkgconf rust
  Debian   apt-get install $1
Needed: an MPI with mpicc and mpirun, HDF5 1.10 or newer, OpenBLAS, libclang and clang, pkg-config, a C compiler, Rust $(msrv) or newer.
EOT
    exit 2
}

# ---- Rust ----------------------------------------------------------------------------------------------------------------

# True if this cargo runs, its rustc runs, and both are new enough. Sets RUST_VERSION.
good_cargo() { # good_cargo CARGO RUSTC
    local cargo rustc
    cargo=$("$1" --version 2>/dev/null | awk '{print $2}') && rustc=$("$2" --version 2>/dev/null | awk '{print $2}') || return 1
    [ -n "$cargo" ] && [ -n "$rustc" ] && at_least "$cargo" "$(msrv)" && at_least "$rustc" "$(msrv)" && RUST_VERSION=$rustc
}

# Looks for a cargo that is new enough: $CARGO, PATH, ~/.cargo/bin, Ubuntu's versioned packages.
# Sets CARGO and PATH (its folder first, so that it finds its own rustc). Returns 1 if there is none.
find_cargo() {
    local cargo dir
    for cargo in "${CARGO:-}" "$(command -v cargo || true)" "${HOME:-}/.cargo/bin/cargo" $(printf '%s\n' /usr/lib/rust-*/bin/cargo | sort -rV); do
        [ -x "$cargo" ] || continue
        dir=$(dirname "$cargo")
        if [ -x "$dir/rustc" ] && good_cargo "$cargo" "$dir/rustc"; then
            export CARGO=$cargo PATH=$dir:$PATH
            return 0
        fi
    done
    return 1
}

# Prints the packages of the first Rust in Debian or Ubuntu that is new enough: the plain one, Debian's build for web browsers
# (cargo-web: it takes the place of cargo and rustc), Ubuntu's versioned ones. Prints nothing if there is none.
rust_packages() {
    local suffix version
    for suffix in '' -web $(apt-cache pkgnames cargo-1. | sed -n 's/^cargo\(-1\.[0-9]*\)$/\1/p' | sort -rV); do
        version=$(apt-cache policy "rustc$suffix" | sed -n 's/^ *Candidate: *\([0-9.]*\).*/\1/p')
        if [ -n "$version" ] && at_least "$version" "$(msrv)"; then
            case $1$suffix in
                tests-web) say cargo-web rustc-web rustfmt-web rust-web-clippy ;;
                tests) say cargo rustc rustfmt rust-clippy ;;
                *) say "cargo$suffix rustc$suffix" ;;
            esac
            return 0
        fi
    done
}

# Finds Rust or installs it; sets CARGO. Exit code 2 if neither is possible.
need_rust() { # need_rust [tests]
    local packages=
    find_cargo && return 0
    if have apt-get; then
        update_packages || true
        packages=$(rust_packages "${1:-}")
    fi
    # shellcheck disable=SC2086 # a list of names
    if [ -z "$packages" ] || ! install_packages $packages; then
        say_what_to_load "${packages:-Rust $(msrv) (https://rustup.rs)}"
    fi
    hash -r
    find_cargo || die 2 "installed $packages, but found no cargo of version $(msrv) or newer after that"
}

# Everything that the scripts need; sets CARGO. With `tests`, also MPICH, kill, SLURM, rustfmt and clippy where packages have them.
# Quick when nothing is missing.
set_up() { # set_up [tests]
    local missing
    missing=$(missing_packages "${1:-}" | sort -u | tr '\n' ' ')
    if [ -n "$missing" ]; then
        # shellcheck disable=SC2086 # a list of names
        install_packages $missing || say_what_to_load "$missing"
        hash -r
        missing=$(missing_packages | sort -u | tr '\n' ' ')
        [ -z "$missing" ] || say_what_to_load "$missing"
    fi
    [ "${1:-}" != tests ] || offer_slurm
    need_rust "${1:-}"
}

# A SLURM that root can start for the tests, where packages have it. Without it those say that they are skipped.
offer_slurm() {
    [ -e /etc/debian_version ] && [ "$(id -u)" -eq 0 ] || return 0
    have slurmctld && have slurmd && have munged && return 0
    install_packages slurm-wlm munge || say "slurm-wlm and munge cannot be installed: tests under SLURM will be skipped" >&2
    hash -r
}

# ---- MPI -------------------------------------------------------------------------------------------------------------------

# Cores this process may use: threads of one core count once, since Open MPI counts slots like that.
cores() {
    local all physical
    all=$(nproc)
    physical=$(lscpu -p=CORE,SOCKET 2>/dev/null | grep -v '^#' | sort -u | wc -l)
    if [ "$physical" -gt 0 ] && [ "$physical" -lt "$all" ]; then say "$physical"; else say "$all"; fi
}

# Which MPI a launcher belongs to: openmpi, mpich (and its kin) or other.
flavour() { # flavour LAUNCHER
    case $("$1" --version 2>&1 || true) in
        *"Open MPI"* | *OpenRTE* | *PRRTE* | *prte*) say openmpi ;;
        *HYDRA* | *MPICH* | *Intel*) say mpich ;;
        *) say other ;;
    esac
}

# Sets what Open MPI needs for so many ranks and threads on this machine, and nothing else: root's permission when root;
# oversubscription, yielding and no binding when there are more ranks × threads than cores (without yielding four ranks
# on two cores are 2000 times slower); no binding when a rank has threads (one core a rank would strangle them).
# The PRTE_ names are Open MPI 5's. Other MPIs ignore all of them.
mpi_environment() { # mpi_environment RANKS THREADS
    if [ "$(id -u)" -eq 0 ]; then
        export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
        export PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
    fi
    if [ $(($1 * $2)) -gt "$(cores)" ]; then
        export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1 OMPI_MCA_hwloc_base_binding_policy=none
        export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe PRTE_MCA_hwloc_default_binding_policy=none
    elif [ "$2" -gt 1 ]; then
        export OMPI_MCA_hwloc_base_binding_policy=none PRTE_MCA_hwloc_default_binding_policy=none
    fi
}

# Runs a command under $MPIRUN on RANKS ranks with THREADS threads each (which the command has to be told: --threads).
# The settings do not outlive it.
launch() ( # launch RANKS THREADS COMMAND…
    local ranks=$1 threads=$2
    shift 2
    mpi_environment "$ranks" "$threads"
    exec "$MPIRUN" -n "$ranks" "$@"
)

# ---- Steps -------------------------------------------------------------------------------------------------------------------

PASSED=0
FAILED=0
SKIPPED=0
seconds() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(seconds)" 'BEGIN { printf "%.1f s", b - a }'; }

# Runs a command, then prints whether it passed and how long it took. Counts in PASSED and FAILED; returns the command's code.
step() { # [SKIPS_WITH=CODE] step NAME COMMAND…      CODE: the command was skipped, and has said why
    local name=$1 from code=0
    shift
    from=$(seconds)
    say "=== $name"
    "$@" || code=$?
    if [ "$code" -eq 0 ]; then
        PASSED=$((PASSED + 1))
        say "=== ok: $name ($(since "$from"))"
    elif [ "$code" = "${SKIPS_WITH:-}" ]; then
        skip_step "$name" "exit code $code, $(since "$from")"
        code=0
    else
        FAILED=$((FAILED + 1))
        say "=== FAILED: $name (exit code $code, $(since "$from"))"
    fi
    return "$code"
}
skip_step() { # skip_step NAME WHY
    SKIPPED=$((SKIPPED + 1))
    say "=== SKIPPED: $1 ($2)"
}

# Prints the last value of a number or text field in the JSON lines on stdin. Not for nested names that repeat.
json_field() { # json_field FIELD
    sed -n 's/.*"'"$1"'": *"\{0,1\}\([^",}]*\).*/\1/p' | tail -n 1
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -euo pipefail
    set_up "${1:-}"
    say "cargo:   $CARGO ($RUST_VERSION; at least $(msrv) is needed)"
    say "mpicc:   $(command -v "${MPICC:-mpicc}")"
    say "mpirun:  $(command -v "$MPIRUN") ($(flavour "$MPIRUN"))"
    say "mpich:   $(command -v "$MPIRUN_MPICH" || say "not here: only the tests would use it")"
    say "slurm:   $(command -v slurmctld || say "not here: only the tests would use it")"
    say "cores:   $(cores)"
fi
