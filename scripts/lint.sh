#!/usr/bin/env bash
# lint.sh: include arrows, sizes of files and of committed data, typedefs of structs, left-over marks.
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
# what is committed as data stays small: folder, most bytes
while read -r dir most; do
    n=$(git ls-files -z "$dir" | xargs -0 -r cat | wc -c)
    [ "$n" -le "$most" ] || { echo "lint: $dir holds $n bytes, at most $most"; bad=1; }
done <<END
tests/golden 8000000
deploy/tiny-model 4000000
deploy/demo-model 24000000
tests/fuzz/corpus 1000000
END
[ $bad = 0 ] && echo "lint: clean"
exit $bad
