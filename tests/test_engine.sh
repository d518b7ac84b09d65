#!/usr/bin/env bash
# The engine example without a window, under the validation layer: its picture and its report.   test_engine.sh BUILD_FOLDER
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
tavern=$(readlink -f "${1:-$root/build-test}")/examples/engine/tavern
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
check() { local name=$1; shift; if "$@" >"$work/log" 2>&1; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED $name"; head -n 15 "$work/log"; fi; }
if [ ! -x "$tavern" ]; then echo "the engine example was not built"; echo "0 passed, 0 failed, 1 skipped"; exit 0; fi

# A PNG of 1280 x 720 that is whole, told by its sums, and has many colours: decoded here, since it was encoded by the example's own code.
picture() {
    perl -MCompress::Zlib -e '
        local $/; open F, "<:raw", $ARGV[0] or die "no file\n"; my $p = <F>;
        substr($p, 0, 8, "") eq "\x89PNG\r\n\x1a\n" or die "no PNG\n";
        my ($data, $end, $w, $h, %colours) = ("");
        while (length $p) {
            my ($n, $kind) = unpack "Na4", $p; my $body = substr $p, 8, $n;
            unpack("N", substr $p, 8 + $n, 4) == crc32($kind . $body) or die "sum of $kind\n";
            ($w, $h) = unpack "NN", $body if $kind eq "IHDR"; $data .= $body if $kind eq "IDAT"; $end = 1 if $kind eq "IEND";
            substr $p, 0, 12 + $n, "";
        }
        $end && $w == 1280 && $h == 720 or die "size\n";
        my $raw = uncompress($data) // die "stream\n"; length $raw == $h * ($w * 3 + 1) or die "rows\n";
        my @above = (0) x ($w * 3);
        for my $y (0 .. $h - 1) {
            my ($filter, @row) = unpack "C*", substr $raw, $y * ($w * 3 + 1), $w * 3 + 1; $filter == 2 or die "filter\n";
            @above = map { ($row[$_] + $above[$_]) & 255 } 0 .. $#row;
            $colours{join ",", @above[3 * $_ .. 3 * $_ + 2]} = 1 for map { $_ * 5 } 0 .. $w / 5 - 1;
        }
        keys %colours > 2000 or die scalar(keys %colours) . " colours\n";' "$1"
}
report() { jq -e "$1" "$work/report.json"; }

check "it runs, and the validation layer is silent" "$tavern" --headless --validation --frames 6 --tokens 4 --characters 3 --budget-ms 100 --inference off,budget,free --png "$work/tavern.png" --json "$work/report.json"
check "the picture" picture "$work/tavern.png"
check "the report: three kinds of frames" report '[.phases[].inference] == ["off", "budget", "free"] and .characters == 3 and .validation_messages == 0'
check "every frame was timed" report 'all(.phases[]; .frame_ms.n >= 6 and .frame_ms.p50 > 0 and .draw_ms.p50 > 0 and .frame_ms.p99 >= .frame_ms.p50)'
check "nothing is said while inference is off" report '.phases[0].tokens == 0'
check "tokens came" report 'all(.phases[1:][]; .tokens >= 4 and .added_ms.p95 > 0)'
refuses() { ! "$tavern" --headless "$@" && grep -q -e "$word" "$work/log"; }
word=budgets;  check "no unknown kind of inference" refuses --inference budgets
word=--frames; check "no zero frames" refuses --frames 0
word=nowhere;  check "no missing model" refuses --model nowhere.gguf
word="no device"; check "no unknown device" refuses --device nobody
echo "$passed passed, $failed failed, 0 skipped"
[ $failed = 0 ]
