#!/usr/bin/env bash
# What is installed: symbols, header, CMake package, pkg-config, and the example of README.md built with each.   test_install.sh BUILD_FOLDER
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
build=$(readlink -f "${1:-$root/build-test}")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0
check() { local name=$1; shift; if "$@" >"$work/log" 2>&1; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED $name"; head -n 15 "$work/log"; fi; }

prefix=$work/usr
check "install" cmake --install "$build" --prefix "$prefix"
lib=$(dirname "$(find "$prefix" -name libvkmoe.so)")
only_vkm() { ! nm -D --defined-only "$lib/libvkmoe.so" | awk '{print $3}' | grep -v '^vkm_'; }
check "the shared library exports vkm_* only" only_vkm
declared() { grep -oE '\bvkm_[a-z_]+\(' "$prefix/include/vkmoe.h" | tr -d '(' | sort -u; }
exported() { nm -D --defined-only "$lib/libvkmoe.so" | awk '{print $3}' | sort -u; }
declared >"$work/declared"; exported >"$work/exported"
check "it exports what the header declares" diff "$work/declared" "$work/exported"

# The header alone, as C99 and as C++17
echo '#include "vkmoe.h"
int main(void) { return vkm_version() == 0; }' >"$work/header.c"
check "header is C99" cc -std=c99 -pedantic -Wall -Wextra -Werror -I"$prefix/include" -fsyntax-only "$work/header.c"
check "header is C++17" c++ -x c++ -std=c++17 -pedantic -Wall -Wextra -Werror -I"$prefix/include" -fsyntax-only "$work/header.c"

# The first C example of README.md
sed -n '/^```c$/,/^```$/p' "$root/README.md" | sed '/^```c$/d; /^```$/q' | sed '/^```$/d' >"$work/example.c"
check "README has an example" grep -q vkm_session_generate "$work/example.c"
cat >"$work/CMakeLists.txt" <<'CMAKE'
cmake_minimum_required(VERSION 3.25)
project(example LANGUAGES C)
find_package(vkmoe 0.1 REQUIRED)
foreach(kind static shared)
  add_executable(example_${kind} example.c)
  target_link_libraries(example_${kind} PRIVATE vkmoe::vkmoe_${kind})
endforeach()
CMAKE
check "find_package" cmake -S "$work" -B "$work/b" -DCMAKE_PREFIX_PATH="$prefix"
check "the example builds" cmake --build "$work/b"
model=$prefix/share/vkmoe/tavern-qwen3moe.gguf
for kind in static shared; do
    check "the example runs, $kind" "$work/b/example_$kind" "$model"
    cp "$work/log" "$work/said"
    check "the example prints, $kind" [ -s "$work/said" ]
done
export PKG_CONFIG_PATH=$lib/pkgconfig
# pkg-config names the prefix of the build; here it was installed elsewhere
with_pkg_config() { cc "$work/example.c" -o "$work/example" $(pkg-config --define-variable=prefix="$prefix" --define-variable=libdir="$lib" --define-variable=includedir="$prefix/include" --cflags --libs vkmoe) -Wl,-rpath,"$lib" && "$work/example" "$model"; }
check "pkg-config" with_pkg_config
check "the installed program finds the bundled model" "$prefix/bin/vkmoe" run -p "The storm" -n 2 --no-cache
echo "$passed passed, $failed failed, 0 skipped"
[ $failed = 0 ]
