#!/usr/bin/env bash
# What others get: the installed package (symbols, header, CMake package, pkg-config), the programs of tests/consumers built with it, and the source archive, built without glslang.
#   test_install.sh BUILD_FOLDER
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
build=$(readlink -f "${1:-$root/build-test}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
check() { local name=$1; shift; if "$@" >"$work/log" 2>&1; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED $name"; head -n 15 "$work/log"; fi; }
skip() { skipped=$((skipped + 1)); echo "SKIPPED $1"; }
no_lines() { ! grep .; }           # of standard input

# ---- the installed tree, moved away from where it was installed
check "install" cmake --install "$build" --prefix "$work/elsewhere"
prefix=$work/usr
mv "$work/elsewhere" "$prefix"
lib=$(dirname "$(find "$prefix" -name libvkmoe.so)")
model=$prefix/share/vkmoe/tavern-qwen3moe.gguf
header=$prefix/include/vkmoe.h
version=$(sed -n 's/^#define VKM_VERSION_[A-Z]* //p' "$header" | paste -sd .)

exported() { nm -D --defined-only "$lib/libvkmoe.so" | awk '{print $3}' | sort; }
grep -oE '\bvkm_[a-z0-9_]+\(' "$header" | tr -d '(' | sort -u >"$work/declared"
exported >"$work/exported"
check "the shared library exports what the header declares, and nothing else" diff "$work/declared" "$work/exported"
soname() { readelf -d "$lib/libvkmoe.so" | grep -q "SONAME.*\[libvkmoe\.so\.${version%.*}\]"; }
check "its SONAME is of version ${version%.*}" soname
# vkCreateInstance ... of an engine or its volk must stay theirs, and nobody else's names be taken
own_names() { nm -g "$lib/libvkmoe.a" | awk 'NF == 3 && $3 !~ /^vkm_/ || NF == 2 && $1 == "U" && $2 ~ /^vk[A-Z]/' | no_lines; }
check "the static library defines vkm_* only, and wants no Vulkan function of the linker" own_names
runtime_part() { cmake --install "$build" --prefix "$work/runtime" --component vkmoe_runtime && [ "$(cd "$work/runtime" && find . -type f)" = "./${lib#"$prefix/"}/libvkmoe.so.$version" ]; }
check "what running needs is a part of its own" runtime_part

echo '#include "vkmoe.h"
int main(void) { return vkm_version() == 0; }' >"$work/header.c"
strict="-pedantic -Wall -Wextra -Werror -fsyntax-only -I$prefix/include"
for compiler in gcc clang; do
    command -v $compiler >/dev/null || { skip "the header with $compiler: it is not installed"; continue; }
    # shellcheck disable=SC2086
    for standard in c99 c11; do check "the header is $standard, $compiler" $compiler -std=$standard $strict "$work/header.c"; done
    # shellcheck disable=SC2086
    check "the header is C++17, $compiler" $compiler -x c++ -std=c++17 $strict "$work/header.c"
done

# ---- consumers, from a folder outside of the repository
cp -r "$root/tests/consumers" "$work/consumers"
sed -n '/^```c$/,/^```$/p' "$root/README.md" | sed '/^```c$/d; /^```$/q' | sed '/^```$/d' >"$work/readme.c"      # its first C example
check "README has an example" grep -q vkm_session_generate "$work/readme.c"
export PKG_CONFIG_PATH=$lib/pkgconfig
strict="-Wall -Wextra -Werror"
check "find_package and pkg-config" cmake -S "$work/consumers" -B "$work/b" -DCMAKE_PREFIX_PATH="$prefix" -DREADME="$work/readme.c" -DCMAKE_C_FLAGS="$strict" -DCMAKE_CXX_FLAGS="$strict"
check "consumers build" cmake --build "$work/b" --parallel 2
says() { "${@:2}" >"$work/said" && cat "$work/said" && grep -q "$1" "$work/said"; }
for kind in static shared; do
    check "C, $kind" says "^vkmoe $version: 6 tokens" "$work/b/hello_$kind" "$model"
    check "C++, $kind" says "^vkmoe $version: 6 tokens" "$work/b/hello_cpp_$kind" "$model"
    check "an engine with volk, $kind" says ' submissions of vkmoe' "$work/b/engine_volk_$kind" "$model"
    check "an engine with the loader, $kind" says ' submissions of vkmoe' "$work/b/engine_loader_$kind" "$model"
done
check "pkg-config" says "^vkmoe $version: 6 tokens" env LD_LIBRARY_PATH="$lib" "$work/b/hello_pkgconfig" "$model"
check "the example of README.md" says . "$work/b/readme" "$model"
static_pkg_config() {
    rm "$lib"/libvkmoe.so*
    # shellcheck disable=SC2046
    cc "$work/consumers/hello.c" -o "$work/hello" $(pkg-config --static --cflags --libs vkmoe) && "$work/hello" "$model"
}
check "pkg-config --static" static_pkg_config
check "the installed program finds the bundled model" "$prefix/bin/vkmoe" tokenize -p "The storm"

# ---- the source archive
if [ -z "${VKMOE_TEST_FULL:-}" ]; then
    skip "the source archive, which is built once more: with VKMOE_TEST_FULL"
elif git -C "$root" rev-parse HEAD >/dev/null 2>&1; then
    spirv=$(sed -n 's/^VKMOE_SPIRV_DIR:PATH=//p' "$build/CMakeCache.txt")
    spirv=${spirv:-$build/spirv}
    mkdir "$work/one" "$work/two"
    twice() {
        "$root/cmake/dist.sh" --draft "$root" "$spirv" "$work/one/vkmoe-$version.tar" &&
            (umask 077 && TZ=Asia/Tokyo "$root/cmake/dist.sh" --draft "$root" "$spirv" "$work/two/vkmoe-$version.tar") && cmp "$work"/*/vkmoe-"$version".tar
    }
    check "the archive is the same twice" twice
    tar -x -C "$work" -f "$work/one/vkmoe-$version.tar"
    [ "$(ls "$build"/spirv/*.spv 2>/dev/null | wc -l)" = 0 ] ||
        check "it has every module" [ "$(ls "$work/vkmoe-$version"/shaders/spirv/*.h | wc -l)" = "$(ls "$build"/spirv/*.spv | wc -l)" ]
    # a glslang that fails, and tells that it was asked
    mkdir "$work/fake"
    for name in glslang glslangValidator; do printf '#!/bin/sh\ntouch "%s/asked"; exit 1\n' "$work" >"$work/fake/$name"; done
    chmod +x "$work"/fake/*
    sub() { PATH=$work/fake:$PATH cmake -S "$work/consumers/subdirectory" -B "$work/s" -DCMAKE_BUILD_TYPE=Debug -DVKMOE="$work/vkmoe-$version"; }
    check "add_subdirectory of the archive" sub
    check "it builds without glslang" cmake --build "$work/s" --parallel 2
    check "glslang was not asked" [ ! -e "$work/asked" ]
    for kind in static shared; do check "what was built runs, $kind" says "^vkmoe $version: 6 tokens" "$work/s/hello_$kind" "$model"; done
    echo "// changed" >>"$work/vkmoe-$version/shaders/fill.comp"
    changed() { sub; [ -e "$work/asked" ]; }
    check "a changed shader is not taken from the archive's modules" changed
else
    skip "the source archive: this is no git checkout"
fi
check "examples/moe_layer.c" "$build/examples/moe_layer"
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
