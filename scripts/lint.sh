#!/usr/bin/env bash
# lint.sh: include arrows, file sizes, typedefs of structs, left-over marks, the size of the goldens.
set -u
cd "$(dirname "$0")/.."
bad=0
python3 scripts/check_arrows.py || bad=1
sources() {
    git ls-files -co --exclude-standard -- '*.c' '*.h' | grep -v '^build/'
}
if sources | xargs grep -nE '\b(TODO|FIXME|XXX)\b'; then
    echo "lint: left-over marks"
    bad=1
fi
if sources | xargs grep -nE '^\s*typedef\s+(struct|union|enum)\b[^(]*([;{]|$)'; then
    echo "lint: no typedef for structs"
    bad=1
fi
if sources | xargs grep -nP '\t|[ ]+$' | head -n 20 | grep .; then
    echo "lint: tabs or trailing blanks"
    bad=1
fi
for d in router worker proto common deploy tests scripts; do
    [ -f "$d/README.md" ] || { echo "lint: $d/README.md is missing"; bad=1; }
done
golden=$(git ls-files -co --exclude-standard -z -- tests/golden | xargs -0 cat | wc -c)
if [ "$golden" -gt 8000000 ]; then
    echo "lint: tests/golden has $golden bytes, at most 8,000,000"
    bad=1
fi
[ $bad = 0 ] && echo "lint: clean"
exit $bad
