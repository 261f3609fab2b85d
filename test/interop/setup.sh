#!/bin/sh
# Makes a folder with Debian sid and its matrix-synapse in it, for the tests with a server that nobody here wrote.
# It needs root (debootstrap, chroot), a Debian-like host with apt, and the network the first time; what is there is left alone.
#
#   test/interop/setup.sh            prints the folder
#   test/interop/setup.sh --fresh    makes it anew, with the current Synapse
#
# HANSA_INTEROP_CACHE says where; without it hansa-interop in the user's cache directory. HANSA_INTEROP_MIRROR is the Debian mirror.
set -eu

cache=${HANSA_INTEROP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hansa-interop}
mirror=${HANSA_INTEROP_MIRROR:-http://deb.debian.org/debian}
root=$cache/sid

say() { echo "setup: $*" >&2; }

[ "$(id -u)" = 0 ] || { say "this must run as root: it uses debootstrap and chroot"; exit 1; }
mkdir -p "$cache"
if [ "${HANSA_INTEROP_LOCKED:-}" != yes ]; then # one at a time
	HANSA_INTEROP_LOCKED=yes exec flock "$cache/lock" "$0" "$@"
fi

if [ "${1:-}" = --fresh ]; then
	rm -rf --one-file-system "$root"
fi
if [ ! -x "$root/usr/bin/synapse_homeserver" ]; then
	if ! command -v debootstrap >/dev/null 2>&1; then
		apt-get -q update >&2
		DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends debootstrap >&2
	fi
	rm -rf --one-file-system "$root.new"
	say "debootstrap sid into $root"
	debootstrap --variant=minbase --include=ca-certificates sid "$root.new" "$mirror" >&2
	printf '#!/bin/sh\nexit 101\n' >"$root.new/usr/sbin/policy-rc.d" # nothing is started in there
	chmod 755 "$root.new/usr/sbin/policy-rc.d"
	printf 'matrix-synapse matrix-synapse/server-name string synapse.example\nmatrix-synapse matrix-synapse/report-stats boolean false\n' |
		chroot "$root.new" debconf-set-selections
	say "install matrix-synapse"
	DEBIAN_FRONTEND=noninteractive chroot "$root.new" apt-get -q install -y --no-install-recommends matrix-synapse >&2
	rm -rf "$root.new/var/cache/apt/archives" "$root.new/var/lib/apt/lists"
	mv "$root.new" "$root"
fi
say "Synapse $(chroot "$root" python3 -c 'import synapse; print(synapse.__version__)')"
echo "$root"
