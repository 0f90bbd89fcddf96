package config

import _ "embed"

// Example is petal.toml.example: every key with its meaning and default. It
// parses, and so does the file with all its comment marks before keys removed.
//
//go:embed petal.toml.example
var Example string
