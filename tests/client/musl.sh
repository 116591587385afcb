#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# usage: musl.sh SOURCE-ROOT BUILD-DIRECTORY
#
# Compiles libprivmem and privmemctl against musl, with json-c's headers and nothing else of the system's, kernel
# headers included. It stops there: Debian has json-c built for glibc only, so nothing can be linked or run. What
# a link would find, a function that musl lacks, is found by -Werror=implicit-function-declaration.

set -eu
root=$1
build=$2/musl

if ! command -v musl-gcc >/dev/null; then
        echo "musl-gcc is missing (package musl-tools)"
        exit 77
fi

mkdir -p "$build/include"
ln -sfn /usr/include/json-c "$build/include/json-c"

for source in "$root"/client/lib/*.c "$root"/client/ctl/*.c; do
        musl-gcc -std=gnu17 -D_GNU_SOURCE -DPRIVMEMD_VERSION='"0"' -O2 \
                -Wall -Wextra -Werror -Werror=implicit-function-declaration -Wno-missing-field-initializers \
                -I"$root" -I"$root/client" -idirafter "$build/include" \
                -c "$source" -o "$build/$(basename "$source").o"
        echo "${source#"$root"/}"
done
