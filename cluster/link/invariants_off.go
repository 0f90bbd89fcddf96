//go:build !invariants

package link

// Invariants reports whether the package was built with its dear checks.
const Invariants = false

func (m *Machine) check() { m.checks++ }
