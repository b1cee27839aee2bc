#!/bin/sh
# SPDX-License-Identifier: BSD-2-Clause
#
# Install the Debian packages of packages.txt that are missing.
#
#	tests/deps.sh GROUP...		GROUP: the first column of packages.txt
#
# Does nothing, and needs no root, when all are there. Refreshes the package
# lists only if the installation fails without.
set -eu

list=$(dirname "$0")/../packages.txt
want=
for group; do
	want="$want $(awk -v g="$group" '$1 == g { print $2 }' "$list")"
done

if ! command -v dpkg-query >/dev/null; then
	echo "deps: not a Debian system; needed by their Debian names:" >&2
	# shellcheck disable=SC2086 # a list of words
	printf '  %s\n' $want >&2
	echo "deps: going on; what is missing will be reported by its user" >&2
	exit 0
fi

missing=
for package in $want; do
	# shellcheck disable=SC2016 # dpkg-query's own syntax
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=
	[ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "deps: missing:$missing" >&2
	echo "deps: run: sudo apt-get install --no-install-recommends$missing" >&2
	exit 1
fi

echo "  DEPS   $missing"
get_missing()
{
	# shellcheck disable=SC2086 # a list of words
	DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 \
		install --no-install-recommends $missing </dev/null
}
if ! get_missing >/dev/null 2>&1; then
	apt-get -qq update
	get_missing >/dev/null
fi
