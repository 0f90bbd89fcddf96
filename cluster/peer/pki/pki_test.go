package pki

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"petal/placement"
)

var cluster = [16]byte{0xab, 1, 2}

func authority(t testing.TB, cluster [16]byte) *Authority {
	a, err := NewAuthority(cluster)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t testing.TB, a *Authority, server placement.Server, now time.Time) *Identity {
	id, err := a.Issue(Name{a.Cluster(), server}, now)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// handshake connects client and server and returns what each made of it. Each
// reads a byte of the other, for with TLS 1.3 a client learns by reading that it
// was refused.
func handshake(client, server *tls.Config) (clientErr, serverErr error) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error)
	side := func(c *tls.Conn) error {
		defer c.NetConn().Close()
		if err := c.Handshake(); err != nil {
			return err
		}
		wrote := make(chan struct{})
		go func() { c.Write([]byte{1}); close(wrote) }()
		_, err := c.Read(make([]byte, 1))
		if err == nil {
			<-wrote
		}
		return err
	}
	go func() { done <- side(tls.Server(b, server)) }()
	clientErr = side(tls.Client(a, client))
	return clientErr, <-done
}

const protocol, open = "test/1", "open/1"

func TestServersOfAClusterMeet(t *testing.T) {
	a := authority(t, cluster)
	one, two := issue(t, a, 1, time.Now()), issue(t, a, 2, time.Now())
	c, s := handshake(one.ClientConfig(protocol, two.Name()), two.ServerConfig(protocol, open))
	if c != nil || s != nil {
		t.Errorf("%v; %v", c, s)
	}
}

// TestOthersAreRefused by the server, or, where the name says server, by the
// client: the other side's word for it does not count.
func TestOthersAreRefused(t *testing.T) {
	now := time.Now()
	a, same, foreign := authority(t, cluster), authority(t, cluster), authority(t, [16]byte{9})
	one, two := issue(t, a, 1, now), issue(t, a, 2, now)
	none := two.ClientConfig(protocol, one.Name())
	none.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return new(tls.Certificate), nil }
	old := two.ClientConfig(protocol, one.Name())
	old.MaxVersion, old.MinVersion = tls.VersionTLS12, tls.VersionTLS12
	for _, c := range []struct {
		name           string
		client, server *tls.Config
	}{
		{"client without a certificate", none, one.ServerConfig(protocol, open)},
		{"TLS 1.2", old, one.ServerConfig(protocol, open)},
		{"client of another authority of this cluster's name", issue(t, same, 2, now).ClientConfig(protocol, one.Name()), one.ServerConfig(protocol, open)},
		{"client of another cluster", issue(t, foreign, 2, now).ClientConfig(protocol, Name{[16]byte{9}, 1}), one.ServerConfig(protocol, open)},
		{"server of another authority", two.ClientConfig(protocol, one.Name()), issue(t, same, 1, now).ServerConfig(protocol, open)},
		{"server that is not the one meant", two.ClientConfig(protocol, Name{cluster, 3}), one.ServerConfig(protocol, open)},
		{"client whose certificate is over", issue(t, a, 2, now.Add(-2*ServerLife)).ClientConfig(protocol, one.Name()), one.ServerConfig(protocol, open)},
		{"server whose certificate is over", two.ClientConfig(protocol, one.Name()), issue(t, a, 1, now.Add(-2*ServerLife)).ServerConfig(protocol, open)},
		{"client from the future", issue(t, a, 2, now.Add(2*clockError)).ClientConfig(protocol, one.Name()), one.ServerConfig(protocol, open)},
		{"the authority itself as a client", forged(t, a, Name{Cluster: cluster}).ClientConfig(protocol, one.Name()), one.ServerConfig(protocol, open)},
		{"right authority, other cluster in the name", forged(t, a, Name{[16]byte{9}, 2}).ClientConfig(protocol, one.Name()), one.ServerConfig(protocol, open)},
		{"certificate signed by a member", signedBy(t, two, 4).ClientConfig(protocol, one.Name()), one.ServerConfig(protocol, open)},
		{"unknown protocol", two.ClientConfig("other/1", one.Name()), one.ServerConfig(protocol, open)},
	} {
		refuser, other := handshake(c.client, c.server)
		if !strings.Contains(c.name, "server") {
			c.client.VerifyConnection = nil // a client that takes anybody: the server has to refuse
			other, refuser = handshake(c.client, c.server)
		}
		if refuser == nil || other == nil || strings.Contains(refuser.Error(), "remote") {
			t.Errorf("%s: %v; %v", c.name, refuser, other)
		}
	}
}

// identityOf is an identity nobody checked.
func identityOf(ca, leaf *x509.Certificate, key *ecdsa.PrivateKey) *Identity {
	n, _ := nameOf(leaf)
	id := &Identity{authority: ca, name: n}
	id.current.Store(&tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf})
	return id
}

// forged is what an authority that does not care would sign.
func forged(t *testing.T, a *Authority, name Name) *Identity {
	key, _ := NewKey()
	leaf, err := sign(&x509.Certificate{URIs: []*url.URL{name.url()}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}, a.Cert, &key.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return identityOf(a.Cert, leaf, key.key)
}

// signedBy is a certificate that a server has signed with its own.
func signedBy(t *testing.T, id *Identity, server placement.Server) *Identity {
	key, _ := NewKey()
	c := id.current.Load()
	leaf, err := sign(&x509.Certificate{URIs: []*url.URL{Name{cluster, server}.url()}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)},
		c.Leaf, &key.key.PublicKey, c.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	forged := identityOf(id.authority, leaf, key.key)
	chain := *forged.current.Load()
	chain.Certificate = append(chain.Certificate, c.Certificate...)
	forged.current.Store(&chain)
	return forged
}

// TestJoinConfig: a newcomer believes the fingerprint, and nothing else.
func TestJoinConfig(t *testing.T) {
	a, other := authority(t, cluster), authority(t, cluster)
	one := issue(t, a, 1, time.Now())
	print := Fingerprint(a.Cert)
	if c, s := handshake(JoinConfig(open, cluster, print), one.ServerConfig(protocol, open)); c != nil || s != nil {
		t.Fatalf("%v; %v", c, s)
	}
	for name, c := range map[string]*tls.Config{
		"other fingerprint": JoinConfig(open, cluster, Fingerprint(other.Cert)),
		"other cluster":     JoinConfig(open, [16]byte{9}, print),
	} {
		if err, _ := handshake(c, one.ServerConfig(protocol, open)); !errors.Is(err, ErrOther) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Somebody shows the authority's certificate, which is public, behind his own.
	liar := forged(t, other, Name{cluster, 1})
	chain := *liar.current.Load()
	chain.Certificate = [][]byte{chain.Certificate[0], a.Cert.Raw}
	liar.current.Store(&chain)
	if err, _ := handshake(JoinConfig(open, cluster, print), liar.ServerConfig(protocol, open)); err == nil {
		t.Error("believed a certificate that the authority has not signed")
	}
}

func TestSignRefuses(t *testing.T) {
	a := authority(t, cluster)
	good, _ := NewKey()
	request, err := good.Request()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Sign(request, 5, time.Now()); err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(request)
	spoilt := append([]byte(nil), block.Bytes...)
	spoilt[len(spoilt)-3]++
	make := func(key any) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: blockRequest, Bytes: der})
	}
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	for name, c := range map[string]struct {
		request []byte
		server  placement.Server
	}{
		"server 0":        {request, 0},
		"nothing":         {nil, 5},
		"not PEM":         {[]byte("hello"), 5},
		"a certificate":   {a.CertPEM(), 5},
		"two of them":     {append(append([]byte(nil), request...), request...), 5},
		"wrong signature": {pem.EncodeToMemory(&pem.Block{Type: blockRequest, Bytes: spoilt}), 5},
		"P-384":           {make(p384), 5},
		"Ed25519":         {make(ed), 5},
	} {
		if _, err := a.Sign(c.request, c.server, time.Now()); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
}

func TestStoreAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	if _, err := Load(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("nothing there: %v", err)
	}
	a := authority(t, cluster)
	key, _ := NewKey()
	request, _ := key.Request()
	cert, err := a.Sign(request, 7, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	id, err := NewIdentity(key, cert, a.CertPEM())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // again, over itself
		if err := id.Store(dir); err != nil {
			t.Fatal(err)
		}
	}
	for name, mode := range map[string]fs.FileMode{fileServer: 0o600, fileAuthority: 0o644, ".": 0o700} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	got, err := Load(dir)
	if err != nil || got.Name() != (Name{cluster, 7}) || !got.NotAfter().Equal(id.NotAfter()) {
		t.Fatalf("%v, %v", got, err)
	}
	if c, s := handshake(got.ClientConfig(protocol, Name{cluster, 7}), id.ServerConfig(protocol, open)); c != nil || s != nil {
		t.Errorf("%v; %v", c, s)
	}
	files, _ := os.ReadDir(dir)
	if len(files) != 2 {
		t.Errorf("left behind: %v", files)
	}
	b, _ := os.ReadFile(filepath.Join(dir, fileServer))
	for n := 0; n < len(b)-1; n += 16 { // cut anywhere: refused, not misread
		os.WriteFile(filepath.Join(dir, fileServer), b[:n], 0o600)
		if _, err := Load(dir); err == nil {
			t.Errorf("cut to %d of %d bytes: loaded", n, len(b))
		}
	}
	os.WriteFile(filepath.Join(dir, fileServer), b, 0o600)
	os.WriteFile(filepath.Join(dir, fileAuthority), authority(t, cluster).CertPEM(), 0o644)
	if _, err := Load(dir); err == nil {
		t.Error("loaded with another authority")
	}
}

// TestRenew: connections made afterwards show the new certificate, those of
// others are not taken over.
func TestRenew(t *testing.T) {
	a := authority(t, cluster)
	now := time.Now()
	one := issue(t, a, 1, now.Add(-ServerLife+48*time.Hour))
	two := issue(t, a, 2, now)
	due := func(id *Identity, at time.Time) bool { return id.Due(at) <= 0 }
	if !due(one, now) || due(two, now) || due(two, now.Add(ServerLife/2)) || !due(two, now.Add(ServerLife*3/4)) {
		t.Error("due at the wrong time")
	}
	config := one.ServerConfig(protocol, open) // made before
	newer := issue(t, a, 1, now)
	if err := one.Renew(newer); err != nil || due(one, now) || !one.NotAfter().Equal(newer.NotAfter()) {
		t.Fatalf("%v, until %v", err, one.NotAfter())
	}
	var seen *x509.Certificate
	client := two.ClientConfig(protocol, one.Name())
	verify := client.VerifyConnection
	client.VerifyConnection = func(s tls.ConnectionState) error { seen = s.PeerCertificates[0]; return verify(s) }
	if c, s := handshake(client, config); c != nil || s != nil || !seen.NotAfter.Equal(newer.NotAfter()) {
		t.Errorf("%v; %v; shown one until %v", c, s, seen.NotAfter)
	}
	for name, id := range map[string]*Identity{"another server's": two, "another authority's": issue(t, authority(t, cluster), 1, now)} {
		if err := one.Renew(id); !errors.Is(err, ErrOther) {
			t.Errorf("renewed by %s: %v", name, err)
		}
	}
}

func TestAuthorityIsKept(t *testing.T) {
	a := authority(t, cluster)
	key, err := a.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	b, err := OpenAuthority(a.CertPEM(), key)
	if err != nil || b.Cluster() != cluster || Fingerprint(b.Cert) != Fingerprint(a.Cert) {
		t.Fatal(err)
	}
	if c, s := handshake(issue(t, b, 1, time.Now()).ClientConfig(protocol, Name{cluster, 2}), issue(t, a, 2, time.Now()).ServerConfig(protocol, open)); c != nil || s != nil {
		t.Errorf("%v; %v", c, s)
	}
	other, _ := authority(t, cluster).KeyPEM()
	leaf := certPEM(issue(t, a, 1, time.Now()).current.Load().Leaf)
	for name, c := range map[string][2][]byte{
		"another's key": {a.CertPEM(), other}, "a server's certificate": {leaf, key}, "no key": {a.CertPEM(), nil}, "swapped": {key, a.CertPEM()},
	} {
		if _, err := OpenAuthority(c[0], c[1]); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	if _, err := a.Issue(Name{[16]byte{9}, 1}, time.Now()); !errors.Is(err, ErrOther) {
		t.Error(err)
	}
}

// TestNames: each name has one way to be written.
func TestNames(t *testing.T) {
	for _, n := range []Name{{cluster, 1}, {cluster, 1<<32 - 1}, {Cluster: cluster}} {
		got, err := nameOf(&x509.Certificate{URIs: []*url.URL{n.url()}})
		if err != nil || got != n {
			t.Errorf("%v: %v, %v", n, got, err)
		}
	}
	good := Name{cluster, 1}.String()
	for _, s := range []string{
		"", "https" + good[5:], good + "/", good + "0x", good[:len(good)-1] + "0", good[:len(good)-1] + "01", good[:len(good)-1] + "4294967296",
		strings.ToUpper(good), good + "?x=1", good + "#x", strings.Replace(good, "//", "//u@", 1), good[:20], strings.Replace(good, "server", "client", 1),
		strings.Replace(good, "/server", ":80/server", 1),
	} {
		u, err := url.Parse(s)
		if err != nil {
			continue
		}
		if n, err := nameOf(&x509.Certificate{URIs: []*url.URL{u}}); !errors.Is(err, ErrName) {
			t.Errorf("%q is %v, %v", s, n, err)
		}
	}
	u := Name{cluster, 1}.url()
	if _, err := nameOf(&x509.Certificate{URIs: []*url.URL{u, u}}); !errors.Is(err, ErrName) {
		t.Error("two names")
	}
	if _, err := NameOf(nil); !errors.Is(err, ErrName) {
		t.Error("no certificate")
	}
}

// TestWrongClock: what was issued while the calendar was years away, either way, is
// renewed as soon as it is right; and the authority of a cluster that was made then
// is believed.
func TestWrongClock(t *testing.T) {
	now := time.Now()
	a := authority(t, cluster)
	two := issue(t, a, 2, now)
	for _, wrong := range []time.Time{now.AddDate(3, 0, 0), now.Add(2 * clockError), time.Unix(0, 0), now.AddDate(-3, 0, 0)} {
		one := issue(t, a, 1, wrong)
		if one.Due(wrong) <= 0 {
			t.Errorf("issued at %v: due at once", wrong)
		}
		if err, _ := handshake(two.ClientConfig(protocol, one.Name()), one.ServerConfig(protocol, open)); err == nil {
			t.Errorf("issued at %v: still believed", wrong)
		}
		if due := one.Due(now); due > 0 {
			t.Errorf("issued at %v: refused, and renewed in %v", wrong, due)
		}
	}
	if one := issue(t, a, 1, now.Add(clockError/2)); one.Due(now) <= 0 {
		t.Error("half a day ahead is believed, and due at once")
	}
	for _, at := range []time.Time{time.Unix(0, 0).Add(time.Hour), now.AddDate(100, 0, 0)} {
		if at.Before(a.Cert.NotBefore) || at.After(a.Cert.NotAfter) {
			t.Errorf("the authority does not hold at %v", at)
		}
	}
}
