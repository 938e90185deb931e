#!/usr/bin/env bash
# bare_debian.sh DIR COMMAND...: a clone of this repository's HEAD inside a bare Debian 12 root (only git, make and ca-certificates),
# made in DIR by debootstrap, and COMMAND run there from the clone. Needs root. What `make run` and `make test` promise is shown with
#   scripts/bare_debian.sh /tmp/bare make test
#   scripts/bare_debian.sh /tmp/bare scripts/try_run.sh
set -euo pipefail
cd "$(dirname "$0")/.."
dir=$1
shift
if [ ! -d "$dir/etc" ]; then
    debootstrap --variant=minbase --include=git,make,ca-certificates bookworm "$dir" >/dev/null
fi
for m in proc sys dev; do
    mkdir -p "$dir/$m"
    mountpoint -q "$dir/$m" || mount --rbind "/$m" "$dir/$m"
    mount --make-rslave "$dir/$m"
done
trap 'for m in proc sys dev; do umount -R "$dir/$m" || true; done' EXIT
cp /etc/resolv.conf "$dir/etc/resolv.conf"
# a machine with certificates of its own hands them on
cp -L /etc/ssl/certs/ca-certificates.crt "$dir/etc/ssl/certs/ca-certificates.crt"
rm -rf "$dir/src"
git clone -q . "$dir/src"
chroot "$dir" /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb bash -c 'cd /src && exec "$@"' - "$@"
