#!/usr/bin/env bash
# Puts faults back that the engine once had, one at a time, and shows that its simulation finds each:
#
#   .ci/put_back.sh              # all of grizzly-provider/tests/put_back
#   .ci/put_back.sh 03 14        # those whose names begin so
#   .ci/put_back.sh none         # no fault: nothing may be found
#
# Seeds are tried from 1 on, $PUT_BACK_SEEDS at most (500 unless set); a patch that says so is also tried with a fault of
# storage at every 97th call. It fails if a patch no longer applies, does not compile, or is not found.
set -euo pipefail
cd "$(dirname "$0")/.."

patches=$PWD/grizzly-provider/tests/put_back
seeds=${PUT_BACK_SEEDS:-500}
scratch=${PUT_BACK_SCRATCH:-${TMPDIR:-/tmp}/grizzly-put-back}
tree=$scratch/tree
said=$scratch/said
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$scratch/target} GIT_CEILING_DIRECTORIES=$scratch

# A copy of the work tree, always at the same place, so that only what a patch touches is compiled again. Its files are as new as
# the copy: what was built before may have been patched.
mkdir -p "$tree"
find "$tree" -mindepth 1 -delete
git ls-files -z --cached --others --exclude-standard | tar --null --ignore-failed-read -cf - -T - | tar -xmf - -C "$tree"

build() {
    # Optimized a little: that takes longer to compile than no optimization, and much less to run.
    (cd "$tree" && cargo test -p grizzly-provider --no-default-features --config 'profile.dev.opt-level=1' \
        --config 'profile.dev.debug=0' --test engine --no-run) >"$said" 2>&1 || { grep -m1 -A8 '^error' "$said"; return 1; }
    sed -n 's/.*Executable.*(\(.*\))$/\1/p' "$said" | sed "s|^target/|$tree/target/|"
}

# What a failing test said: the line that names the failure, and the first problem.
finding() {
    grep -m1 -A2 '^simulation with seed .* failed: ' "$said" | tr -s '\n ' ' ' | cut -c1-400
}

try() {
    local number=$1 matrix=$2 binary began status=1
    binary=$(build) || { echo "$number does not compile: $binary"; return 1; }
    began=$SECONDS
    if GRIZZLY_SIMULATED_SEEDS="1 $seeds" "$binary" simulation::seeds --exact --nocapture >"$said" 2>&1; then
        echo "$number not found by lives with $seeds seeds, $((SECONDS - began)) s"
    else
        echo "$number found after $(($(grep -c '^seed ' "$said") + 1)) seeds, $((SECONDS - began)) s, by lives: $(finding)"
        status=0
    fi
    [[ $matrix == no ]] && return $status
    began=$SECONDS
    if "$binary" simulation::faults::a_fault --nocapture >"$said" 2>&1; then
        echo "$number not found by faults of storage, $((SECONDS - began)) s"
    else
        echo "$number found after $((SECONDS - began)) s by faults of storage: $(finding)"
        status=0
    fi
    return $status
}

wanted=("$@")
is_wanted() {
    local name
    [[ ${#wanted[@]} == 0 ]] && return 0
    for name in "${wanted[@]}"; do [[ $1 == "$name"* ]] && return 0; done
    return 1
}

if [[ ${wanted[0]:-} == none ]]; then
    if try none yes; then exit 1; fi
    exit 0
fi
missed=()
for patch in "$patches"/*.patch; do
    name=$(basename "$patch" .patch)
    is_wanted "$name" || continue
    number=${name%%-*}
    if ! git -C "$tree" apply "$patch"; then
        echo "$number no longer applies"
        missed+=("$name")
        continue
    fi
    matrix=no
    if grep -q '^Also found by a fault at every call of storage.$' "$patch"; then matrix=yes; fi
    try "$number" "$matrix" || missed+=("$name")
    git -C "$tree" apply --reverse "$patch"
done
[[ ${#missed[@]} == 0 ]] || { echo "not found: ${missed[*]}"; exit 1; }
