package config

import (
	"fmt"
	"regexp"
	"strings"
)

var (
	tableLine = regexp.MustCompile(`^\s*\[\s*([\w.-]+)\s*\]`)
	arrayLine = regexp.MustCompile(`^\s*\[\[\s*([\w.-]+)\s*\]\]`)
	keyLine   = regexp.MustCompile(`^\s*"?([\w.-]+)"?\s*=`)
)

// keyLines maps dotted keys ("brick[1].path") to the lines they stand on. The
// decoder knows the lines of syntax errors only, so this reads the text a second
// time, by its line beginnings. The keys of an inline table are found on the
// line of the table's own key.
func keyLines(text string) map[string]int {
	lines := map[string]int{}
	counts := map[string]int{}
	table := ""
	note := func(key string, line int) {
		if _, ok := lines[key]; !ok {
			lines[key] = line
		}
	}
	for i, line := range strings.Split(text, "\n") {
		if m := arrayLine.FindStringSubmatch(line); m != nil {
			note(m[1], i+1)
			table = fmt.Sprintf("%s[%d]", m[1], counts[m[1]])
			counts[m[1]]++
			note(table, i+1)
		} else if m := tableLine.FindStringSubmatch(line); m != nil {
			table = m[1]
			note(table, i+1)
		} else if m := keyLine.FindStringSubmatch(line); m != nil {
			key := m[1]
			if table != "" {
				key = table + "." + key
			}
			note(key, i+1)
		}
	}
	return lines
}

// Nearest returns the candidate closest to name, or "" if none is close.
func Nearest(name string, candidates []string) string {
	best, bestDistance := "", min(max(1, len(name)/3)+1, len(name))
	for _, c := range candidates {
		if d := distance(name, c); d < bestDistance {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the number of letters to insert, remove, replace or swap with
// their neighbour to get from a to b (optimal string alignment).
func distance(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
