# Debian packages for examples/quickstart.sh and tests/run.sh; sourced by both.
vkmoe_build_packages="build-essential cmake ninja-build pkg-config libvulkan-dev glslang-tools libpcre2-dev"
vkmoe_driver_packages="mesa-vulkan-drivers"

# Whether the Vulkan loader has a driver to load: then Mesa's are not needed.
have_vulkan_driver() {
    [ -n "${VK_ICD_FILENAMES:-}${VK_DRIVER_FILES:-}" ] && return 0
    ls /usr/share/vulkan/icd.d/*.json /usr/local/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json >/dev/null 2>&1
}

# need_packages PACKAGE...: installs what is missing, and touches neither apt nor the network when nothing is.
# Elsewhere than on Debian and its relatives, and without root, it says what is missing and lets the build try.
need_packages() {
    local package missing="" sudo=""
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        echo "This system has no apt. What these Debian packages hold must be there: $*" >&2
        return 0
    fi
    for package; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ]; then
        sudo=$(command -v sudo) || { echo "Missing packages, and no root or sudo to install them. Ask for: apt-get install$missing" >&2; return 0; }
    fi
    echo "Installing:$missing" >&2
    local log
    log=$(mktemp)
    # shellcheck disable=SC2086
    if ! { $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
        tail -n 5 "$log" >&2
        echo "apt-get could not install:$missing" >&2
        rm -f "$log"
        return 1
    fi
    rm -f "$log"
}
