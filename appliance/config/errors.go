package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one thing wrong with a configuration.
type Error struct {
	File    string
	Line    int    // from 1; 0 if no line is to blame
	Key     string // dotted, "brick[1].path"; empty for syntax errors
	Value   string // as it was written, more or less; empty if none
	Problem string
	Advice  string // what to do about it
}

// Error says all but the advice: "petal.toml:12: cache.size = 1MiB: problem".
func (e Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Key != "" {
		b.WriteString(e.Key)
		if e.Value != "" {
			b.WriteString(" = " + e.Value)
		}
		b.WriteString(": ")
	}
	b.WriteString(e.Problem)
	return b.String()
}

// Hint is the advice.
func (e Error) Hint() string { return e.Advice }

// Errors is everything wrong with one file, in the order of its lines. It is
// never empty when returned as an error.
type Errors []Error

func (e Errors) Error() string {
	parts := make([]string, len(e))
	for i := range e {
		parts[i] = e[i].Error()
		if i < len(e)-1 && e[i].Advice != "" {
			parts[i] += "\nhint: " + e[i].Advice
		}
	}
	return strings.Join(parts, "\n")
}

// Hint is the advice for the last error; the others carry theirs in Error.
func (e Errors) Hint() string { return e[len(e)-1].Advice }

func (e Errors) sorted() Errors {
	slices.SortStableFunc(e, func(a, b Error) int { return cmp.Compare(a.Line, b.Line) })
	return e
}

// problem is what a setter finds wrong with a value; reader adds key and line.
type problem struct{ text, hint string }

func (p problem) Error() string { return p.text }

func bad(hint, format string, args ...any) error {
	return problem{fmt.Sprintf(format, args...), hint}
}
