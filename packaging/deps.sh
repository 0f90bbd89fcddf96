#!/bin/bash
# The Debian packages that `make test` drives petal with. As root what is missing
# is installed; otherwise it is named, with the tests that will be skipped.
set -u
# command package tests
needs=(
	"cc            gcc            make_race"
	"iscsi-test-cu libiscsi-bin   TestConformance,TestLibiscsiTools"
	"qemu-img      qemu-utils     TestQEMU,TestFlippedBit"
	"strace        strace         TestBrickFails"
)
missing=()
for need in "${needs[@]}"; do
	read -r command package _ <<<"$need"
	command -v "$command" >/dev/null || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo "installing ${missing[*]}" >&2
	(apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${missing[@]}") >/dev/null ||
		echo "apt-get failed" >&2
fi
for need in "${needs[@]}"; do
	read -r command package tests <<<"$need"
	command -v "$command" >/dev/null || echo "SKIPPED: $tests: no $command (apt install $package)" >&2
done
exit 0
