#!/usr/bin/env bash
# The source archive: what git has of SOURCE, and in shaders/spirv every SPIR-V module as a header, so that who builds it needs no glslang. The same bits from the same commit
# and the same glslang. Run by the target `dist`, after the modules were made.
#   dist.sh [--draft] SOURCE SPIRV_FOLDER OUT.tar.xz|OUT.tar     --draft: also with changes that are not committed, and without modules that this glslang cannot make
set -euo pipefail
draft=""
[ "${1:-}" != --draft ] || { draft=1; shift; }
source=$1 spirv=$2 out=$3
fail() { echo "dist: $*" >&2; exit 1; }
name=$(basename "${out%.xz}" .tar)
case $out in *.xz) pack=(xz -T1) ;; *) pack=(cat) ;; esac      # more threads would be other bits
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
export LC_ALL=C TZ=UTC

if [ -z "$draft" ]; then
    git -C "$source" diff --quiet HEAD -- || fail "there are changes that are not committed"
fi
mkdir -p "$stage/$name/shaders/spirv"
git -C "$source" ls-files -z | (cd "$source" && tar --null --files-from=- -c) | tar -x -C "$stage/$name"
(cd "$source/shaders" && git ls-files . | sort | xargs sha256sum) >"$stage/$name/shaders/spirv/sources.sha256"

# a row is NAME VARIANT TIER FILE ..., see shaders.cmake
missing=0
while read -r kernel variant tier _; do
    [ "$variant" != - ] || variant=""
    header=${kernel}_${variant}_$tier.h
    if [ -f "$spirv/$header" ]; then cp "$spirv/$header" "$stage/$name/shaders/spirv/"; else missing=$((missing + 1)); last=$header; fi
done < <(grep '^[a-z]' "$source/shaders/variants.txt" | grep -v '^needs ')
[ $missing = 0 ] || [ -n "$draft" ] || fail "$missing modules are missing, $last among them: configure with a newer glslang (-DGLSLANG=PROGRAM, see cmake/newest_glslang.sh)"

when=$(git -C "$source" log -1 --format=%ct)
tar -C "$stage" --format=ustar --sort=name --mtime="@$when" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -c "$name" | "${pack[@]}" >"$stage/archive"
mv "$stage/archive" "$out"
echo "$out: $(stat -c %s "$out") bytes, $(sha256sum <"$out" | cut -c1-64)$([ $missing = 0 ] || echo ", without $missing modules")"
