package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// recorder is a Service that remembers what it was asked and answers with
// fixed values.
type recorder struct {
	asked string
	args  []any
	err   error
}

var (
	aDisk    = Disk{ID: "id", Name: "data", Size: 1<<63 + 4096, BlockSize: 512, Created: time.Unix(1e9, 0).UTC(), Exports: []Export{{"iqn.2026-11.petal:data", 0}}}
	aTarget  = Target{Name: "iqn.2026-11.petal:data", LUNs: []LUN{{3, "data"}}, Initiators: []string{"iqn.1993-08.org.debian:01:abc"}, CHAP: CHAP{User: "u"}}
	aSession = Session{ID: "7", Target: "t", TSIH: 7, Since: time.Unix(1e9, 0).UTC()}
	then     = time.Unix(1e9, 0).UTC()
	aNode    = Node{ID: 2, Name: "n2", Kind: "data", State: "down", Since: &then, Vote: "voter", Addresses: []string{"192.0.2.2:3259"}, Portals: []string{"192.0.2.2:3260"}, Joined: then}
	aToken   = Token{Token: "petal-1-secret", Expires: then, Uses: 3}
	aLink    = Link{ID: "1.3", Nodes: []string{"n1", "n2"}, InSync: []string{"n1"}, Head: "n1", Version: 7, State: "degraded", Since: &then, Disks: []string{"data"}, Percent: 25}
	anEvent  = Event{Number: 8, Time: then, Kind: "link", Node: "n2", Text: "n2 is out"}
	aStatus  = Status{Node: "n", State: "ok", Portals: []Portal{}, Bricks: []Brick{{Path: "/b", State: "ok"}}, Problems: []string{}, Started: time.Unix(1e9, 0).UTC()}
)

func (r *recorder) note(what string, args ...any) error { r.asked, r.args = what, args; return r.err }

func (r *recorder) Status(context.Context) (Status, error)         { return aStatus, r.note("Status") }
func (r *recorder) Disks(context.Context) ([]Disk, error)          { return []Disk{aDisk}, r.note("Disks") }
func (r *recorder) Disk(_ context.Context, n string) (Disk, error) { return aDisk, r.note("Disk", n) }
func (r *recorder) CreateDisk(_ context.Context, d NewDisk) (Disk, error) {
	return aDisk, r.note("CreateDisk", d)
}
func (r *recorder) ChangeDisk(_ context.Context, n string, c DiskChange) (Disk, error) {
	return aDisk, r.note("ChangeDisk", n, c)
}
func (r *recorder) DeleteDisk(_ context.Context, n string, force bool) error {
	return r.note("DeleteDisk", n, force)
}
func (r *recorder) Targets(context.Context) ([]Target, error) {
	return []Target{aTarget}, r.note("Targets")
}
func (r *recorder) Target(_ context.Context, n string) (Target, error) {
	return aTarget, r.note("Target", n)
}
func (r *recorder) CreateTarget(_ context.Context, n string) (Target, error) {
	return aTarget, r.note("CreateTarget", n)
}
func (r *recorder) DeleteTarget(_ context.Context, n string, force bool) error {
	return r.note("DeleteTarget", n, force)
}
func (r *recorder) MapLUN(_ context.Context, t string, lun *uint16, disk string) (Target, error) {
	return aTarget, r.note("MapLUN", t, lun, disk)
}
func (r *recorder) UnmapLUN(_ context.Context, t string, lun uint16, force bool) error {
	return r.note("UnmapLUN", t, lun, force)
}
func (r *recorder) SetACL(_ context.Context, t string, list []string) (Target, error) {
	return aTarget, r.note("SetACL", t, list)
}
func (r *recorder) SetCHAP(_ context.Context, t string, a CHAPAccount) (Target, error) {
	return aTarget, r.note("SetCHAP", t, a)
}
func (r *recorder) DiscoveryCHAP(context.Context) (CHAP, error) {
	return CHAP{User: "d"}, r.note("DiscoveryCHAP")
}
func (r *recorder) SetDiscoveryCHAP(_ context.Context, a CHAPAccount) error {
	return r.note("SetDiscoveryCHAP", a)
}
func (r *recorder) Sessions(context.Context) ([]Session, error) {
	return []Session{aSession}, r.note("Sessions")
}
func (r *recorder) KillSession(_ context.Context, id string) error { return r.note("KillSession", id) }
func (r *recorder) Nodes(context.Context) ([]Node, error)          { return []Node{aNode}, r.note("Nodes") }
func (r *recorder) RemoveNode(_ context.Context, name string) error {
	return r.note("RemoveNode", name)
}
func (r *recorder) ReportEnd(_ context.Context, name string, incarnation uint64) error {
	return r.note("ReportEnd", name, incarnation)
}
func (r *recorder) CreateToken(_ context.Context, x NewToken) (Token, error) {
	return aToken, r.note("CreateToken", x)
}
func (r *recorder) Links(context.Context) ([]Link, error) { return []Link{aLink}, r.note("Links") }
func (r *recorder) ForceLink(_ context.Context, id string, x ForceLink) error {
	return r.note("ForceLink", id, x)
}
func (r *recorder) Events(_ context.Context, after uint64) ([]Event, error) {
	return []Event{anEvent}, r.note("Events", after)
}
func (r *recorder) Cut(_ context.Context, on bool) error         { return r.note("Cut", on) }
func (r *recorder) Throttle(_ context.Context, rate int64) error { return r.note("Throttle", rate) }

// serve serves s on a socket and returns its path.
func serve(t *testing.T, s Service) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: Handler(s, "test", http.NotFoundHandler())}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return path
}

// TestRoundTrip sends every request of Service through client, socket and
// handler: arguments and answers arrive unchanged.
func TestRoundTrip(t *testing.T) {
	ctx, r := context.Background(), &recorder{}
	c := NewClient(serve(t, r))
	five, size, yes := uint16(5), uint64(1)<<63+512, true
	account := CHAPAccount{User: "u", Secret: "s\x01ecret\"<&é", MutualUser: "m", MutualSecret: "t"}
	odd := "na/me?x=1 %41"
	for _, x := range []struct {
		method string
		args   []any
		answer any
	}{
		{"Status", nil, aStatus},
		{"Disks", nil, []Disk{aDisk}},
		{"Disk", []any{odd}, aDisk},
		{"CreateDisk", []any{NewDisk{Name: "data", Size: size, BlockSize: 4096, WriteBack: true, ReadOnly: true, Target: "t", LUN: &five}}, aDisk},
		{"CreateDisk", []any{NewDisk{Name: "data", Size: size, NoExport: true}}, aDisk},
		{"ChangeDisk", []any{"data", DiskChange{Size: &size, Shrink: true, WriteBack: &yes, ReadOnly: &yes}}, aDisk},
		{"ChangeDisk", []any{"data", DiskChange{}}, aDisk},
		{"DeleteDisk", []any{"data", true}, nil},
		{"DeleteDisk", []any{"data", false}, nil},
		{"Targets", nil, []Target{aTarget}},
		{"Target", []any{"iqn.2026-11.petal:a"}, aTarget},
		{"CreateTarget", []any{"iqn.2026-11.petal:a"}, aTarget},
		{"DeleteTarget", []any{"iqn.2026-11.petal:a", true}, nil},
		{"MapLUN", []any{"t", &five, "data"}, aTarget},
		{"MapLUN", []any{"t", (*uint16)(nil), "data"}, aTarget},
		{"UnmapLUN", []any{"t", five, true}, nil},
		{"SetACL", []any{"t", []string{"a", "b"}}, aTarget},
		{"SetACL", []any{"t", []string{}}, aTarget},
		{"SetCHAP", []any{"t", account}, aTarget},
		{"SetCHAP", []any{"t", CHAPAccount{}}, aTarget},
		{"DiscoveryCHAP", nil, CHAP{User: "d"}},
		{"SetDiscoveryCHAP", []any{account}, nil},
		{"Sessions", nil, []Session{aSession}},
		{"KillSession", []any{"7"}, nil},
		{"Nodes", nil, []Node{aNode}},
		{"RemoveNode", []any{odd}, nil},
		{"ReportEnd", []any{"n2", uint64(7)}, nil},
		{"CreateToken", []any{NewToken{Seconds: 60, Uses: 3}}, aToken},
		{"CreateToken", []any{NewToken{}}, aToken},
		{"Links", nil, []Link{aLink}},
		{"ForceLink", []any{"1.3", ForceLink{Node: "n2", AcceptLoss: true}}, nil},
		{"Events", []any{uint64(7)}, []Event{anEvent}},
		{"Throttle", []any{int64(1 << 20)}, nil},
		{"Cut", []any{true}, nil},
	} {
		in := []reflect.Value{reflect.ValueOf(ctx)}
		for _, a := range x.args {
			in = append(in, reflect.ValueOf(a))
		}
		out := reflect.ValueOf(c).MethodByName(x.method).Call(in)
		if err := out[len(out)-1].Interface(); err != nil {
			t.Errorf("%s%v: %v", x.method, x.args, err)
			continue
		}
		if r.asked != x.method {
			t.Errorf("%s arrived as %s", x.method, r.asked)
		}
		if diff := cmp.Diff(x.args, r.args); diff != "" {
			t.Errorf("%s: arguments (-sent +arrived):\n%s", x.method, diff)
		}
		if x.answer != nil {
			if diff := cmp.Diff(x.answer, out[0].Interface()); diff != "" {
				t.Errorf("%s: answer (-given +got):\n%s", x.method, diff)
			}
		}
	}
	if n := reflect.TypeFor[Service]().NumMethod(); n != 27 {
		t.Errorf("Service has %d methods; the list above was written for 27", n)
	}
}

// TestErrors: an error arrives with its kind and hint, and another one as Internal.
func TestErrors(t *testing.T) {
	ctx, r := context.Background(), &recorder{}
	c := NewClient(serve(t, r))
	for kind := range kindStatus {
		r.err = &Error{Kind: kind, Message: "disk \"x\": no", Advice: "do this"}
		_, err := c.Disk(ctx, "x")
		if diff := cmp.Diff(r.err, err); diff != "" {
			t.Errorf("%s (-sent +arrived):\n%s", kind, diff)
		}
	}
	r.err = errors.New("disk on fire")
	err := c.DeleteDisk(ctx, "x", false)
	if e, ok := errors.AsType[*Error](err); !ok || e.Kind != Internal || !strings.Contains(e.Message, "disk on fire") {
		t.Errorf("%#v", err)
	}
}

// TestRefused: what does not fit the types is refused before it reaches Service.
func TestRefused(t *testing.T) {
	r := &recorder{}
	path := serve(t, r)
	for _, x := range []struct{ method, path, body string }{
		{"POST", "/v1/disks", `{`},
		{"POST", "/v1/disks", `{"name": "a"}`},
		{"POST", "/v1/disks", `{"name": "a", "size": -1}`},
		{"POST", "/v1/disks", `{"name": "a", "size": 1, "sise": 2}`},
		{"POST", "/v1/targets/t/luns", `{"disk": "a", "lun": 256}`},
		{"DELETE", "/v1/targets/t/luns/-1", ``},
		{"DELETE", "/v1/disks/a?force=maybe", ``},
		{"GET", "/v1/nothing", ``},
		{"POST", "/v1/disks", `{"name": "` + strings.Repeat("a", maxBody) + `"}`},
	} {
		status, body := request(t, path, x.method, x.path, x.body)
		if status < 400 || status >= 500 || r.asked != "" {
			t.Errorf("%s %s %.60s: status %d, reached %q, %.200s", x.method, x.path, x.body, status, r.asked, body)
		}
		r.asked = ""
	}
}

func request(t *testing.T, socket, method, path, body string) (status int, answer string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, socket) }, DisableKeepAlives: true}}
	req, err := http.NewRequest(method, "http://petal"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

// TestDocuments: the description is there; what would load from the internet or
// clutter answers is not.
func TestDocuments(t *testing.T) {
	path := serve(t, &recorder{})
	status, text := request(t, path, "GET", "/openapi.json", "")
	var doc struct{ Paths map[string]any }
	if err := json.Unmarshal([]byte(text), &doc); status != 200 || err != nil || len(doc.Paths) < 10 {
		t.Errorf("/openapi.json: %d, %v, %d paths", status, err, len(doc.Paths))
	}
	if status, _ := request(t, path, "GET", "/docs", ""); status != 404 {
		t.Errorf("/docs: %d", status)
	}
	if _, text := request(t, path, "GET", "/v1/status", ""); strings.Contains(text, "$schema") {
		t.Errorf("a $schema link in %s", text)
	}
	if status, _ := request(t, path, "GET", "/debug/pprof/cmdline", ""); status != 200 {
		t.Errorf("/debug/pprof/cmdline: %d", status)
	}
}

// TestSocket: mode, a path longer than an address, a socket left behind, one in
// use, and a file in the way.
func TestSocket(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 40))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "admin.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || info.Mode()&fs.ModeSocket == 0 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	go http.Serve(l, Handler(&recorder{}, "test", http.NotFoundHandler()))
	if _, err := NewClient(path).Status(context.Background()); err != nil {
		t.Errorf("through a long path: %v", err)
	}
	if _, err := Listen(path); err == nil || err.(*Error).Kind != InUse {
		t.Errorf("a second node on the socket: %v", err)
	}
	l.Close() // leaves the socket, as a crash does
	l, err = Listen(path)
	if err != nil {
		t.Fatalf("socket left behind: %v", err)
	}
	l.Close()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file); err == nil {
		t.Error("a file was taken for a socket")
	}
	if text, _ := os.ReadFile(file); string(text) != "precious" {
		t.Error("a file was overwritten")
	}
	_, err = NewClient(filepath.Join(dir, "none")).Status(context.Background())
	if e, ok := errors.AsType[*Error](err); !ok || e.Kind != Unreachable || e.Advice == "" {
		t.Errorf("no node: %#v", err)
	}
}

// TestSilentNode: a question that changes nothing is not waited for for ever.
func TestSilentNode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.sock")
	l, err := Listen(path) // connections wait in its backlog, as those to a stopped process
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := NewClient(path)
	c.patience = time.Millisecond
	_, err = c.Status(context.Background())
	if e, ok := err.(*Error); !ok || e.Kind != Unreachable || e.Advice == "" || !strings.Contains(e.Message, "has not answered for 1ms") {
		t.Errorf("%#v", err)
	}
}
