# Sourced. Packages of another suite or architecture of Debian as files in a folder: nothing is installed, and apt's own state stays as it is.

# debian_apt SUITE ARCHITECTURE FOLDER ARGUMENT...: apt-get with lists and a cache of its own, from the mirror that apt is configured with
debian_apt() {
    local suite=$1 arch=$2 folder=$3 mirror; shift 3
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -m 1 '/debian/$')
    mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial"
    printf '%s [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' deb "${mirror:-http://deb.debian.org/debian/}" "$suite" deb-src "${mirror:-http://deb.debian.org/debian/}" "$suite" >"$folder/sources.list"
    apt-get -qq -o Dir::Etc::SourceList="$folder/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$folder/lists" -o Dir::Cache="$folder/cache" -o Dir::State::status=/dev/null \
        -o APT::Architecture="$arch" -o APT::Architectures="$arch" -o APT::Install-Recommends=false -o APT::Sandbox::User=root -o Acquire::Languages=none -o Debug::NoLocking=1 "$@"
}

# debian_root SUITE ARCHITECTURE FOLDER PACKAGE...: the packages and all that they depend on, unpacked in FOLDER/root
debian_root() {
    local suite=$1 arch=$2 folder=$3 archive; shift 3
    [ ! -e "$folder/root/complete" ] || return 0
    debian_apt "$suite" "$arch" "$folder" update && debian_apt "$suite" "$arch" "$folder" install --download-only -y "$@" || return 1
    for archive in bin sbin lib; do mkdir -p "$folder/root/usr/$archive" && ln -sfn "usr/$archive" "$folder/root/$archive"; done
    for archive in "$folder"/cache/archives/*.deb; do dpkg-deb --fsys-tarfile "$archive" | tar -x -C "$folder/root" --keep-directory-symlink || return 1; done
    rm -rf "$folder/cache" "$folder/lists"
    touch "$folder/root/complete"
}
