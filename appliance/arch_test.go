package appliance

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// allowed lists what each package may import of petal's, and nothing else may
// be: imports point down only. A line that has to grow is a reason to think
// first; write the reason behind it. Tests are free, but for the walls below.
const allowed = `
target/serial
target/scsi
target/iscsi              > target/serial
target/login              > target/iscsi, target/serial
target/lun                > target/scsi
target/session            > target/iscsi, target/login, target/lun, target/scsi, target/serial
target                    > target/session, target/lun, target/login, target/iscsi
target/initiator          > target/iscsi, target/scsi, target/serial, target/login
target/initiator/load     > target/initiator, target/scsi

journal/vfs
journal/record
journal                   > journal/record, journal/vfs
placement

cluster/times
cluster/slab
cluster/blocklock         > placement
cluster/cache             > cluster/slab, placement
cluster/wire              > cluster/cache, cluster/slab, placement
cluster/link              > placement
cluster/peer/pki          > placement
cluster/peer              > cluster/peer/pki, cluster/cache, cluster/wire, cluster/slab, cluster/times, placement
cluster/brick             > journal, journal/vfs, journal/record, cluster/slab, cluster/cache, placement
cluster/meta/metapb
cluster/meta              > cluster/meta/metapb, cluster/times, cluster/wire, journal, journal/vfs, placement
cluster/replica           > cluster/blocklock, cluster/brick, cluster/cache, cluster/link, cluster/meta, cluster/slab, cluster/times, cluster/wire, placement
cluster                   > cluster/blocklock, cluster/brick, cluster/cache, cluster/link, cluster/meta, cluster/meta/metapb, cluster/peer, cluster/peer/pki, cluster/replica, cluster/slab, cluster/times, cluster/wire, journal, journal/vfs, placement
cluster/sim               > cluster, cluster/brick, cluster/cache, cluster/link, cluster/meta, cluster/meta/metapb, cluster/replica, cluster/slab, cluster/times, cluster/wire, journal, journal/vfs, placement
cluster/explore           > cluster/link, placement

appliance/config
appliance/api
appliance                 > target, target/lun, target/scsi, cluster, cluster/brick, cluster/meta, cluster/slab, cluster/times, journal, journal/vfs, placement, appliance/api, appliance/config
appliance/cli             > appliance, appliance/api, appliance/config, target/initiator, target/initiator/load, target/iscsi
appliance/cmd/petal       > appliance/cli
appliance/benchtab        > target/initiator, target/initiator/load, appliance/api, appliance/config
appliance/integration     > appliance/api, target/initiator, target/initiator/load
target/peers/gotgt
`

// Why some lines are longer than the plan:
//   - target > login, iscsi: it runs the login phase itself, before there is a session
//   - appliance > scsi: metrics class commands by operation code
//   - appliance > cluster/meta: the types of the agreed state are meta's; cluster hands them out
//   - appliance > cluster/brick, cluster/slab: the offline check needs no node
//   - appliance > cluster/times: the times of petal.toml become the cluster's
//   - cli > initiator, iscsi: petal bench, which says why it was not let in
//   - wire, peer > cache: cache.Refs is what data are lent as, from the socket to the disk and back

// walls are edges that never exist, not even through others or in tests.
var walls = []struct{ from, to, reason string }{
	{"target", "cluster", "the target is of use on any disk; they meet in appliance through lun.Disk"},
	{"cluster", "target", "the cluster stores chunks for whoever asks; they meet in appliance through lun.Disk"},
	{"journal", "placement", "the journal stores opaque bytes at positions; it has not heard of chunks"},
	{"journal", "cluster", "the journal serves bricks and raft alike"},
	{"placement", "*", "who holds what is a pure function that every node computes alike"},
	{"target/scsi", "*", "formats of the standard, nothing of ours"},
	{"appliance/config", "*", "config check runs anywhere"},
	{"appliance/api", "*", "the API's types outlive what implements them"},
}

// purity names packages of the standard library that state machines keep out
// of: their events bring time, randomness and data.
var purity = map[string][]string{
	"placement":    {"net", "os", "time", "math/rand", "math/rand/v2", "crypto/rand", "sync"},
	"cluster/link": {"net", "os", "math/rand", "math/rand/v2", "crypto/rand", "sync"},
	"target/login": {"net", "os", "time", "math/rand", "math/rand/v2", "crypto/rand", "sync"},
	"target/scsi":  {"net", "os", "math/rand", "math/rand/v2", "sync"},
}

// modules are the others' modules that ship in the binary, each with what it is worth.
var modules = map[string]string{
	"github.com/BurntSushi/toml":          "petal.toml",
	"github.com/anishathalye/porcupine":   "judges the simulator's histories; not in the binary petal",
	"github.com/cockroachdb/pebble/v2":    "a brick's physical map",
	"github.com/coreos/go-systemd/v22":    "sd_notify, watchdog",
	"github.com/danielgtaylor/huma/v2":    "the admin API and its OpenAPI document",
	"github.com/dustin/go-humanize":       "sizes",
	"github.com/jedib0t/go-pretty/v6":     "tables",
	"github.com/prometheus/client_golang": "metrics",
	"github.com/urfave/cli/v2":            "command line, completion, manual page",
	"go.etcd.io/raft/v3":                  "agreement",
	"golang.org/x/sys":                    "O_DIRECT, preadv, fallocate",
	"golang.org/x/time":                   "throttles",
	"google.golang.org/protobuf":          "the agreed state",
	"github.com/gostor/gotgt":             "a peer that the bench measures; not in the binary petal",
	"github.com/sirupsen/logrus":          "gotgt's log; not in the binary petal",
}

// maxLines is the length of a file from which on it is two files.
const maxLines = 600

type source struct {
	path string // from the root, "cluster/volume.go"
	text []byte
	file *ast.File
	test bool
}

func (s source) pkg() string { return filepath.ToSlash(filepath.Dir(s.path)) }

var fset = token.NewFileSet()

// sources parses all Go files of the module that people write.
func sources(t *testing.T) []source {
	t.Helper()
	var out []source
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2 || d.Name() == "testdata" || d.Name() == "tools") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		text := readFile(t, path)
		if !ast.IsGenerated(file) {
			out = append(out, source{strings.TrimPrefix(filepath.ToSlash(path), "../"), text, file, strings.HasSuffix(path, "_test.go")})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 50 {
		t.Fatalf("only %d files found: is this run in appliance/?", len(out))
	}
	return out
}

// imports are all packages that a file imports.
func imports(s source) (ours, others []string) {
	for _, i := range s.file.Imports {
		path := strings.Trim(i.Path.Value, `"`)
		if rest, ok := strings.CutPrefix(path, "petal/"); ok {
			ours = append(ours, rest)
		} else {
			others = append(others, path)
		}
	}
	return ours, others
}

func TestImportsPointDown(t *testing.T) {
	rules := map[string][]string{}
	for line := range strings.Lines(allowed) {
		pkg, list, _ := strings.Cut(strings.TrimSpace(line), ">")
		if pkg = strings.TrimSpace(pkg); pkg == "" {
			continue
		}
		for _, to := range strings.Split(list, ",") {
			if to = strings.TrimSpace(to); to != "" && rules[to] == nil {
				t.Errorf("%s > %s: rules come after the packages that they allow", pkg, to)
			}
			rules[pkg] = append(rules[pkg], to)
		}
	}
	edges := map[string]map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		ours, _ := imports(s)
		if rules[s.pkg()] == nil {
			t.Errorf("%s: no rule for package %s: add a line to allowed in appliance/arch_test.go, as low as it goes", s.path, s.pkg())
		}
		for _, to := range ours {
			if edges[s.pkg()] == nil {
				edges[s.pkg()] = map[string]bool{}
			}
			edges[s.pkg()][to] = true
			if rules[s.pkg()] != nil && !slices.Contains(rules[s.pkg()], to) {
				t.Errorf("%s imports %s: allowed are %v", s.path, to, rules[s.pkg()])
			}
		}
	}
	checkWalls(t, edges)
}

// checkWalls follows all imports from one side of each wall.
func checkWalls(t *testing.T, edges map[string]map[string]bool) {
	for _, w := range walls {
		for from := range edges {
			if from != w.from && !strings.HasPrefix(from, w.from+"/") {
				continue
			}
			seen := map[string]bool{}
			var walk func(pkg string)
			walk = func(pkg string) {
				for to := range edges[pkg] {
					if seen[to] {
						continue
					}
					seen[to] = true
					if w.to == "*" || to == w.to || strings.HasPrefix(to, w.to+"/") {
						t.Errorf("%s reaches %s: %s", from, to, w.reason)
					}
					walk(to)
				}
			}
			walk(from)
		}
	}
}

func TestPurity(t *testing.T) {
	for _, s := range sources(t) {
		_, others := imports(s)
		if s.test {
			continue
		}
		for _, forbidden := range purity[s.pkg()] {
			if slices.Contains(others, forbidden) {
				t.Errorf("%s imports %s: package %s takes such things from its events", s.path, forbidden, s.pkg())
			}
		}
		if purity[s.pkg()] == nil {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				t.Errorf("%s: a goroutine in a pure package; the shell around it owns those", fset.Position(g.Pos()))
			}
			return true
		})
	}
}

func TestModules(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		_, others := imports(s)
		for _, path := range others {
			if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
				continue // standard library
			}
			known := slices.ContainsFunc(slices.Collect(maps.Keys(modules)), func(m string) bool { return path == m || strings.HasPrefix(path, m+"/") })
			if !known {
				t.Errorf("%s imports %s: a new dependency is worth a sentence in modules (appliance/arch_test.go), or is not worth it", s.path, path)
			}
		}
	}
}

// TestPackageComments: one per package, with no blank line before the clause
// (go doc would not show it).
func TestPackageComments(t *testing.T) {
	comments := map[string][]string{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		if comments[s.pkg()] == nil {
			comments[s.pkg()] = []string{}
		}
		if s.file.Doc != nil {
			comments[s.pkg()] = append(comments[s.pkg()], s.path)
			word := "Package " + s.file.Name.Name + " "
			if s.file.Name.Name == "main" {
				word = "Command "
			}
			if !strings.HasPrefix(s.file.Doc.Text(), word) {
				t.Errorf("%s: the package comment begins with %q", s.path, word)
			}
		}
		for _, c := range s.file.Comments {
			if c.End() < s.file.Package && strings.HasPrefix(c.Text(), "Package ") && c != s.file.Doc {
				t.Errorf("%s: a blank line hides the package comment from go doc", s.path)
			}
		}
	}
	for pkg, where := range comments {
		if len(where) != 1 {
			t.Errorf("package %s has %d package comments %v: it says once what it is and what it is not", pkg, len(where), where)
		}
	}
}

// TestExportedDocs: what others can use says what it does: every type, and every
// function of more than a few statements. Shorter ones (accessors, one
// constructor for each CDB) say it themselves, and for methods that implement an
// interface the interface does.
func TestExportedDocs(t *testing.T) {
	all := sources(t)
	explained := interfaceMethods(all)
	for _, s := range all {
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && exportedReceiver(d) && !(d.Recv != nil && explained[d.Name.Name]) && len(d.Body.List) > fewStatements {
					t.Errorf("%s: %s has no doc comment", fset.Position(d.Pos()), d.Name.Name)
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if typ, ok := spec.(*ast.TypeSpec); ok && typ.Name.IsExported() && d.Doc == nil && typ.Doc == nil && typ.Comment == nil {
						t.Errorf("%s: type %s has no doc comment", fset.Position(d.Pos()), typ.Name.Name)
					}
				}
			}
		}
	}
}

const fewStatements = 3

// interfaceMethods are the names of all methods of interfaces in the module.
func interfaceMethods(all []source) map[string]bool {
	names := map[string]bool{}
	for _, s := range all {
		ast.Inspect(s.file, func(n ast.Node) bool {
			if i, ok := n.(*ast.InterfaceType); ok {
				for _, m := range i.Methods.List {
					for _, name := range m.Names {
						names[name.Name] = true
					}
				}
			}
			return true
		})
	}
	return names
}

func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if index, ok := typ.(*ast.IndexExpr); ok {
		typ = index.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}

func TestTidy(t *testing.T) {
	// Written apart, so that this file does not find itself.
	unfinished := []string{"TO" + "DO", "FIX" + "ME", "XX" + "X"}
	for _, s := range sources(t) {
		if n := bytes.Count(s.text, []byte("\n")); n > maxLines {
			t.Errorf("%s has %d lines: more than %d are two files", s.path, n, maxLines)
		}
		for _, c := range s.file.Comments {
			for _, word := range unfinished {
				if strings.Contains(c.Text(), word) {
					t.Errorf("%s: %s: finish it, or open an issue and say what the code does without it", fset.Position(c.Pos()), word)
				}
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok && s.test && fmt.Sprint(callee(call)) == "time.Sleep" && !strings.HasPrefix(s.path, "appliance/") {
				t.Errorf("%s: tests do not sleep; wait for what is to happen", fset.Position(call.Pos()))
			}
			return true
		})
	}
}

func callee(c *ast.CallExpr) string {
	if sel, ok := c.Fun.(*ast.SelectorExpr); ok {
		if x, ok := sel.X.(*ast.Ident); ok {
			return x.Name + "." + sel.Sel.Name
		}
	}
	return ""
}
