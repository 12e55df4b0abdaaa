#!/bin/sh
# Lays out a root file system that holds one program, the libraries that it needs, and nothing else.
# usage: bare-root.sh PROGRAM FOLDER
set -eu
program=$1
root=$2
mkdir -p "$root/tmp" "$root/data"
chmod 1777 "$root/tmp"
# Nobody's number, as containers have it: the program needs no name for its user.
chown 65532:65532 "$root/data"
chmod 700 "$root/data"
install -m 755 "$program" "$root/coffer"
# Each line of ldd names a library as "name => /path (address)", the loader as "/path (address)".
ldd "$program" | sed -n 's/.*=> \(\/[^ ]*\).*/\1/p; s/^[[:space:]]*\(\/[^ ]*\) (.*/\1/p' | sort -u | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
