#!/bin/bash
# The Debian packages that `make test` drives petal with. As root what is missing
# is installed; otherwise it is named, with the tests that will be skipped.
set -u
# command package tests
needs=(
	"cc            gcc            make_race"
	"iscsi-test-cu libiscsi-bin   TestConformance,TestLibiscsiTools"
	"qemu-img      qemu-utils     TestQEMU,TestFlippedBit"
	"block-iscsi   qemu-block-extra TestQEMU,TestFlippedBit"
	"strace        strace         TestBrickFails"
)
have() {
	case $1 in
	block-iscsi) compgen -G '/usr/lib*/qemu/block-iscsi.so' >/dev/null || compgen -G '/usr/lib/*/qemu/block-iscsi.so' >/dev/null ;; # a module of qemu-img, no command
	*) command -v "$1" >/dev/null ;;
	esac
}
missing=()
for need in "${needs[@]}"; do
	read -r command package _ <<<"$need"
	have "$command" || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	echo "installing ${missing[*]}" >&2
	(apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends "${missing[@]}") >/dev/null ||
		echo "apt-get failed" >&2
fi
for need in "${needs[@]}"; do
	read -r command package tests <<<"$need"
	have "$command" || echo "SKIPPED: $tests: no $command (apt install $package)" >&2
done
exit 0
