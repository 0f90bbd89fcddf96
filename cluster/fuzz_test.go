package cluster

import (
	"bytes"
	"testing"

	"petal/cluster/replica"
	"petal/journal/vfs"
	"petal/placement"
)

// FuzzLinkVers: what another server answers to a barrier is bounded, and what is
// taken is what was said.
func FuzzLinkVers(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendLinkVers(nil, []replica.LinkVer{{Link: placement.LinkID{GMap: 1, Position: 2}, Ver: 3}, {Ver: 1<<64 - 1}}))
	f.Add(make([]byte, linkVerBytes*(linkVersMax+1)))
	f.Add([]byte("not a multiple"))
	f.Fuzz(func(t *testing.T, b []byte) {
		links, ok := parseLinkVers(b)
		if !ok {
			return
		}
		if len(links) > linkVersMax || !bytes.Equal(appendLinkVers(nil, links), b) {
			t.Errorf("%d links from %d bytes", len(links), len(b))
		}
	})
}

// FuzzIdentity: a damaged file is told from none and from a good one.
func FuzzIdentity(f *testing.F) {
	fsys := vfs.NewMemory(1 << 20)
	id := &identity{Cluster: hexID{1, 2}, Server: 3, Peers: []Peer{{Server: 1, Name: "a", Addresses: []string{"h:1"}}}}
	if err := id.write(fsys); err != nil {
		f.Fatal(err)
	}
	good, err := readFile(fsys, identityName, 1<<20)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("{}"))
	f.Add([]byte(`{"cluster":"00","server":1}`))
	f.Add(bytes.Replace(good, []byte(`"server": 3`), []byte(`"server": -1`), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := writeFile(fsys, identityName, b); err != nil {
			t.Fatal(err)
		}
		got, err := readIdentity(fsys)
		if err == nil && (got == nil || got.Server == 0 || got.Cluster == (hexID{})) {
			t.Errorf("%q is taken for %+v", b, got)
		}
	})
}
