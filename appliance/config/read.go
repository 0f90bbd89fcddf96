package config

import (
	"fmt"
	"net"
	"slices"
	"strings"
)

// reader walks the decoded tree along groups. It collects errors instead of
// stopping at the first.
type reader struct {
	config *Config
	lines  map[string]int // dotted key -> line
	errs   Errors
}

func (r *reader) fail(key string, value any, err error) {
	e := Error{Line: r.lines[key], Key: key, Problem: err.Error()}
	switch v := value.(type) {
	case nil, map[string]any, []any, []map[string]any:
	case string:
		e.Value = fmt.Sprintf("%q", v)
	default:
		e.Value = fmt.Sprint(v)
	}
	if p, ok := err.(problem); ok {
		e.Advice = p.hint
	}
	r.errs = append(r.errs, e)
}

func (r *reader) read(tree map[string]any) {
	for _, name := range sortedKeys(tree) {
		i := slices.IndexFunc(groups, func(g group) bool { return g.name == name })
		if i < 0 {
			r.unknown(name, "", tree[name])
			continue
		}
		r.readGroup(groups[i], tree[name])
	}
}

func (r *reader) readGroup(g group, value any) {
	if g.add == nil {
		table, ok := value.(map[string]any)
		if !ok {
			r.fail(g.name, value, bad("write ["+g.name+"] on a line of its own and the keys below", "this is a table, not %s", kindOf(value)))
			return
		}
		r.readTable(g, g.name, table)
		return
	}
	list, ok := value.([]map[string]any)
	if !ok {
		r.fail(g.name, value, bad("write [["+g.name+"]] with two brackets", "there may be several, so this is a list of tables, not %s", kindOf(value)))
		return
	}
	for i, table := range list {
		path := fmt.Sprintf("%s[%d]", g.name, i)
		if err := g.add(r.config); err != nil {
			r.fail(path, nil, err)
			return
		}
		r.readTable(g, path, table)
		if name := g.rows[0].name; table[name] == nil { // the first key of a list's table is what it is about
			r.fail(path, nil, bad(fmt.Sprintf("add a line %s = \"...\"", name), "%s is missing", name))
		}
	}
}

func (r *reader) readTable(g group, path string, table map[string]any) {
	for _, name := range sortedKeys(table) {
		key := path + "." + name
		i := slices.IndexFunc(g.rows, func(row row) bool { return row.name == name })
		if i < 0 {
			r.unknown(key, g.name, table[name])
			continue
		}
		if err := g.rows[i].set(r.config, table[name]); err != nil {
			r.fail(key, table[name], err)
		}
	}
}

// unknown reports a key that is not there, with the nearest one that is.
func (r *reader) unknown(key, groupName string, value any) {
	name := key[strings.LastIndex(key, ".")+1:]
	var same, all []string // candidates in this group, and everywhere
	for _, g := range groups {
		if groupName == "" {
			same = append(same, g.name)
		}
		for _, row := range g.rows {
			all = append(all, g.name+"."+row.name)
			if g.name == groupName {
				same = append(same, row.name)
			}
		}
	}
	hint := "the keys here are " + strings.Join(same, ", ")
	if near := Nearest(name, same); near != "" {
		hint = fmt.Sprintf("did you mean %q?", near)
	} else if i := slices.IndexFunc(all, func(s string) bool { return strings.HasSuffix(s, "."+name) }); i >= 0 {
		hint = fmt.Sprintf("did you mean %q?", all[i])
	}
	if _, isTable := value.(map[string]any); !isTable && groupName == "" {
		hint += "; every key belongs in a table such as [node]"
	}
	r.fail(key, nil, bad(hint, "unknown key"))
}

// crossCheck checks what involves more than one value.
func (r *reader) crossCheck(c *Config) {
	r.checkCluster(c)
	seen := map[string]string{}
	if c.Cluster.Listen != "" {
		seen[c.Cluster.Listen] = "cluster.listen"
	}
	for i, p := range c.Portals {
		key := fmt.Sprintf("portal[%d].listen", i)
		if other, taken := seen[p.Listen]; taken {
			r.fail(key, p.Listen, bad("remove one of the two", "%s listens there already", other))
		}
		seen[p.Listen] = key
	}
	for i, b := range c.Bricks {
		key := fmt.Sprintf("brick[%d].path", i)
		if other, taken := seen[b.Path]; taken {
			r.fail(key, b.Path, bad("give every brick a directory of its own, each on its own disk", "%s is there already", other))
		}
		seen[b.Path] = key
		if b.Path == c.Node.Dir {
			r.fail(key, b.Path, bad("use a directory below it: \""+c.Node.Dir+"/brick\"", "this is node.dir, which is not a brick"))
		}
		if b.Capacity != 0 && b.Capacity <= b.Journal {
			r.fail(fmt.Sprintf("brick[%d].capacity", i), FormatSize(uint64(b.Capacity)), bad("make the capacity larger or the journal smaller", "no more than its journal of %s", FormatSize(uint64(b.Journal))))
		}
	}
}

// checkCluster checks what [cluster] says as a whole.
func (r *reader) checkCluster(c *Config) {
	k := c.Cluster
	if k.Listen == "" {
		for key, said := range map[string]bool{"advertise": k.Advertise != "", "plain": k.Plain, "witness": k.Witness, "peers": len(k.Peers) > 0} {
			if said {
				r.fail("cluster."+key, nil, bad("add listen = \"ADDRESS:PORT\" to [cluster]", "without cluster.listen there are no other nodes"))
			}
		}
		return
	}
	if host, _, _ := net.SplitHostPort(k.Listen); k.Advertise == "" && (host == "" || net.ParseIP(host).IsUnspecified()) {
		r.fail("cluster.listen", k.Listen, bad("add advertise = \"ADDRESS:PORT\" to [cluster], or listen on that address", "other nodes cannot connect to an unspecified address"))
	}
	if k.Witness && len(c.Portals) > 0 {
		r.fail("portal[0]", nil, bad("leave [[portal]] out, or witness", "a witness serves no disks"))
	}
	if k.Witness && len(c.Bricks) > 0 {
		r.fail("brick[0]", nil, bad("leave [[brick]] out, or witness", "a witness holds no data"))
	}
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
