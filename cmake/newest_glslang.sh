#!/usr/bin/env bash
# Debian's newest glslang with the libraries it needs, in FOLDER; prints the program's name, for -DGLSLANG=$(cmake/newest_glslang.sh FOLDER). Nothing is installed. For x86-64.
set -euo pipefail
[ $# = 1 ] || { echo "usage: newest_glslang.sh FOLDER" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
. "$(dirname "$0")/debian_root.sh"
debian_root sid amd64 "$folder" glslang-tools >"$folder/log" 2>&1 || { tail -n 5 "$folder/log" >&2; exit 1; }
root=$folder/root/usr
program=$root/bin/glslang
[ -e "$program" ] || program=$root/bin/glslangValidator
printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' "$root/lib64/ld-linux-x86-64.so.2" "$root/lib/x86_64-linux-gnu" "$program" >"$folder/glslang"
chmod +x "$folder/glslang"
"$folder/glslang" --version >&2
echo "$folder/glslang"
