#!/bin/bash
# Runs every native fuzz test of the module for the time given, one after the
# other, and lists those that found something.
set -u
cd "$(dirname "$0")/.."
time=${1:-10m}
found=()
while read -r package; do
	while read -r name; do
		echo "== $package $name for $time"
		go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" "$package" || found+=("$package $name")
	done < <(go test -list '^Fuzz' "$package" | grep '^Fuzz')
done < <(go list ./...)
if [ ${#found[@]} -gt 0 ]; then
	printf 'found something: %s\n' "${found[@]}" >&2
	exit 1
fi
