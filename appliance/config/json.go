package config

import "encoding/json"

// MarshalJSON gives every key of petal.toml by its name there, with the value
// that holds: what was written, or the default. Sizes are bytes.
func (c *Config) MarshalJSON() ([]byte, error) {
	tree := map[string]any{}
	for _, g := range groups {
		switch g.name {
		case "portal":
			tree[g.name] = eachOf(c.Portals, func(upTo []Portal) any { return g.tree(&Config{Portals: upTo}) })
		case "brick":
			tree[g.name] = eachOf(c.Bricks, func(upTo []Brick) any { return g.tree(&Config{Bricks: upTo}) })
		default:
			tree[g.name] = g.tree(c)
		}
	}
	return json.Marshal(tree)
}

// tree is the group's keys with their values; of a list, those of the last.
func (g group) tree(c *Config) map[string]any {
	t := map[string]any{}
	for _, r := range g.rows {
		t[r.name] = r.get(c)
	}
	return t
}

func eachOf[T any](list []T, f func(upTo []T) any) []any {
	out := []any{}
	for i := range list {
		out = append(out, f(list[:i+1]))
	}
	return out
}
