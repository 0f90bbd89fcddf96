package config

import (
	_ "embed"
	"regexp"
)

// Example is petal.toml.example: every key with its meaning and default. It
// parses, and so does the file with all its comment marks before keys removed.
//
//go:embed petal.toml.example
var Example string

var commentedKey = regexp.MustCompile(`(?m)^# ([a-z_]+ = )`)

// Uncommented is Example with every key in force.
func Uncommented() string { return commentedKey.ReplaceAllString(Example, "$1") }
