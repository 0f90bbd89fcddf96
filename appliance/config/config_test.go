package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the wanted messages in testdata")

// TestBad: every sample fails, with the messages in its head ("#! " lines) and
// no others.
func TestBad(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) < 25 {
		t.Fatalf("%d samples, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, text := splitWanted(string(raw))
			_, err = Parse("petal.toml", text)
			if err == nil {
				t.Fatal("accepted")
			}
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("%T, want Errors", err)
			}
			if errs.Hint() == "" || errs[0].Line == 0 {
				t.Errorf("no hint or no line: %+v", errs)
			}
			got := err.Error() + "\nhint: " + errs.Hint()
			if *rewrite {
				head := "#! " + strings.ReplaceAll(got, "\n", "\n#! ") + "\n"
				if err := os.WriteFile(file, []byte(head+text), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

func splitWanted(raw string) (want, text string) {
	var head []string
	for strings.HasPrefix(raw, "#! ") {
		line, rest, _ := strings.Cut(raw, "\n")
		head, raw = append(head, strings.TrimPrefix(line, "#! ")), rest
	}
	return strings.Join(head, "\n"), raw
}

// TestExample: the example parses as it is, and with every key uncommented,
// and it shows every key that there is.
func TestExample(t *testing.T) {
	if _, err := Parse("example", Example); err != nil {
		t.Fatal(err)
	}
	all := Uncommented()
	c, err := Parse("example, uncommented", all)
	if err != nil {
		t.Fatal(err)
	}
	lines := keyLines(all)
	for _, g := range groups {
		prefix := g.name
		if g.add != nil {
			prefix += "[0]"
		}
		for _, row := range g.rows {
			if lines[prefix+"."+row.name] == 0 {
				t.Errorf("petal.toml.example does not show %s.%s", g.name, row.name)
			}
		}
	}
	// A commented key shows its default, except where the comment says that the default is none or depends on the machine.
	def := Default(DefaultDir)
	if c.ISCSI != def.ISCSI || c.Log != def.Log || c.Node.Drain != def.Node.Drain || c.Bricks[0].Journal != def.Bricks[0].Journal {
		t.Errorf("the example's defaults are not the defaults:\n%+v\n%+v", c, def)
	}
	if c.Admin.Socket != DefaultSocket || c.Node.Dir != DefaultDir || c.Time.Scale != 1 || c.Cluster.Plain || c.Cluster.Witness || c.Portals[0].Group != def.Portals[0].Group {
		t.Errorf("the example's defaults are not the defaults:\n%+v\n%+v", c, def)
	}
}

func TestAllKeys(t *testing.T) {
	c, err := Parse("x", `
[node]
name = "n1"
dir = "/d"
drain_timeout = "5s"
[cluster]
listen = "0.0.0.0:3259"
advertise = "10.1.0.1:3259"
peers = ["10.1.0.2:3259", "[2001:db8::3]:3259"]
site = "rack-1"
plain = true
certificate_life = "24h"
resync_rate = "10MiB"
[time]
scale = 2
lease = "3s"
replace = "1h"
[[portal]]
listen = "[::1]:3260"
[[portal]]
listen = "10.0.0.1:3261"
advertise = "192.0.2.1:3260"
group = 2
[[brick]]
path = "/b1"
journal = "300MB"
capacity = 1073741824
[[brick]]
path = "/b2"
[cache]
size = "64MiB"
[iscsi]
iqn_base = "iqn.2001-04.com.example"
nop_interval = "3s"
nop_timeout = "4s"
login_timeout = "1m"
[admin]
socket = "/s"
metrics = ":9260"
[log]
level = "warn"
format = "json"
`)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		Node:    Node{Name: "n1", Dir: "/d", Drain: 5 * time.Second},
		Cluster: Cluster{Listen: "0.0.0.0:3259", Advertise: "10.1.0.1:3259", Peers: []string{"10.1.0.2:3259", "[2001:db8::3]:3259"}, Site: "rack-1", Plain: true, CertificateLife: 24 * time.Hour, ResyncRate: 10 << 20},
		Time:    Time{Scale: 2, Intervals: [len(TimeNames)]time.Duration{0: 3 * time.Second, 11: time.Hour}},
		Portals: []Portal{{Listen: "[::1]:3260", Group: 1}, {Listen: "10.0.0.1:3261", Advertise: "192.0.2.1:3260", Group: 2}},
		Bricks:  []Brick{{Path: "/b1", Journal: 300e6, Capacity: 1 << 30}, {Path: "/b2", Journal: DefaultJournal}},
		Cache:   64 << 20,
		ISCSI:   ISCSI{IQNBase: "iqn.2001-04.com.example", NopInterval: 3 * time.Second, NopTimeout: 4 * time.Second, LoginTimeout: time.Minute},
		Admin:   Admin{Socket: "/s", Metrics: ":9260"},
		Log:     Log{Level: slog.LevelWarn, Format: "json"},
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
}

func TestLoadMissing(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.toml"))
	var errs Errors
	if !errors.As(err, &errs) || !strings.Contains(errs.Hint(), "config example") {
		t.Errorf("%v", err)
	}
}

func TestDefaultCache(t *testing.T) {
	if n := DefaultCache(); n < MinCache || n%(1<<20) != 0 {
		t.Errorf("default cache %d", n)
	}
}

func TestNearest(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"szie", "size"}, {"drain_timout", "drain_timeout"}, {"listn", "listen"}, {"zzz", ""}, {"", ""},
	} {
		if got := Nearest(c.name, []string{"size", "drain_timeout", "listen"}); got != c.want {
			t.Errorf("Nearest(%q) = %q, want %q", c.name, got, c.want)
		}
	}
}

// TestJSON: what `config check --json` prints is a petal.toml in other letters.
func TestJSON(t *testing.T) {
	c, err := Parse("x", Uncommented())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var tree map[string]any
	if err := d.Decode(&tree); err != nil {
		t.Fatal(err)
	}
	back := empty()
	r := reader{config: back, lines: map[string]int{}}
	r.read(asTOML(tree).(map[string]any))
	if diff := cmp.Diff(c, back); diff != "" || len(r.errs) > 0 {
		t.Errorf("%v\n%s", r.errs, diff)
	}
}

// asTOML gives a JSON tree the types that the TOML decoder makes.
func asTOML(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key := range v {
			v[key] = asTOML(v[key])
			if s, ok := v[key].(string); ok && s == "" {
				delete(v, key) // not set
			}
		}
	case []any:
		list := []map[string]any{}
		for _, e := range v {
			table, ok := asTOML(e).(map[string]any)
			if !ok {
				return v // of strings
			}
			list = append(list, table)
		}
		return list
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	}
	return v
}

func FuzzParse(f *testing.F) {
	f.Add(Example)
	files, _ := filepath.Glob("testdata/bad/*.toml")
	for _, file := range files {
		text, _ := os.ReadFile(file)
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("x", text)
		if (c == nil) == (err == nil) {
			t.Fatal("either a configuration or an error")
		}
		if c != nil && (!c.Cluster.Witness && (len(c.Portals) == 0 || len(c.Bricks) == 0) || c.Cache < MinCache) {
			t.Fatalf("incomplete: %+v", c)
		}
	})
}
