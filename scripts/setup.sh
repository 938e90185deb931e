#!/usr/bin/env bash
# setup.sh build|test|fuzz|packages|venv|venv-long|venv-bench: installs what is missing on Debian 12, and nothing else. Works twice.
#   build  compiler and libraries
#   test   build, and the virtual environment of the tests in build/venv
#   fuzz   build, and clang with its runtime
#   packages, venv   the two halves of test
#   venv-long        venv, and what only make test-long uses
#   venv-bench       test, and in build/venv-bench the peers that make bench measures beside: 6 GB with PyTorch
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-build}

packages=(gcc make pkg-config libc6-dev libh2o-evloop-dev libnng-dev libjansson-dev libprotobuf-c-dev
    protobuf-c-compiler libssl-dev)
case $what in
build) ;;
test | packages | venv | venv-long | venv-bench) packages+=(g++ libcmocka-dev python3 python3-venv curl procps openssl) ;;
fuzz) packages+=(libcmocka-dev clang libclang-rt-14-dev) ;;
*)
    echo "setup.sh: build, test, fuzz, packages, venv, venv-long or venv-bench, not '$what'" >&2
    exit 2
    ;;
esac

missing=()
for p in "${packages[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    echo "setup: installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if [ "$what" = test ] || [ "$what" = venv ] || [ "$what" = venv-long ] || [ "$what" = venv-bench ]; then
    stamp=build/venv/.requirements
    wanted=(tests/requirements-models.txt tests/requirements-suite.txt tests/requirements.txt)
    if ! cat "${wanted[@]}" | cmp -s - "$stamp"; then
        echo "setup: virtual environment for the tests"
        mkdir -p build
        [ -x build/venv/bin/python ] || /usr/bin/python3 -m venv build/venv
        build/venv/bin/python -m pip install -q --disable-pip-version-check -r tests/requirements.txt
        build/venv/bin/python -m pip install -q --disable-pip-version-check --no-deps -r tests/requirements-models.txt
        rm -rf build/schema-suite build/schema-suite.d
        build/venv/bin/python -m pip download -q --disable-pip-version-check --no-deps --no-binary jsonschema \
            -r tests/requirements-suite.txt -d build/schema-suite.d
        mkdir -p build/schema-suite
        tar -xzf build/schema-suite.d/jsonschema-*.tar.gz -C build/schema-suite --strip-components=3 \
            --wildcards '*/json/tests'
        cat "${wanted[@]}" >"$stamp"
    fi
fi
if [ "$what" = venv-long ] && ! cmp -s tests/requirements-long.txt build/venv/.requirements-long; then
    build/venv/bin/python -m pip install -q --disable-pip-version-check -r tests/requirements-long.txt
    cp tests/requirements-long.txt build/venv/.requirements-long
fi
if [ "$what" = venv-bench ] && ! cmp -s tests/requirements-bench.txt build/venv-bench/.requirements; then
    echo "setup: virtual environment for the peers of make bench"
    [ -x build/venv-bench/bin/python ] || /usr/bin/python3 -m venv build/venv-bench
    build/venv-bench/bin/python -m pip install -q --disable-pip-version-check -r tests/requirements-bench.txt
    cp tests/requirements-bench.txt build/venv-bench/.requirements
fi
