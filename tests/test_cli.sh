#!/usr/bin/env bash
# The program from outside: exit statuses, messages, formats, signals.   test_cli.sh [PROGRAM [PROGRAM]]   the second measures (bench, tune) where the first has sanitizers; needs jq; ends with "N passed, N failed, N skipped".
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
vkmoe=$(readlink -f "${1:-$root/build-test/vkmoe}")
measuring=$(readlink -f "${2:-$vkmoe}")
model=$root/examples/model/tavern-qwen3moe.gguf
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export MESA_SHADER_CACHE_DIR=${MESA_SHADER_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}}     # Mesa goes on with its own cache: without, it compiles for minutes
export XDG_CACHE_HOME=$work/cache
unset VKMOE_MODEL VKMOE_DEVICE VKMOE_CAPS NO_COLOR
passed=0 failed=0 skipped=0

ok() { passed=$((passed + 1)); }
no() { failed=$((failed + 1)); printf 'FAILED %s\n' "$1"; [ $# -lt 2 ] || printf '%s\n' "$2" | head -5 | sed 's/^/    /'; }
is() { if [ "$2" = "$3" ]; then ok; else no "$1" "got '$2', expected '$3'"; fi; }
has() { case $2 in *"$3"*) ok ;; *) no "$1" "no '$3' in: $2" ;; esac; }
# status NAME EXPECTED ARGUMENT...: runs the program; leaves $out and $err.
status() {
    local name=$1 expected=$2 got; shift 2
    timeout 300 "$vkmoe" "$@" >out 2>err </dev/null
    got=$? out=$(tr -d '\0' <out) err=$(cat err)
    if [ $got = "$expected" ]; then ok; else no "$name" "exit status $got, expected $expected: $err"; fi
}
# What was run with sanitizers already, and is run again for another value, goes without: a third of the time.
again() { local vkmoe=$measuring; "$@"; }
# A failure says why in one line.
fails() { status "$@"; local n; n=$(printf '%s\n' "$err" | wc -l); if [ "$n" = 1 ] && [ "${err#vkmoe: }" != "$err" ] && [ -z "$out" ]; then ok; else no "$1: one line 'vkmoe: ...' on stderr" "$err$out"; fi; }
json() { if jq -e "$2" >/dev/null 2>jq.err <out; then ok; else no "$1" "jq '$2' $(cat jq.err; head -c 300 out)"; fi; }

# ---- usage
status "no command" 2
has "no command shows usage" "$err" "Usage:"
for args in --help -h help "help run" "run --help" "logits -h" "tokenize --help" "info --help" "bench --help" "help bench" "bench model -h" "help bench compare" "run --bogus --help" --version; do
    status "$args" 0 $args
    if [ -n "$out" ] && [ -z "$err" ]; then ok; else no "$args is printed to stdout" "$err"; fi
done
has "--version" "$out" "vkmoe 0."
for command in run logits tokenize info tune; do
    status "help $command" 0 help $command
    has "help $command has examples" "$out" "vkmoe $command"
    has "help $command names --help" "$out" "--help"
done
for command in roofline layer model kernels compare; do
    status "help bench $command" 0 help bench $command
    has "help bench $command has examples" "$out" "vkmoe bench $command"
done
status "bench" 2 bench
has "bench shows its commands" "$err" "compare"
usage() { local name=$1 word=$2; shift 2; fails "$name" 2 "$@"; has "$name names it" "$err" "$word"; has "$name points at help" "$err" "--help"; }
usage "unknown command" frobnicate frobnicate
usage "unknown option" --frobnicate run --frobnicate
usage "unknown letter" -z run -p x -z
usage "option of another command" "vkmoe logits" run -p x --decode
usage "argument too many" extra run -p x extra
usage "missing value" --prompt run -p
usage "value for a flag" --ignore-eos run --ignore-eos=1
usage "no prompt" -p run
usage "two prompts" -p run -p x -f y
usage "logits without output" -o logits --tokens 1
usage "logits without tokens" --tokens logits -o x.npy
usage "unknown bench" frobnicate bench frobnicate
usage "bench with an option" --json bench --json
usage "bench model of a file" extra bench model extra
usage "bench compare of one file" "2 files" bench compare a.json
usage "two formats" --csv bench compare a.json b.json --json --csv
usage "option of another bench" "bench layer" bench model --shape all
for bad in "-p x" "-p 1,,2" "-p -1" "-p 99999999999" "-p 0 -n 0" "-r 0" "--budget 0" "--kv f8" "-n 1,"; do fails "bench model $bad" 2 bench model $bad; done
for bad in "-n 12x" "-n 1e3" "-n -2" "-n=" "-n 99999999999999999999" "--temp nan" "--temp x" "--temp -1" "--temp=" "--top-p 1.5" "--top-k -1" "--min-p 2" "--seed 4294967296" \
           "--repeat-last-n 257" "-c -1" "-b 1.5" "--kv f8" "--kv f16|f32" "--kv="; do
    fails "run $bad" 2 run -p x $bad
done
for bad in x 1,x "1,,2" "-1" "1.5" 99999999999 "1;2" ""; do fails "logits --tokens '$bad'" 2 logits --tokens "$bad" -o x.npy; done

# ---- files that are not what they should be
fails "missing model" 1 run -m nowhere.gguf -p x
has "missing model is named" "$err" nowhere.gguf
fails "missing prompt file" 1 run -f nowhere.txt
echo "no model" >text.gguf
fails "not a model: tokenize" 1 tokenize -m text.gguf -p x
fails "not a model: logits" 1 logits -m text.gguf --tokens 1 -o x.npy
head -c 100000 "$model" >short.gguf
fails "truncated model" 1 logits -m short.gguf --tokens 1 -o x.npy
fails "no such device" 1 run -p x --device "no such device"
fails "no such caps" 1 run -p x --caps bogus
VKMOE_DEVICE="no such device" fails "VKMOE_DEVICE" 1 run -p x
VKMOE_CAPS=bogus fails "VKMOE_CAPS" 1 run -p x
VKMOE_MODEL=nowhere.gguf fails "VKMOE_MODEL" 1 run -p x
VK_ICD_FILENAMES=/nowhere.json VK_DRIVER_FILES=/nowhere.json status "no driver" 1 run -p x
has "no driver: message" "$err" "vkmoe: "
VK_ICD_FILENAMES=/nowhere.json VK_DRIVER_FILES=/nowhere.json status "info without driver" 0 info --json
json "info without driver" '.devices == []'

# ---- tokenize
status "tokenize" 0 tokenize -p "Hello there, traveller."
is "tokenize: a line a token" "$(cut -f1 out | grep -c '^[0-9]*$')" "$(wc -l <out)"
status "tokenize --json" 0 tokenize -p "Hello there, traveller." --json
json "tokenize --json" '.n == (.ids | length) and .n == (.pieces | length) and .n > 2 and (.ids | all(. >= 0))'
status "tokenize empty" 0 tokenize --json --no-special -p ""
json "tokenize empty" '.n == 0 and .ids == []'
printf 'a\0b\xff\xfe"\\\n\tc' | "$vkmoe" tokenize --json -p - >out 2>err
json "tokenize bytes of stdin" '.n > 5 and (.ids | length) == (.pieces | length)'
printf 'a\0b\xff\xfe"\\\n\tc' >bytes
"$vkmoe" tokenize --json -f bytes | cmp -s - out && ok || no "tokenize -f is tokenize -p -"
seq 1 20000 | "$vkmoe" tokenize --json -p - >out
json "tokenize much" '.n > 20000'

# ---- info
status "info" 0 info
has "info shows devices" "$out" "Vulkan"
status "info --json" 0 info --json
json "info --json" '.version and (.devices | length > 0) and (.devices[0] | .name and .driver and .caps and .usable)'
status "info of everything" 0 info --json -m "$model" --kernels --keys --tensors
json "info of everything" '.model.architecture == "qwen3moe" and .model.supported and (.model.types | length > 0) and (.model.tensors | length > 10) and .model.keys["general.architecture"]
    and (.kernels | length > 20) and (.kernels | all(.name and .tier and (.available | type == "boolean")))'
json "info: tensors add up" '([.model.types[].tensors] | add) == (.model.tensors | length) and ([.model.types[].bytes] | add) == ([.model.tensors[].bytes] | add)'
status "info as text" 0 info -m "$model" --kernels --keys --tensors
has "info as text: experts" "$out" "experts of a token"
has "info as text: kernels" "$out" moe_gate_up
status "info --caps" 0 info --caps baseline --kernels --json
json "info --caps: only baseline kernels" '[.kernels[] | select(.available) | .tier] | unique == ["baseline"]'
fails "info of no model" 1 info -m nowhere.gguf

# ---- run
prompt="The storm kept everyone inside that night."
status "run" 0 run -p "$prompt" -n 12 --seed 7
first=$out
has "run echoes the prompt" "$out" "$prompt"
has "run: summary" "$err" "tok/s"
has "run: seed in the summary" "$err" "seed 7"
again status "run again" 0 run -p "$prompt" -n 12 --seed=7
is "same seed, same text" "$out" "$first"
again status "run, another seed" 0 run --prompt="$prompt" -n12 -s 8
if [ "$out" != "$first" ]; then ok; else no "another seed, another text"; fi
status "run --json" 0 run -p "$prompt" -n 12 --seed 7 --json
json "run --json" '.n_generated == 12 and (.tokens | length) == 12 and .seed == 7 and .n_prompt > 0 and .generation_tokens_per_second > 0'
is "--json has the same text" "$(jq -r '.prompt + .text' out)" "$first"
again status "run --no-echo" 0 run -p "$prompt" -n 12 --seed 7 --no-echo
is "--no-echo" "$prompt$out" "$first"
echo "$prompt" | "$vkmoe" run -p - -n 12 --seed 7 >out 2>err
is "prompt from stdin" "$(cat out)" "$first"
echo "$prompt" >prompt.txt
status "run -f" 0 run -f prompt.txt -n 12 --seed 7
is "prompt from a file" "$out" "$first"
again status "run --temp 0" 0 run -p "$prompt" -n 12 --temp 0
greedy=$out
status "run --top-k 1" 0 run -p "$prompt" -n 12 --top-k 1 --temp 1.5
is "--top-k 1 is greedy" "$out" "$greedy"
again status "run -n 0" 0 run -p "$prompt" -n 0
is "run -n 0 prints the prompt" "$out" "$prompt"
status "run to the end of the context" 0 run -p "$prompt" -n -1 -c 64 --ignore-eos --temp 0 --json
json "context full" '.stop == "context full" and .n_prompt + .n_generated == 64'
fails_long=$(printf 'word %.0s' $(seq 300))
status "prompt too long" 1 run -p "$fails_long" -c 32 -n 1
has "prompt too long: says so" "$err" "-c"
again status "small batches" 0 run -p "$prompt" -n 12 --seed 7 -b 4
is "small batches, same text" "$out" "$first"
status "all sampling options" 0 run -p "$prompt" -n 4 --temp 1 --top-k 0 --top-p 1 --min-p 0 --repeat-penalty 1.1 --repeat-last-n 0 --kv f32 --special --parse-special --seed -1
"$vkmoe" run -p "$prompt" -n 50 --seed 7 2>err | head -c 1 >/dev/null
is "a closed pipe is no error" "${PIPESTATUS[0]}" 0
case $(cat err) in *rror*|*roken*) no "a closed pipe is quiet" "$(cat err)" ;; *) ok ;; esac
"$vkmoe" run -p "$prompt" -n 4 --seed 7 >/dev/full 2>err; is "a full disk is an error" $? 1
if script -qec true /dev/null </dev/null >/dev/null 2>&1; then      # there is such a program, and pseudo-terminals are to be had
    terminal() { TERM=xterm script -qec "$vkmoe run -p 'The storm' -n 4 --seed 1" /dev/null </dev/null 2>&1; }
    has "a terminal shows the prompt dimmed" "$(terminal)" $'\033[2m'
    case $(NO_COLOR=1 terminal) in *$'\033['*) no "NO_COLOR is respected" ;; *) ok ;; esac
else
    skipped=$((skipped + 2))
fi

# ---- Ctrl-C: the child is told once it has begun to speak
"$vkmoe" run -p "$prompt" -n -1 -c 4096 --ignore-eos >out 2>err &
child=$!
for _ in $(seq 600); do [ "$(stat -c %s out)" -gt 200 ] && break; kill -0 $child 2>/dev/null || break; sleep 0.1; done
kill -INT $child; wait $child; is "Ctrl-C: exit status" $? 1
has "Ctrl-C: summary" "$(cat err)" "(interrupted)"

# ---- logits
npy() { head -c 128 "$1" | tr -d '\0' | grep -a -o "'shape': ([0-9]*, [0-9]*)"; }
vocab=$("$vkmoe" info -m "$model" --json | jq .model.n_vocab)
ids=$("$vkmoe" tokenize -p "$prompt" --json | jq -r '.ids | join(",")')
n=$(echo "$ids" | tr , '\n' | wc -l)
status "logits -p" 0 logits -p "$prompt" -o p.npy
is "npy magic" "$(head -c 8 p.npy | od -An -tx1 | tr -d ' ')" 934e554d50590100
has "npy: little-endian f32" "$(head -c 128 p.npy | tr -d '\0')" "'descr': '<f4', 'fortran_order': False"
is "npy: shape" "$(npy p.npy)" "'shape': ($n, $vocab)"
is "npy: aligned header" $((($(stat -c %s p.npy) - n * vocab * 4) % 64)) 0
status "logits --tokens" 0 logits --tokens "$ids" -o t.npy
if cmp -s p.npy t.npy; then ok; else no "tokens and prompt give the same bits"; fi
status "logits in batches" 0 logits --tokens "$ids" -o b.npy -b 3
is "logits in batches: shape" "$(npy b.npy)" "'shape': ($n, $vocab)"
status "logits --decode" 0 logits --tokens "$ids" --decode --kv f16 -o d.npy
is "logits --decode: shape" "$(npy d.npy)" "'shape': ($n, $vocab)"
echo "$ids" | "$vkmoe" logits --tokens - -o s.npy 2>err
if cmp -s s.npy t.npy; then ok; else no "tokens from stdin" "$(cat err)"; fi
ln -s t.npy link.npy
status "logits to a link" 0 logits --tokens 1 -o link.npy
if [ -L link.npy ] && [ "$(npy t.npy)" = "'shape': (1, $vocab)" ]; then ok; else no "a link stays a link"; fi
status "logits to /dev/null" 0 logits --tokens 1 -o /dev/null
if [ -c /dev/null ]; then ok; else no "/dev/null is still a device"; fi
status "logits --print" 0 logits --tokens 1,2,3 --print
has "logits --print" "$out" "program"
status "logits --profile" 0 logits --tokens 1,2,3 --profile
has "logits --profile" "$out" " us"
fails "token out of range" 1 logits --tokens 1,99999999 -o bad.npy
fails "no directory" 1 logits --tokens 1 -o nowhere/x.npy
fails "a directory" 1 logits --tokens 1 -o .
status "logits --audit --validation" 0 logits --tokens 1,2,3,4,5,6,7,8,9,10 --audit --validation --no-cache -o a.npy
long=$(printf '5,%.0s' $(seq 3000))5
"$vkmoe" logits --tokens "$long" --decode -o killed.npy >out 2>err &
child=$!
for _ in $(seq 600); do ls killed.npy.*.part >/dev/null 2>&1 && break; kill -0 $child 2>/dev/null || break; sleep 0.1; done
kill -INT $child; wait $child; is "logits, Ctrl-C: exit status" $? 1
if [ -z "$(ls killed* bad* x.npy* 2>/dev/null)" ]; then ok; else no "no half-written file" "$(ls)"; fi

# ---- bench
vkmoe=$measuring
status "bench model" 0 bench model -p 9,16 -n 2 -r 1 --quick --json -o a.json --html a.html
is "bench model -o prints nothing" "$out" ""
cp a.json out
json "bench model --json" '.schema == "vkmoe-bench" and .schema_version == 1 and .complete and .device.driver and .device.tier and .host.cpu and (.commit | length > 0) and (.command | contains("bench model -p 9,16"))
    and ([.rows[] | select(.section == "model") | .key] | index("test=pp9") != null and index("test=pp16") != null and index("test=tg2") != null and index("memory=peak") != null)
    and ([.rows[].figures[] | select(has("invalid"))] == []) and ([.rows[] | select(.section == "step" and (.key | startswith("test=tg2 ")))] | length > 10)
    and (.rows[] | select(.key == "test=pp16") | .figures[0] | .name == "rate" and .unit == "tok/s" and .value > 0 and .runs == 1)'
json "bench model: logits" '.notes["logits_hash test=pp16"] | test("^[0-9a-f]{16}$")'
has "bench model --html" "$(head -c 15 a.html)" "<!DOCTYPE html>"
status "bench model as text" 0 bench model -p 16 -n 2 -r 1 --quick
has "bench model as text" "$out" "tok/s"
status "bench model --md" 0 bench model -p 9 -n 0 -r 1 --quick --md
has "bench model --md" "$out" "| pp9 |"
status "bench model --csv" 0 bench model -p 0 -n 1 -r 1 --quick --csv
has "bench model --csv" "$out" '"model","test=tg1","rate","tok/s",'
status "bench model, again" 0 bench model -p 16 -n 2 -r 1 --quick --json
cp out b.json
is "bench model: the same bits again" "$(jq -c '.notes | [.["logits_hash test=pp16"], .["tokens_hash test=tg2"]]' a.json)" "$(jq -c '.notes | [.["logits_hash test=pp16"], .["tokens_hash test=tg2"]]' b.json)"
if "$vkmoe" bench kernels --json >out 2>err; then
    json "bench kernels" '[.rows[] | select(.section == "kernel" and (.key | startswith("kernel=moe_gate_up ")))] | length > 1'
else has "bench kernels: the driver tells nothing" "$(cat err)" "VK_KHR_pipeline_executable_properties"; fi
status "bench compare" 0 bench compare a.json b.json --html c.html
has "bench compare: bits" "$out" "B has the same bits in the logits of test=pp16"
for format in --md --csv --json; do
    status "bench compare $format" 0 bench compare a.json b.json a.json $format -o c.out
    if [ -s c.out ]; then ok; else no "bench compare $format writes"; fi
done
echo '{}' >empty.json
fails "bench compare of something else" 1 bench compare a.json empty.json
fails "bench compare of nothing" 1 bench compare a.json nowhere.json
fails "bench layer of such tiles" 2 bench layer --tile 5
has "bench layer names the device's tiles" "$err" "tiles of 1, 4, 8"
again status "bench layer where nothing fits" 1 bench layer --shape switch-c-2048 --tokens 1 --caps heap=67108864
has "bench layer where nothing fits: says so" "$err" "nothing of that can be measured"
has "bench layer where nothing fits: says why" "$out$err" "the library takes up to 1024"
fails "bench model of no model" 1 bench model -m nowhere.gguf
fails "bench without a directory" 1 bench model -o nowhere/x.json
if [ ! -e nowhere ] && [ -z "$(ls ./*.part 2>/dev/null)" ]; then ok; else no "no half-written report"; fi
"$vkmoe" bench model -p 9 -n 4000 -r 1 --quick --json -v >out 2>err &
child=$!
for _ in $(seq 600); do grep -q tg4000 err && break; kill -0 $child 2>/dev/null || break; sleep 0.1; done
kill -INT $child; wait $child; is "bench, Ctrl-C: exit status" $? 1
json "bench, Ctrl-C: what was measured is there, and said to be incomplete" '.complete == false and ([.rows[] | select(.section == "model") | .key] == ["test=pp9"])'

# ---- tune
for bad in "--type q9" "--type q4_0,,q8_0" "--budget 0" "--check 0" "--check x" "--seed -1" "--tokens 1" "--check 1 --no-cache"; do fails "tune $bad" 2 tune $bad; done
status "info, not tuned" 0 info --json
json "info, not tuned" '.devices | all(.tuned == false)'
fails "tune --check of nothing" 1 tune --check 1
has "tune --check of nothing: says what to do" "$err" "vkmoe tune"
status "tune" 0 tune --type q8_0 --budget 0.001 --json --validation
json "tune --json" '.dispatch_ns >= 0 and .device and (.types | length == 1) and (.types[0] | .type == "q8_0" and .tiles[0].rows == 1 and (.tiles | all(.block_ns > 0)) and (.examples | length > 0))'
tuning=$(jq -r .file out)
if [ -s "$tuning" ] && [ "$(dirname "$tuning")" = "$XDG_CACHE_HOME/vkmoe" ]; then ok; else no "tune keeps it" "$tuning"; fi
status "info, tuned" 0 info
has "info, tuned" "$out" "     tuned"
status "info, tuned, other kernels" 0 info --caps baseline --json
json "info, tuned, other kernels" '.devices[0].tuned == false'
again status "run, tuned" 0 run -p "$prompt" -n 12 --seed 7
is "run, tuned, same text" "$out" "$first"
cp "$tuning" whole.bin
"$vkmoe" tune --type q8_0 --budget 3600 -v >out 2>err &
child=$!
for _ in $(seq 600); do grep -q Q8_0 err && break; kill -0 $child 2>/dev/null || break; sleep 0.1; done
kill -INT $child; wait $child; is "tune, Ctrl-C: exit status" $? 1
if cmp -s "$tuning" whole.bin && [ "$(ls "$XDG_CACHE_HOME"/vkmoe/tuning* | wc -l)" = 1 ]; then ok; else no "tune, Ctrl-C: what was known is still there" "$(ls "$XDG_CACHE_HOME/vkmoe")"; fi
head -c 100 whole.bin >"$tuning"
status "run, damaged tuning" 0 run -p "$prompt" -n 12 --seed 7 -v
is "run, damaged tuning, same text" "$out" "$first"
has "run, damaged tuning: said" "$err" "tuning in $XDG_CACHE_HOME/vkmoe is not used"
status "info, damaged tuning" 0 info --json
json "info, damaged tuning" '.devices | all(.tuned == false)'
fails "tune --check, damaged tuning" 1 tune --check 1
rm "$tuning"

# ---- pipeline cache
cache=$XDG_CACHE_HOME/vkmoe/pipelines.bin
if [ -s "$cache" ]; then ok; else no "the pipeline cache is written"; fi
head -c 100 /dev/urandom >"$cache"
status "damaged pipeline cache" 0 run -p "$prompt" -n 12 --seed 7
is "damaged pipeline cache, same text" "$out" "$first"
rm -rf "$XDG_CACHE_HOME"
again status "--no-cache" 0 run -p "$prompt" -n 2 --no-cache
if [ ! -e "$cache" ]; then ok; else no "--no-cache writes none"; fi
XDG_CACHE_HOME=/proc/none status "no place for a cache" 0 run -p "$prompt" -n 2

echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
