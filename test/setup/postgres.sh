#!/bin/bash
# A throw-away PostgreSQL for tests: its own data folder in a temporary folder, fsync on, C locale, listening on
# 127.0.0.1 at a free port with a random password. The cluster of the system is neither used nor touched.
# Works as root too (the server then runs as the user postgres, or nobody).
#
#   test/setup/postgres.sh start [--dir D]     starts one (or finds the one that runs) and prints its URL
#   test/setup/postgres.sh stop  [--dir D]     stops it and removes its data
#   test/setup/postgres.sh url   [--dir D]     prints the URL of the running one
#   test/setup/postgres.sh crash [--dir D]     stops it at once, as a crash would, and starts it again on the same port
#   test/setup/postgres.sh clone [--dir D]     makes a copy of it as it is now, which hears of nothing that comes later
#   test/setup/postgres.sh failover [--dir D]  stops it at once and promotes the copy in its place: a standby that lagged behind
#   test/setup/postgres.sh run COMMAND ...     starts a new one, runs COMMAND with HANSA_TEST_POSTGRES=URL, stops it
#
# The database that the URL names exists and is empty; its user is superuser and may create others.
set -euo pipefail

usage() { sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2; }
fail() { echo "postgres.sh: $*" >&2; exit 1; }

verb=${1:-}
[ -n "$verb" ] || usage
shift
dir="${TMPDIR:-/tmp}/hansa-postgres-$(id -u)"
if [ "$verb" != run ]; then
	while [ $# -gt 0 ]; do
		case "$1" in
			--dir) [ $# -ge 2 ] || usage; dir=$2; shift 2 ;;
			*) usage ;;
		esac
	done
fi

bin=""
for candidate in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -t/ -k5 -rn); do
	[ -x "$candidate/initdb" ] && { bin=$candidate; break; }
done
[ -n "$bin" ] || { command -v initdb >/dev/null && bin=$(dirname "$(readlink -f "$(command -v initdb)")"); }
[ -n "$bin" ] || fail "PostgreSQL is not installed; run test/setup/install.sh"

# PostgreSQL refuses to run as root.
user=$(id -un)
if [ "$(id -u)" = 0 ]; then
	user=postgres
	id -u postgres >/dev/null 2>&1 || user=nobody
fi
as_user() {
	if [ "$(id -u)" = 0 ]; then
		(cd / && exec setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups -- "$@")
	else
		"$@"
	fi
}

marker=hansa-test-postgres
running() { [ -f "$dir/data/postmaster.pid" ] && as_user "$bin/pg_ctl" -D "$dir/data" status >/dev/null 2>&1; }

stop() {
	[ -d "$dir" ] || return 0
	[ -f "$dir/$marker" ] || fail "$dir was not made by this script"
	if running; then
		as_user "$bin/pg_ctl" -D "$dir/data" -m immediate -w -t 30 stop >/dev/null || fail "it does not stop; see $dir/log"
	fi
	rm -rf -- "$dir"
}

start() {
	if running; then
		return 0
	fi
	stop
	mkdir -p -- "$dir"
	chmod 711 "$dir"
	: >"$dir/$marker"
	password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
	mkdir "$dir/data" "$dir/socket"
	echo "$password" >"$dir/password"
	chmod 700 "$dir/data" "$dir/socket"
	chmod 600 "$dir/password"
	: >"$dir/log"
	[ "$(id -u)" != 0 ] || chown "$user" "$dir/data" "$dir/socket" "$dir/password" "$dir/log"
	as_user "$bin/initdb" -D "$dir/data" -U hansa --pwfile "$dir/password" -A scram-sha-256 \
		--locale=C --encoding=UTF8 --no-instructions >"$dir/initdb.log" 2>&1 ||
		{ cat "$dir/initdb.log" >&2; fail "initdb does not work"; }
	cat >>"$dir/data/postgresql.conf" <<-CONF
		listen_addresses = '127.0.0.1'
		unix_socket_directories = '$dir/socket'
		fsync = on
		synchronous_commit = on
		full_page_writes = on
		max_connections = 600
		shared_buffers = 256MB
		max_wal_size = 2GB
		jit = off
		timezone = 'UTC'
	CONF
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000)) # below the range that the kernel hands out
		if as_user "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -o "-p $port" -w -t 60 start >/dev/null 2>&1; then
			PGPASSWORD=$password "$bin/psql" -q -h 127.0.0.1 -p "$port" -U hansa -d postgres -v ON_ERROR_STOP=1 \
				-c 'CREATE DATABASE hansa' >&2 || fail "the database cannot be created; see $dir/log"
			(umask 077 && echo "postgres://hansa:$password@127.0.0.1:$port/hansa?sslmode=disable" >"$dir/url")
			return 0
		fi
		grep -q 'Address already in use\|could not create any TCP/IP sockets' "$dir/log" || break
		: >"$dir/log"
	done
	cat "$dir/log" >&2
	fail "PostgreSQL does not start"
}

crash() {
	running || fail "none runs in $dir"
	port=$(sed -n 4p "$dir/data/postmaster.pid")
	as_user "$bin/pg_ctl" -D "$dir/data" -m immediate -w -t 30 stop >/dev/null || fail "it does not stop; see $dir/log"
	as_user "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -o "-p $port" -w -t 60 start >/dev/null || fail "it does not start; see $dir/log"
}

clone() {
	running || fail "none runs in $dir"
	port=$(sed -n 4p "$dir/data/postmaster.pid")
	rm -rf -- "$dir/copy"
	mkdir "$dir/copy"
	chmod 700 "$dir/copy"
	[ "$(id -u)" != 0 ] || chown "$user" "$dir/copy"
	PGPASSWORD=$(cat "$dir/password") as_user "$bin/pg_basebackup" -h 127.0.0.1 -p "$port" -U hansa -D "$dir/copy" -X stream -c fast ||
		fail "no copy can be made"
}

failover() {
	running || fail "none runs in $dir"
	[ -d "$dir/copy" ] || fail "there is no copy"
	port=$(sed -n 4p "$dir/data/postmaster.pid")
	as_user "$bin/pg_ctl" -D "$dir/data" -m immediate -w -t 30 stop >/dev/null || fail "it does not stop; see $dir/log"
	rm -rf -- "$dir/data"
	mv "$dir/copy" "$dir/data"
	as_user touch "$dir/data/standby.signal"
	as_user "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -o "-p $port" -w -t 60 start >/dev/null || fail "the copy does not start; see $dir/log"
	as_user "$bin/pg_ctl" -D "$dir/data" -w -t 60 promote >/dev/null || fail "the copy is not promoted; see $dir/log"
}

locked() { # two callers of one folder wait for each other
	exec 9>"$dir.lock"
	flock 9
	"$1" 9>&-
	flock -u 9
}

{ # bash has read all of this before it runs it, so an edit of this file does not disturb a long run
case "$verb" in
	start) locked start; cat "$dir/url" ;;
	stop) locked stop ;;
	crash) crash ;;
	clone) clone ;;
	failover) failover ;;
	url) running || fail "none runs in $dir"; cat "$dir/url" ;;
	run)
		[ $# -gt 0 ] || usage
		dir=$(mktemp -d "${TMPDIR:-/tmp}/hansa-postgres.XXXXXX")
		: >"$dir/$marker"
		trap stop EXIT
		trap 'exit 130' INT TERM
		start
		HANSA_TEST_POSTGRES=$(cat "$dir/url") "$@"
		;;
	*) usage ;;
esac
exit
}
