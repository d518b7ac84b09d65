#!/usr/bin/env bash
# vkmoe beside llama.cpp: the same files, the same driver, by turns in one run. Prints a markdown table of tokens per second and ratios.
#
#   examples/bench/beside_llamacpp.sh [-p 128,512] [-n 64] [-r 2] MODEL.gguf...
#
#   -p, -n   prompt lengths, tokens to generate     -r   rounds: each program's best of so many counts
#
# Environment: VKMOE (default build/vkmoe) and LLAMA_BENCH (default llama-bench) are how the programs are run, with arguments if need be: a driver, a chroot, taskset.
# LLAMA_MODELS: the folder of the models as llama-bench sees it, if it is elsewhere for it. LLAMA_DEVICE (Vulkan0) as llama-bench --list-devices names it.
# LLAMA_SETTINGS: settings of its Vulkan backend to try, ";" between them; the best counts. Its defaults and plain f32 are tried when unset:
# on CPU drivers it takes f16 and cooperative matrices, which are emulated there and several times slower.
# LLAMA_CPU=no leaves its CPU backend out. LLAMA_ARGS: further arguments, e.g. "-fa 1".
set -euo pipefail
usage() { sed -n '2,14p' "$0" | sed 's/^# \{0,1\}//'; exit 2; }
prompts=128,512 generate=64 rounds=2
while getopts p:n:r:h option; do
    case $option in p) prompts=$OPTARG ;; n) generate=$OPTARG ;; r) rounds=$OPTARG ;; *) usage ;; esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || usage
read -ra vkmoe <<<"${VKMOE:-build/vkmoe}"
read -ra llama <<<"${LLAMA_BENCH:-llama-bench}"
read -ra extra <<<"${LLAMA_ARGS:-}"
IFS=';' read -ra settings <<<"${LLAMA_SETTINGS-X=1;GGML_VK_DISABLE_COOPMAT=1 GGML_VK_DISABLE_F16=1}"
tests=() best=$(mktemp) one=$(mktemp)
trap 'rm -f "$best" "$one"' EXIT
for p in ${prompts//,/ }; do tests+=("pp$p"); done
[ "$generate" = 0 ] || tests+=("tg$generate")

# Lines "TEST RATE" of a program, added to $best as "WHO TEST RATE".
ours() {
    "${vkmoe[@]}" bench model -m "$1" -p "$prompts" -n "$generate" -r 1 --quick --json >"$one" || { echo "vkmoe failed on $1" >&2; return 1; }
    jq -r '.rows[] | select(.section == "model" and (.key | test("^test=[a-z0-9]+$"))) | .key as $k | .figures[] | select(.name == "rate" and .value) | "vkmoe \($k[5:]) \(.value)"' "$one" >>"$best"
}
theirs() {   # theirs WHO MODEL SETTING ARGUMENT...
    local who=$1 model=${LLAMA_MODELS:+$LLAMA_MODELS/$(basename "$2")} setting=$3; shift 3
    # shellcheck disable=SC2086
    env GGML_VK_VISIBLE_DEVICES=0 $setting "${llama[@]}" -m "${model:-$file}" -p "$prompts" -n "$generate" -r 1 -t "$(nproc)" -o json "${extra[@]}" "$@" >"$one" 2>/dev/null ||
        { echo "llama-bench failed on $file with: $setting $*" >&2; return 1; }   # (it refuses CPU drivers without GGML_VK_VISIBLE_DEVICES)
    jq -r --arg who "$who" '.[] | "\($who) \(if .n_gen > 0 then "tg\(.n_gen)" else "pp\(.n_prompt)" end) \(.avg_ts)"' "$one" >>"$best"
}

echo "| model | test | vkmoe | llama.cpp Vulkan | ratio |$([ "${LLAMA_CPU:-}" = no ] || echo " its CPU backend | ratio |")"
echo "|---|---|---|---|---|$([ "${LLAMA_CPU:-}" = no ] || echo "---|---|")"
for file; do
    : >"$best"
    for ((i = 0; i < rounds; i++)); do
        ours "$file"
        for setting in "${settings[@]}"; do theirs vulkan "$file" "$setting" -dev "${LLAMA_DEVICE:-Vulkan0}" -ngl 99; done
        [ "${LLAMA_CPU:-}" = no ] || theirs cpu "$file" X=1 -dev none -ngl 0
    done
    for test in "${tests[@]}"; do
        awk -v test="$test" -v model="$(basename "$file" .gguf)" -v cpu="${LLAMA_CPU:-}" '
            $2 == test && $3 > best[$1] { best[$1] = $3 }
            END { printf "| %s | %s | %.1f | %.1f | %.2f |", model, test, best["vkmoe"], best["vulkan"], best["vulkan"] ? best["vkmoe"] / best["vulkan"] : 0
                  if (cpu != "no") printf " %.1f | %.2f |", best["cpu"], best["cpu"] ? best["vkmoe"] / best["cpu"] : 0
                  print "" }' "$best"
    done
done
