#!/usr/bin/env bash
# Cross builds of library, program and suites (warnings are errors), and what of them runs here.
#   tests/cross.sh windows [FOLDER [SUITE...]]    MinGW-w64; run by wine, with a virtual display, on the Vulkan driver that this system has
#   tests/cross.sh aarch64 [FOLDER [SUITE...]]    ARM64 Linux; run by qemu on lavapipe of Debian's ARM64 packages, which are unpacked in FOLDER and not installed
#   VKMOE_SPIRV_DIR: modules that were made already; else FOLDER/spirv-build makes them with this system's glslang
# FOLDER (build-windows, build-aarch64) keeps what was downloaded and built; SUITE: only these run, test_gguf for example. tests/run.sh does not run this: it downloads some hundred MB the first time, and emulation is slow.
# Suites are built with tests/standin instead of Criterion. Ends with "N passed, N failed, N skipped".
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
target=${1:-}
case $target in windows | aarch64) ;; *) sed -n '3,5p' "$0" >&2; exit 2 ;; esac
folder=${2:-$root/build-$target}
shift $(($# < 2 ? $# : 2))
mkdir -p "$folder/prefix/include" "$folder/prefix/lib"
folder=$(cd "$folder" && pwd)
. "$root/examples/packages.sh"
. "$root/cmake/debian_root.sh"
passed=0 failed=0 skipped=0
start=$SECONDS
note() { printf '%4d s  %-26s %s\n' $((SECONDS - start)) "$1" "$2"; }
step() {      # step NAME COMMAND...: nothing works without it
    local name=$1; shift
    if "$@" >"$folder/log" 2>&1; then passed=$((passed + 1)); note "$name" ok; return; fi
    tail -n 20 "$folder/log"
    note "$name" FAILED
    echo "$passed passed, 1 failed, 0 skipped"
    exit 1
}

# ---- what is needed: a compiler and an emulator of this system, Vulkan's headers, PCRE2
case $target in
windows)
    # shellcheck disable=SC2086
    need_packages $vkmoe_build_packages gcc-mingw-w64-x86-64-posix wine wine64 xvfb dpkg-dev || exit 1
    toolchain=mingw-w64 exe=.exe
    pcre2() {      # Debian's source package: it has no MinGW build of it
        (cd "$folder" && debian_apt bookworm amd64 "$folder/apt" update && debian_apt bookworm amd64 "$folder/apt" source --only-source pcre2) &&
            cmake -S "$folder"/pcre2-10.*/ -B "$folder/pcre2-build" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$root/cmake/mingw-w64.cmake" -DCMAKE_INSTALL_PREFIX="$folder/prefix" -DCMAKE_BUILD_TYPE=Release \
                -DPCRE2_BUILD_PCRE2GREP=OFF -DPCRE2_BUILD_TESTS=OFF -DPCRE2_SUPPORT_JIT=ON && cmake --build "$folder/pcre2-build" && cmake --install "$folder/pcre2-build"
    }
    [ -f "$folder/prefix/lib/libpcre2-8.a" ] || step "PCRE2" pcre2
    ;;
aarch64)
    # shellcheck disable=SC2086
    need_packages $vkmoe_build_packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user || exit 1
    toolchain=aarch64-linux-gnu exe=""
    step "PCRE2" debian_root bookworm arm64 "$folder/pcre2" libpcre2-dev
    cp "$folder/pcre2/root/usr/include/pcre2.h" "$folder/prefix/include/"
    cp "$folder/pcre2/root/usr/lib/aarch64-linux-gnu/libpcre2-8.a" "$folder/prefix/lib/"
    # Debian 12's lavapipe does not do: its compiler (LLVM 15) gives up on some kernels on ARM64
    step "lavapipe" debian_root trixie arm64 "$folder/arm64" mesa-vulkan-drivers libvulkan1 libstdc++6
    arm=$folder/arm64/root
    ;;
esac
for headers in vulkan vk_video; do ln -sfn "/usr/include/$headers" "$folder/prefix/include/$headers"; done

# ---- build
spirv=${VKMOE_SPIRV_DIR:-$folder/spirv-build/spirv}
spirv_build() { cmake -S "$root" -B "$folder/spirv-build" -G Ninja -DVKMOE_TESTS=OFF -DVKMOE_PROGRAM=OFF && cmake --build "$folder/spirv-build" --target vkmoe_shaders; }
[ -n "${VKMOE_SPIRV_DIR:-}" ] || step "shaders" spirv_build
build() {
    cmake -S "$root" -B "$folder/build" -G Ninja -DCMAKE_TOOLCHAIN_FILE="$root/cmake/$toolchain.cmake" -DVKMOE_CROSS_PREFIX="$folder/prefix" -DVKMOE_SPIRV_DIR="$spirv" \
        -DCMAKE_BUILD_TYPE=Release -DVKMOE_TESTS=ON -DVKMOE_WERROR=ON && cmake --build "$folder/build"
}
step "build" build

# ---- symbols, of a DLL those of its export table
case $target in
windows) exported() { x86_64-w64-mingw32-objdump -p "$folder/build/libvkmoe.dll" | sed -n '/\[Ordinal\/Name Pointer\] Table/,/^$/p' | awk '$1 ~ /^\[/ && NF > 2 {print $NF}' | sed 1d; } ;;
aarch64) exported() { aarch64-linux-gnu-nm -D --defined-only "$folder/build/libvkmoe.so" | awk '{print $3}'; } ;;
esac
symbols() { diff <(grep -oE '\bvkm_[a-z0-9_]+\(' "$root/src/vkmoe.h" | tr -d '(' | sort -u) <(exported | sort); }
step "exported is vkm_*" symbols

# ---- run
case $target in
windows)
    # wine's Vulkan wants a display, from the beginning
    exec 3< <(exec Xvfb -displayfd 1 -screen 0 640x480x24 -nolisten tcp 2>/dev/null)
    display=$!
    trap 'kill "$display" 2>/dev/null' EXIT
    read -r number <&3
    export WINEPREFIX=$folder/wine WINEDEBUG=-all DISPLAY=:$number
    step "wine" timeout 300 wine wineboot -i
    emulator=(wine)
    ;;
aarch64)
    export VK_ICD_FILENAMES=/usr/share/vulkan/icd.d/lvp_icd.json
    emulator=(qemu-aarch64 -L "$arm")
    ;;
esac
# The text of README.md, which every driver gives for this seed
story() { timeout -k 5 600 "${emulator[@]}" "$folder/build/vkmoe$exe" run -n 20 --seed 4 --temp 0.4 --no-cache -p "Once upon a time" </dev/null 2>"$folder/figures" | grep -q "in a small town called Saltmarsh" && cat "$folder/figures"; }
step "the program" story
tail -n 1 "$folder/log"
export VKMOE_TEST_BRIEF=1
[ $# != 0 ] || for suite in "$folder"/build/tests/test_*"$exe"; do set -- "$@" "$(basename "$suite" .exe)"; done
for name; do
    suite=$folder/build/tests/$name$exe
    timeout -k 5 600 "${emulator[@]}" "$suite" </dev/null >"$folder/$name.log" 2>&1
    line=$(grep -a 'Synthesis: Tested:' "$folder/$name.log" | tail -n 1)
    if [ -z "$line" ]; then failed=$((failed + 1)); note "$name" "FAILED: it crashed, or took longer than 600 s"; continue; fi
    read -r tested passing skips < <(sed 's/.*Tested: \([0-9]*\) | Passing: \([0-9]*\).*Skipped: \([0-9]*\).*/\1 \2 \3/' <<<"$line")
    passed=$((passed + passing)) failed=$((failed + tested - passing)) skipped=$((skipped + skips))
    note "$name" "$passing of $tested passed, $skips skipped"
    grep -a '^\[FAIL\]' "$folder/$name.log"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
