#!/usr/bin/env bash
# From a bare Debian to a story: installs what is missing, builds, and runs the bundled model on the best Vulkan device, a CPU driver if there is no GPU.
#   bash examples/quickstart.sh [options of vkmoe run]        e.g.  -n 300 --seed 4,  -p "The dragon",  -m model.gguf -p "Once"
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build
. "$root/examples/packages.sh"

packages=$vkmoe_build_packages
have_vulkan_driver || packages="$packages $vkmoe_driver_packages"
# shellcheck disable=SC2086
need_packages $packages || exit 1
command -v cmake >/dev/null || { echo "cmake is missing: see the packages above" >&2; exit 1; }

# step LOG COMMAND...: quiet unless it fails
step() {
    local log=$1; shift
    "$@" >"$log" 2>&1 && return 0
    grep -E 'error|Error|FAILED|not found' "$log" | head -n 12 >&2 || tail -n 12 "$log" >&2
    echo "The build failed; all of it is in $log" >&2
    exit 1
}
mkdir -p "$build"
if [ ! -f "$build/CMakeCache.txt" ]; then
    generator=()
    command -v ninja >/dev/null && generator=(-G Ninja)
    echo "Building in $build ..." >&2
    step "$build/configure.log" cmake -S "$root" -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DVKMOE_TESTS=OFF
fi
step "$build/build.log" cmake --build "$build" --parallel "$(nproc)"

prompt=(-p "Once upon a time")
for argument; do
    case $argument in -p* | -f* | --prompt | --prompt=* | --file | --file=* | -h | --help) prompt=() ;; esac
done
# A driver compiles the kernels when they first run and keeps them; CPU drivers need a while for it.
[ -d "${XDG_CACHE_HOME:-${HOME:-}/.cache}/vkmoe" ] || echo "The first run compiles the kernels: seconds on a GPU, up to half a minute on a CPU driver." >&2
exec "$build/vkmoe" run "${prompt[@]}" -n 300 --temp 0.4 "$@"
