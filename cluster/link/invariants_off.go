//go:build !invariants

package link

// Invariants reports whether the package was built with its dear checks.
const Invariants = false

type checked struct{}

func (m *Machine) check() {}
