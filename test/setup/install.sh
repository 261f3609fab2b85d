#!/bin/sh
# Installs what the tests with real clients and with PostgreSQL need, on Debian (bookworm is what is tested).
# It may run as often as one likes: what is already there is left alone, and then it takes well under a second.
#
#   test/setup/install.sh            everything
#   test/setup/install.sh --check    installs nothing; says what is missing and exits 1
#
# From Debian: PostgreSQL, Chromium, python3-matrix-nio with python3-olm. From npm, pinned in
# test/clients/package-lock.json: matrix-js-sdk, hydrogen-view-sdk, playwright-core, esbuild and Node 24.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
clients=$(cd "$here/../clients" && pwd)
check=no
case "${1:-}" in
	"") ;;
	--check) check=yes ;;
	*) echo "usage: install.sh [--check]" >&2; exit 2 ;;
esac

say() { echo "setup: $*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# One installation at a time: several test runs may start together.
lock="${TMPDIR:-/tmp}/hansa-test-setup-$(id -u).lock"
if have flock && [ "${HANSA_SETUP_LOCKED:-}" != yes ]; then
	HANSA_SETUP_LOCKED=yes exec flock "$lock" "$0" "$@"
fi

have_postgres() { ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || have initdb; }
have_nio() { [ -x /usr/bin/python3 ] && /usr/bin/python3 -c 'import nio, nio.crypto, olm' >/dev/null 2>&1; }
have_chromium() { [ -x "${HANSA_TEST_CHROMIUM:-/usr/bin/chromium}" ]; }
have_fonts() { ls /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf >/dev/null 2>&1; }

packages() {
	have_postgres || echo postgresql
	have_chromium || echo chromium
	have_fonts || echo fonts-dejavu-core
	have_nio || echo python3-matrix-nio python3-olm python3-aiofiles
	have npm || echo npm
}

lock_sum() { cat "$clients/package.json" "$clients/package-lock.json" | cksum; }
have_modules() {
	[ -f "$clients/node_modules/.hansa-lock" ] && [ "$(cat "$clients/node_modules/.hansa-lock")" = "$(lock_sum)" ]
}

retry() {
	n=1
	until "$@"; do
		[ "$n" -lt 4 ] || return 1
		say "attempt $n of \"$1 $2 ...\" did not work, again in $((n * 5)) s"
		sleep $((n * 5))
		n=$((n + 1))
	done
}

apt() {
	if [ "$(id -u)" = 0 ]; then
		env DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@" >&2
	else
		sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@" >&2
	fi
}

modules() { (cd "$clients" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >&2); }

missing=$(packages | tr '\n' ' ')

if [ "$check" = yes ]; then
	status=0
	[ -z "$missing" ] || { say "missing Debian packages: $missing"; status=1; }
	have_modules || { say "npm modules of test/clients are missing or old"; status=1; }
	[ $status = 0 ] || say "run test/setup/install.sh"
	exit $status
fi

if [ -n "$missing" ]; then
	have apt-get || { say "no apt-get here; install these by hand: $missing"; exit 1; }
	[ "$(id -u)" = 0 ] || have sudo || { say "run this as root, or install these by hand: $missing"; exit 1; }
	say "installing from Debian: $missing"
	retry apt update || { say "apt-get update does not work"; exit 1; }
	# shellcheck disable=SC2086 # the list is meant to be split
	retry apt install -y --no-install-recommends $missing || { say "apt-get install does not work"; exit 1; }
	missing=$(packages | tr '\n' ' ')
	[ -z "$missing" ] || { say "still missing after apt-get install: $missing"; exit 1; }
fi

if ! have_modules; then
	say "installing npm modules of test/clients (about 270 MB)"
	retry modules || { say "npm ci does not work in test/clients"; exit 1; }
	lock_sum >"$clients/node_modules/.hansa-lock"
fi
say "everything the tests need is there"
