package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"petal/cluster/peer/pki"
)

// gate is a Joiner that knows one token.
type gate struct {
	secret    [16]byte
	authority *pki.Authority
	err       error
	asked     int
	request   *JoinRequest
}

func (g *gate) Join(_ context.Context, secret [16]byte, request *JoinRequest) (*JoinAnswer, error) {
	g.asked++
	g.request = request
	if secret != g.secret {
		return nil, ErrTokenUnknown
	}
	if g.err != nil {
		return nil, g.err
	}
	cert, err := g.authority.Sign(request.CSR, 5, time.Now())
	if err != nil {
		return nil, err
	}
	return &JoinAnswer{Server: 5, Cert: cert, Authority: g.authority.CertPEM(), SealKey: []byte("seal"), Members: []Peer{{Server: 1, Addrs: []string{"a:1"}, Name: "n1"}}, Extra: []byte("x")}, nil
}

// gated starts server 1 with a gate, and returns a token that it knows.
func gated(f *fleet) (*gate, Token) {
	g := &gate{secret: NewSecret(), authority: f.authority}
	opt := f.options(1, 10, newRecorder(f.t))
	opt.Joiner = g
	p := f.start(opt)
	return g, Token{Cluster: clusterID, Fingerprint: pki.Fingerprint(f.authority.Cert), Secret: g.secret, Addrs: []string{p.Addrs()[0].String()}}
}

func someRequest(t *testing.T) (pki.Key, *JoinRequest) {
	key, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := key.Request()
	if err != nil {
		t.Fatal(err)
	}
	return key, &JoinRequest{CSR: csr, Name: "n5", Site: "s", Kind: "data", Addrs: []string{"b:2"}, Portals: []string{"c:3"}, Release: "1.0", Extra: bytes.Repeat([]byte("y"), 6<<10)}
}

// TestJoin: a newcomer with a token gets a certificate, and with it talks to
// those he joined. So it goes in a cluster that does without encryption, too.
func TestJoin(t *testing.T) {
	both(t, func(t *testing.T, plain bool) {
		f := newFleet(t, plain)
		g, token := gated(f)
		key, request := someRequest(t)
		answer, err := Join(t.Context(), token, request)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(g.request, request) {
			t.Errorf("asked %+v", g.request)
		}
		if answer.Server != 5 || string(answer.SealKey) != "seal" || string(answer.Extra) != "x" || len(answer.Members) != 1 || answer.Members[0].Addrs[0] != "a:1" {
			t.Errorf("answer %+v", answer)
		}
		id, err := pki.NewIdentity(key, answer.Cert, answer.Authority)
		if err != nil || id.Name() != (pki.Name{Cluster: clusterID, Server: 5}) {
			t.Fatalf("%v, %v", id, err)
		}
		opt := f.options(5, 0, newRecorder(t))
		opt.TLS = id
		five := f.start(opt)
		five.SetPeers(f.members[:1])
		eventually(t, func() bool { return five.Status()[0].Raft })
	})
}

// TestJoinErrors reach the newcomer as what they are, each told apart.
func TestJoinErrors(t *testing.T) {
	f := newFleet(t, false)
	g, token := gated(f)
	_, request := someRequest(t)
	for _, want := range []error{ErrTokenUsed, ErrTokenExpired, ErrNotReady, ErrTokenUnknown} {
		g.err = fmt.Errorf("by the cluster: %w", want)
		_, err := Join(t.Context(), token, request)
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "by the cluster") {
			t.Errorf("%v, want %v", err, want)
		}
		for _, other := range []error{ErrTokenUsed, ErrTokenExpired, ErrNotReady, ErrTokenUnknown, ErrOtherCluster, ErrRefused} {
			if other != want && errors.Is(err, other) {
				t.Errorf("%v is also %v", err, other)
			}
		}
	}
	g.err = errors.New("there is a server called n5" + strings.Repeat("!", 10000))
	if _, err := Join(t.Context(), token, request); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "called n5") {
		t.Errorf("%v", err)
	}
	g.err = advised{errors.New("the name is taken"), "choose another"}
	var hint interface{ Hint() string }
	if _, err := Join(t.Context(), token, request); !errors.Is(err, ErrRefused) || !errors.As(err, &hint) || hint.Hint() != "choose another" {
		t.Errorf("the advice is lost: %v", err)
	}
	g.err = nil
	wrong := token
	wrong.Secret[0]++
	if _, err := Join(t.Context(), wrong, request); !errors.Is(err, ErrTokenUnknown) {
		t.Errorf("wrong secret: %v", err)
	}
	bad := *request
	bad.CSR = []byte("no request")
	if _, err := Join(t.Context(), token, &bad); !errors.Is(err, ErrRefused) {
		t.Errorf("bad CSR: %v", err)
	}
	asked := g.asked
	for name, change := range map[string]func(x *Token){
		"fingerprint": func(x *Token) { x.Fingerprint[5]++ }, "cluster": func(x *Token) { x.Cluster[5]++ },
	} {
		wrong := token
		change(&wrong)
		if _, err := Join(t.Context(), wrong, request); !errors.Is(err, ErrOtherCluster) {
			t.Errorf("other %s: %v", name, err)
		}
	}
	if g.asked != asked {
		t.Error("the secret was shown to a cluster that it was not for")
	}
	long := *request
	long.Name = strings.Repeat("x", joinRequestMax)
	if _, err := Join(t.Context(), token, &long); err == nil {
		t.Error("a request longer than allowed was sent")
	}
	if _, err := Join(t.Context(), Token{}, request); !errors.Is(err, ErrTokenMistyped) {
		t.Errorf("no address: %v", err)
	}
}

// TestJoinTriesEachAddress, and says of each what was wrong.
func TestJoinTriesEachAddress(t *testing.T) {
	f := newFleet(t, false)
	_, token := gated(f)
	_, request := someRequest(t)
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := deaf.Addr().String()
	deaf.Close()
	nowhere := f.start(f.options(3, 30, newRecorder(t))).Addrs()[0].String() // has no Joiner
	good := token.Addrs[0]
	token.Addrs = []string{nobody, nowhere}
	_, err = Join(t.Context(), token, request)
	if err == nil || !strings.Contains(err.Error(), nobody) || !errors.Is(err, ErrNotReady) {
		t.Errorf("%v", err)
	}
	token.Addrs = append(token.Addrs, good)
	if _, err := Join(t.Context(), token, request); err != nil {
		t.Error(err)
	}
}

// TestJoinEndsWithItsContext also when nobody answers.
func TestJoinEndsWithItsContext(t *testing.T) {
	f := newFleet(t, false)
	_, token := gated(f)
	_, request := someRequest(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if c, err := l.Accept(); err == nil {
			c.Read(make([]byte, 1)) // it has begun
			cancel()
		}
	}()
	token.Addrs = []string{l.Addr().String()}
	if _, err := Join(ctx, token, request); err == nil {
		t.Error("joined nobody")
	}
}

// TestJoinGarbage: what a stranger may send on the join protocol.
func TestJoinGarbage(t *testing.T) {
	f := newFleet(t, false)
	g, token := gated(f)
	secret := fmt.Sprintf(`{"secret":%q}`, "AAAAAAAAAAAAAAAAAAAAAA==")
	for name, b := range map[string][]byte{
		"nothing":      {},
		"length":       {0xff, 0xff, 0xff, 0xff},
		"over the max": {0, 0, joinRequestMax >> 8, 1},
		"no JSON":      []byte("\x00\x00\x00\x05hello"),
		"nesting":      append([]byte{0, 0, 0x20, 0}, bytes.Repeat([]byte("["), 0x2000)...),
		"no request":   append([]byte{0, 0, 0, byte(len(secret))}, secret...),
		"null":         []byte("\x00\x00\x00\x04null"),
	} {
		c, err := tls.Dial("tcp", token.Addrs[0], pki.JoinConfig(protocolJoin, clusterID, token.Fingerprint))
		if err != nil {
			t.Fatal(err)
		}
		c.Write(b)
		c.CloseWrite()
		var m joinMessage
		if err := readJoin(c, &m, joinAnswerMax); err == nil && m.Error == "" {
			t.Errorf("%s: %+v", name, m)
		}
		c.Close()
	}
	if g.asked != 0 {
		t.Errorf("%d requests went through", g.asked)
	}
}

func FuzzJoin(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02{}"))
	f.Add([]byte("\x00\x00\x00\x26" + `{"secret":"AA==","request":{"name":1}}`))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m joinMessage
		if readJoin(bytes.NewReader(b), &m, joinRequestMax) != nil {
			return
		}
		var w bytes.Buffer
		if err := writeJoin(&w, &m, 1<<20); err != nil {
			t.Fatal(err)
		}
		var back joinMessage
		if err := readJoin(&w, &back, 1<<20); err != nil || fmt.Sprintf("%+v", m.Error) != fmt.Sprintf("%+v", back.Error) {
			t.Fatalf("%+v, %v", back, err)
		}
		_ = m.err()
	})
}
