#!/bin/bash
# gofmt and go vet must be silent; so must staticcheck, whose version is in
# tools/go.mod so that it never becomes a dependency of the product.
set -eu
cd "$(dirname "$0")/.."
files=$(git ls-files -co --exclude-standard '*.go' | grep -v '\.pb\.go$')
unformatted=$(gofmt -l $files)
if [ -n "$unformatted" ]; then
	echo "gofmt -w $unformatted" >&2
	exit 1
fi
go vet ./...
if [ -f tools/go.mod ]; then
	mkdir -p bin
	if (cd tools && go build -o ../bin/staticcheck honnef.co/go/tools/cmd/staticcheck); then
		bin/staticcheck ./...
	else
		echo "SKIPPED: staticcheck cannot be built (no module proxy?)" >&2
	fi
fi
