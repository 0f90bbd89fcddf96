//go:build invariants

package slab

import "fmt"

// Invariants reports whether the package was built with its dear checks.
const Invariants = true

const poisonByte = 0xdb

// poison marks memory as free.
func poison(b *Buf) {
	mem := b.full()
	for i := range mem {
		mem[i] = poisonByte
	}
}

// checkPoison panics if free memory was written to.
func checkPoison(b *Buf) {
	for i, v := range b.full() {
		if v != poisonByte {
			panic(fmt.Sprintf("slab: byte %d of a free %d-byte buffer was written (%#02x)", i, b.Size(), v))
		}
	}
}
