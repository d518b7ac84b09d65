#!/usr/bin/env bash
# All tests: builds with warnings as errors, checks every SPIR-V module, runs every suite on lavapipe and on SwiftShader, then the program and the installed package.
# On the first driver everything is tested; on the others what compiles the same kernels once more is left out (VKMOE_TEST_BRIEF), and said to be.
# On the first driver what parses, allocates or frees is tested under ASan and UBSan, and only so: most of the time goes to the drivers' compilers.
# ThreadSanitizer watches tests/threads.c, which needs no driver.
# Ends with the line "N passed, N failed, N skipped"; the exit status is 0 when nothing failed.
# What compiles for long is left out and said to be skipped, so that all of it takes less than ten minutes on two cores; --full (VKMOE_TEST_FULL) has everything on every driver.
#   tests/run.sh [--fast|--full] [--icd FILE.json]...     --fast: no sanitizers.  --icd: these drivers instead, e.g. /usr/share/vulkan/icd.d/nvidia_icd.json
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root" || exit 1
. examples/packages.sh

fast="" icds=()
while [ $# -gt 0 ]; do
    case $1 in
    --fast) fast=1 ;;
    --full) export VKMOE_TEST_FULL=1 ;;
    --icd) [ -f "${2:-}" ] || { echo "--icd needs the file of a Vulkan driver" >&2; exit 2; }; icds+=("$(readlink -f "$2")"); shift ;;
    *) echo "usage: tests/run.sh [--fast|--full] [--icd FILE.json]..." >&2; exit 2 ;;
    esac
    shift
done

# shellcheck disable=SC2086
need_packages $vkmoe_build_packages $vkmoe_driver_packages libcriterion-dev libvulkan-volk-dev libglfw3-dev zlib1g-dev vulkan-validationlayers spirv-tools jq || exit 1
swiftshader() { ls "${VKMOE_SWIFTSHADER_ICD:-/none}" /usr/lib/chromium/vk_swiftshader_icd.json /usr/share/vulkan/icd.d/vk_swiftshader_icd.json 2>/dev/null | head -n 1; }
[ ${#icds[@]} -gt 0 ] || [ -n "$(swiftshader)" ] || need_packages chromium    # has SwiftShader; nothing else of it is used

passed=0 failed=0 skipped=0 out=$(mktemp -d)
log=$out/log
trap 'rm -rf "$out"' EXIT
start=$SECONDS
note() { printf '%4d s  %-34s %s\n' $((SECONDS - start)) "$1" "$2"; }
skip() { skipped=$((skipped + 1)); note "$1" "SKIPPED: $2"; }

# ---- build
build() {   # [targets="--target NAME"] build FOLDER OPTION...
    local folder=$1; shift
    local generator=()
    [ -f "$folder/CMakeCache.txt" ] || generator=(-G Ninja)
    if cmake -S . -B "$folder" "${generator[@]}" -DCMAKE_BUILD_TYPE=Debug -DVKMOE_WERROR=ON -DVKMOE_TESTS=ON "$@" >"$log" 2>&1 && cmake --build "$folder" --parallel "$(nproc)" ${targets:-} >>"$log" 2>&1; then
        passed=$((passed + 1)); note "build $folder" "ok"
    else
        grep -E 'error|Error|FAILED|undefined' "$log" | head -n 20
        failed=$((failed + 1)); note "build $folder" "FAILED"
        return 1
    fi
}
finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed = 0 ]
    exit
}
# Criterion prints "Synthesis: Tested: 21 | Passing: 21 | Failing: 0 | Crashing: 0". Skipped tests are not among the tested ones, and it tells them only when asked to be verbose.
suite() {   # suite LABEL PROGRAM [PRELOAD [ARGUMENT...]]
    local line status tested passing skips
    timeout -k 5 900 env ${3:+LD_PRELOAD="$3"} "$2" --short-filename --verbose "${@:4}" >"$log" 2>&1
    status=$?
    line=$(grep -a 'Synthesis: Tested:' "$log" | tail -n 1 | sed 's/\x1b\[[0-9;]*m//g')
    tested=$(sed -n 's/.*Tested: \([0-9]*\).*/\1/p' <<<"$line")
    passing=$(sed -n 's/.*Passing: \([0-9]*\).*/\1/p' <<<"$line")
    skips=$(sed 's/\x1b\[[0-9;]*m//g' "$log" | grep -a '^\[SKIP\]' | grep -c -v ': Test is disabled')
    if [ -z "$tested" ]; then                              # it crashed, or took too long
        failed=$((failed + 1)); note "$1" "FAILED with status $status"; tail -n 30 "$log"
        return
    fi
    # a sanitizer's report at the end of a test's process does not fail the test by itself
    if grep -a -qE 'ERROR: (Address|Leak)Sanitizer|: runtime error: ' "$log"; then status=sanitizer; fi
    passed=$((passed + passing)) skipped=$((skipped + skips)) failed=$((failed + tested - passing))
    if [ "$status" = 0 ] && [ "$tested" = "$passing" ]; then
        note "$1" "$passing passed$([ "$skips" = 0 ] || echo ", $skips skipped")"
    else
        [ "$tested" != "$passing" ] || failed=$((failed + 1))
        note "$1" "$((tested - passing)) of $tested FAILED, status $status"; grep -a -vE '^\[(----\]   *$|PASS|RUN |SKIP)' "$log" | tail -n 60
    fi
}
# Scripts that end with our own closing line run beside what comes next: they use one core.
begin_script() {   # begin_script NAME COMMAND...
    local name=$1; shift
    timeout -k 5 900 "$@" >"$out/$name.log" 2>&1 &
    declare -g "pid_$name=$!"
}
end_script() {   # end_script NAME LABEL
    local log=$out/$1.log pid=pid_$1 label=$1$2 line status
    wait "${!pid}"
    status=$?
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -n 1)
    if [ -z "$line" ]; then
        failed=$((failed + 1)); note "$label" "FAILED"; tail -n 30 "$log"
        return
    fi
    set -- $line
    passed=$((passed + $1)) failed=$((failed + $3)) skipped=$((skipped + $5))
    if [ "$3" = 0 ] && [ $status != 0 ]; then      # a sanitizer has something to say
        failed=$((failed + 1)); note "$label" "FAILED with status $status"; head -n 60 "$log"
        return
    fi
    note "$label" "$line"
    [ "$3" = 0 ] || grep -v ' passed, ' "$log" | head -n 60
}
driver() { export VK_ICD_FILENAMES=$1 VK_DRIVER_FILES=$1; }
driver_name() { basename "$1" .json | sed 's/_icd.*//; s/^lvp$/lavapipe/; s/^vk_swiftshader$/SwiftShader/'; }
uses_device() { grep -qE '(driver|harness|caller|counted)\.h|vkm_device_create' "tests/$1.c" && ! grep -q null_driver.h "tests/$1.c"; }

build build-test "-DCMAKE_C_FLAGS_DEBUG=-O2 -g1" || finish
if [ -n "$fast" ]; then note "sanitizers" "left out: --fast"
else build build-asan "-DCMAKE_C_FLAGS_DEBUG=-O1 -g1" -DVKMOE_SANITIZE=address,undefined -DVKMOE_EXAMPLES=OFF -DVKMOE_SPIRV_DIR=build-test/spirv || finish; fi
suites=$(cd tests && ls test_*.c | sed 's/\.c$//')
lavapipe=$(ls /usr/share/vulkan/icd.d/lvp_icd*.json 2>/dev/null | head -n 1)
if [ ${#icds[@]} = 0 ]; then
    if [ -n "$lavapipe" ]; then icds+=("$lavapipe"); else skip "lavapipe" "no lvp_icd.json in /usr/share/vulkan/icd.d"; fi
    if [ -n "$(swiftshader)" ]; then icds+=("$(swiftshader)"); else skip "SwiftShader" "no driver file found: name one in VKMOE_SWIFTSHADER_ICD"; fi
fi

# ---- SPIR-V
good=0 bad=0
for module in build-test/spirv/*.spv; do
    if spirv-val --target-env vulkan1.1 "$module" >"$log" 2>&1; then good=$((good + 1)); else bad=$((bad + 1)); echo "$module"; head -n 3 "$log"; fi
done
passed=$((passed + good)) failed=$((failed + bad))
note "spirv-val" "$good passed$([ $bad = 0 ] || echo ", $bad FAILED")"

# ---- a suite, or the program, on a driver: with sanitizers where there are. Drivers leak: see lsan.supp.
# Drivers' compilers allocate millions of blocks: stacks of two frames and a small quarantine save a third of the time. To find a fault, run the suite again with ASAN_OPTIONS empty.
export LSAN_OPTIONS=suppressions=$root/tests/lsan.supp:print_suppressions=0 UBSAN_OPTIONS=print_stacktrace=1 ASAN_OPTIONS=malloc_context_size=2:quarantine_size_mb=16
asan=$(cc -print-file-name=libasan.so) preload=""
# A driver that is unloaded when leaks are looked for would be blamed for what it still holds: it is loaded before, and stays. (Unwinding by
# fast_unwind_on_malloc=0 to name its frames deadlocks in Criterion's child processes.)
if [ ${#icds[@]} -gt 0 ]; then
    library=$(jq -r .ICD.library_path "${icds[0]}")
    case $library in /*) ;; */*) library=$(dirname "${icds[0]}")/$library ;; esac
    preload="$asan $library"
fi
sanitized() { suite "$1${2:+, $2}, sanitizers" "build-asan/tests/$1" "${2:+$preload}" "${@:3}"; }

# ---- threads. Where addresses are too random for ThreadSanitizer it needs them not to be
if [ -z "$fast" ] && targets="--target threads" build build-tsan "-DCMAKE_C_FLAGS_DEBUG=-O0 -g1" -DVKMOE_SANITIZE=thread -DVKMOE_SPIRV_DIR=build-test/spirv; then
    # shellcheck disable=SC2046
    begin_script threads $(setarch -R true 2>/dev/null && echo setarch -R) build-tsan/tests/threads examples/model/tavern-qwen3moe.gguf
    end_script threads ", ThreadSanitizer"
fi

# ---- suites: those without a device once, the others on every driver
for name in $suites; do
    uses_device "$name" && continue
    if [ -n "$fast" ]; then suite "$name" "build-test/tests/$name"; else sanitized "$name" ""; fi
done
# Numbers that come out of kernels are tested without sanitizers, and first: a driver's compiler takes three times as long under them, and what it compiled is in its cache then.
numbers() {   # numbers NAME: the pattern of those tests; "*" all
    case $1 in
    test_kernels | test_bench_layer) echo '*' ;;
    test_model) echo '!(features)/*|features/unlike_types' ;;          # features: variants of files
    test_session) echo '@(sampling|generate|half)/*|audit/!(gpu_shape)|state/@(rewind|passes|tuning*)|stop/!(callback)' ;;
    test_sequences) echo 'batch/*' ;;
    test_load) echo 'load/every_word*' ;;
    test_frame) echo 'frame/*' ;;
    test_layer) echo 'layer/!(says_what_is_wrong|workspaces_and_weights_are_shared)' ;;   # thousands of small allocations
    test_router) echo '!(descriptions)/*' ;;
    esac
}
on_driver() {   # on_driver ICD COMMAND...: for every suite that uses a device, with its name
    local name
    driver "$1"
    for name in $suites; do uses_device "$name" && "${@:2}" "$name" "$(driver_name "$1")"; done
}
whole() { suite "$1, $2" "build-test/tests/$1"; }
plain_part() {
    local of; of=$(numbers "$1")
    case $of in "") ;; '*') whole "$@" ;; *) suite "$1, $2" "build-test/tests/$1" "" --filter "@($of)" ;; esac
}
sanitized_part() {
    local of; of=$(numbers "$1")
    case $of in "") sanitized "$@" ;; '*') ;; *) sanitized "$@" --filter "!($of)" ;; esac
}
brief() {       # what these test is the same on every driver: files, threads, the program's figures
    case ${VKMOE_TEST_FULL:-}:$1 in
    :test_load | :test_bench_layer | :test_sequences | :test_frame) skip "$1, $2" "on the first driver only" ;;
    *) whole "$@" ;;
    esac
}

# The other drivers' suites run beside the first one's, so that no processor waits for the last test of a suite; what they print comes at the end.
other_drivers() {
    local icd
    passed=0 failed=0 skipped=0 log=$out/others.suite
    export VKMOE_TEST_BRIEF=1
    for icd in "${icds[@]:1}"; do on_driver "$icd" brief; done
    echo "$passed $failed $skipped" >"$out/others.counts"
}
if [ ${#icds[@]} -gt 0 ]; then
    other_drivers >"$out/others.log" 2>&1 &
    pid_others=$!
    driver "${icds[0]}"
    begin_script test_install tests/test_install.sh build-test
    begin_script test_engine tests/test_engine.sh build-test
    if [ -n "$fast" ]; then
        begin_script test_cli tests/test_cli.sh build-test/vkmoe build-test/vkmoe
        on_driver "${icds[0]}" whole
    else
        on_driver "${icds[0]}" plain_part
        printf '#!/bin/sh\nLD_PRELOAD="%s" exec "%s/build-asan/vkmoe" "$@"\n' "$preload" "$root" >"$out/vkmoe"
        chmod +x "$out/vkmoe"
        begin_script test_cli tests/test_cli.sh "$out/vkmoe" build-test/vkmoe
        on_driver "${icds[0]}" sanitized_part
    fi
    end_script test_install ", $(driver_name "${icds[0]}")"
    end_script test_engine ", $(driver_name "${icds[0]}")"
    end_script test_cli ", $(driver_name "${icds[0]}")$([ -n "$fast" ] || echo ", sanitizers")"
    wait "$pid_others"
    cat "$out/others.log"
    if read -r more_passed more_failed more_skipped <"$out/others.counts"; then
        passed=$((passed + more_passed)) failed=$((failed + more_failed)) skipped=$((skipped + more_skipped))
    else failed=$((failed + 1)); note "other drivers" "FAILED"; fi
fi
finish
