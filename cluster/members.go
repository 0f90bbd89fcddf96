package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"time"
	"unicode/utf8"

	"petal/cluster/meta"
	"petal/cluster/meta/metapb"
	"petal/cluster/peer"
	"petal/cluster/peer/pki"
	"petal/placement"
)

// caOwner is whose secret the authority's key is, sealed in the agreed state.
const caOwner = "ca"

// Init makes a cluster that others can join, of a server that is new or has
// been alone: it gets an authority, and the server a certificate. The node must
// not be running; nor is it afterwards. Cut short, it may be repeated.
func Init(ctx context.Context, opt Options, name string) error {
	opt.ClusterName = name
	if err := opt.check(); err != nil {
		return err
	}
	env, id, err := realEnv(&opt)
	if err != nil {
		return err
	}
	if id != nil {
		return memberError(&opt, id)
	}
	n, err := OpenWith(opt, env)
	if err != nil {
		return err
	}
	if err := n.begin(ctx); err != nil {
		n.Close(ctx)
		return err
	}
	return n.Close(ctx)
}

func memberError(opt *Options, id *identity) error {
	return &meta.Error{Kind: meta.ErrExists, Thing: opt.Dir, Why: fmt.Sprintf("it is server %d of cluster %x", id.Server, id.Cluster),
		Advice: "start it with `petal serve`, or give an empty directory"}
}

// begin gives a lone server's cluster an authority.
func (n *Node) begin(ctx context.Context) error {
	if _, err := n.Propose(ctx, command(&metapb.UpdateServer{Server: uint32(n.self), Addresses: n.opt.addresses(), Portals: n.opt.Portals})); err != nil {
		return err
	}
	id := &identity{Cluster: hexID(n.State().ClusterID()), Server: n.self}
	a, err := n.authority()
	if errors.Is(err, meta.ErrNotFound) {
		if a, err = pki.NewAuthority(id.Cluster); err != nil {
			return err
		}
		a.Life = n.opt.CertificateLife
		key, err := a.KeyPEM()
		if err != nil {
			return err
		}
		if _, err := n.Propose(ctx, command(&metapb.SetCA{Certificate: a.CertPEM(), SealedKey: n.seal.Seal(caOwner, key)})); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	own, err := a.Issue(pki.Name{Cluster: id.Cluster, Server: n.self}, n.env.Wall())
	if err != nil {
		return err
	}
	if err := own.Store(filepath.Join(n.opt.Dir, "tls")); err != nil {
		return err
	}
	return id.write(n.env.FS)
}

// authority opens the cluster's own authority.
func (n *Node) authority() (*pki.Authority, error) {
	cert, sealed := n.State().CA()
	if len(cert) == 0 {
		return nil, &meta.Error{Kind: meta.ErrNotFound, Thing: "the cluster's authority", Advice: "make the cluster with `petal cluster init`"}
	}
	key, err := n.seal.Open(caOwner, sealed)
	if err != nil {
		return nil, err
	}
	a, err := pki.OpenAuthority(cert, key)
	if err == nil {
		a.Life = n.opt.CertificateLife
	}
	return a, err
}

// CreateToken returns a token that lets uses servers join before it expires.
// The cluster keeps only its hash.
func (n *Node) CreateToken(ctx context.Context, ttl time.Duration, uses int) (token string, expires time.Time, err error) {
	a, err := n.authority()
	if err != nil {
		return "", expires, err
	}
	expires = n.env.Wall().Add(ttl)
	t := peer.Token{Cluster: a.Cluster(), Fingerprint: pki.Fingerprint(a.Cert), Secret: peer.NewSecret()}
	for _, s := range n.State().Servers() {
		t.Addrs = append(t.Addrs, s.Addresses...)
	}
	t.Addrs = t.Addrs[:min(len(t.Addrs), tokenAddrs)]
	hash := sha256.Sum256(t.Secret[:])
	_, err = n.Propose(ctx, command(&metapb.CreateToken{Hash: hash[:], ExpiresMs: expires.UnixMilli(), Uses: uint32(min(max(uses, 0), 1<<20))}))
	return t.String(), expires, err
}

// tokenAddrs bounds the addresses in a token: one that is up is enough.
const tokenAddrs = 5

// JoinRequest is what a server says of itself that wants to be a member.
type JoinRequest struct {
	Name, Site string
	Witness    bool
	Addresses  []string
	Portals    []string
	TokenHash  []byte // of the token's secret; nil: an administrator's word
	Release    uint32
	Times      uint32 // permille of the default
}

// JoinAnswer is what it needs to know to be one.
type JoinAnswer struct {
	Cluster meta.ID
	Server  placement.Server
	SealKey [32]byte
	Peers   []Peer
}

// Admit makes a server a member. done comes when that is agreed on.
func (n *Node) Admit(r JoinRequest, done func(JoinAnswer, error)) {
	kind := metapb.ServerKind_DATA
	if r.Witness {
		kind = metapb.ServerKind_WITNESS
	}
	cmd := command(&metapb.Join{TokenHash: r.TokenHash, Name: r.Name, Site: r.Site, Kind: kind, Addresses: r.Addresses, Portals: r.Portals,
		Release: r.Release, TimesPermille: r.Times})
	n.ProposeAsync(cmd, func(s *meta.State, err error) {
		if err != nil {
			done(JoinAnswer{}, err)
			return
		}
		srv := s.ServerByName(r.Name)
		if srv == nil {
			done(JoinAnswer{}, &meta.Error{Kind: meta.ErrNotFound, Thing: fmt.Sprintf("server %q", r.Name)})
			return
		}
		done(JoinAnswer{Cluster: s.ClusterID(), Server: srv.ID, SealKey: n.key, Peers: peersOf(s, srv.ID)}, nil)
	})
}

// peersOf returns the members but one, by number.
func peersOf(s *meta.State, self placement.Server) []Peer {
	var out []Peer
	for _, srv := range s.Servers() {
		if srv.ID != self {
			out = append(out, Peer{Server: srv.ID, Name: srv.Name, Addresses: srv.Addresses})
		}
	}
	return out
}

// Adopt writes into a new server's directory what it has learnt by joining. It
// is durable on return.
func Adopt(env Env, a JoinAnswer) error {
	if err := writeFile(env.FS, sealName, a.SealKey[:]); err != nil {
		return err
	}
	return (&identity{Cluster: hexID(a.Cluster), Server: a.Server, Peers: a.Peers}).write(env.FS)
}

// request is what a server with these options says when it joins.
func (o *Options) request() JoinRequest {
	return JoinRequest{Name: o.Name, Site: o.Site, Witness: o.Witness, Addresses: o.addresses(), Portals: o.Portals, Release: meta.Release, Times: o.timesPermille()}
}

// Join makes a new server a member of the cluster that token is of. The node
// must not be running; nor is it afterwards. Cut short, it may be repeated with
// the same name, as long as the server has never started.
func Join(ctx context.Context, opt Options, token string) error {
	if err := opt.check(); err != nil {
		return err
	}
	t, err := peer.ParseToken(token)
	if err != nil {
		return err
	}
	env, id, err := realEnv(&opt)
	if err != nil {
		return err
	}
	if id != nil {
		return memberError(&opt, id)
	}
	if names, err := env.FS.List("."); err == nil {
		for _, name := range names {
			if name == "meta" {
				return &meta.Error{Kind: meta.ErrExists, Thing: opt.Dir, Why: "it holds the state of a server that was alone", Advice: "give an empty directory and an empty brick"}
			}
		}
	}
	key, err := pki.NewKey()
	if err != nil {
		return err
	}
	csr, err := key.Request()
	if err != nil {
		return err
	}
	r := opt.request()
	extra, err := encodeExtra(&r)
	if err != nil {
		return err
	}
	kind := "data"
	if opt.Witness {
		kind = "witness"
	}
	answer, err := peer.Join(ctx, t, &peer.JoinRequest{CSR: csr, Name: r.Name, Site: r.Site, Kind: kind, Addrs: r.Addresses, Portals: r.Portals,
		Release: fmt.Sprint(r.Release), Extra: extra})
	if err != nil {
		return err
	}
	own, err := pki.NewIdentity(key, answer.Cert, answer.Authority)
	if err != nil {
		return err
	}
	if err := own.Store(filepath.Join(opt.Dir, "tls")); err != nil {
		return err
	}
	a := JoinAnswer{Cluster: t.Cluster, Server: answer.Server}
	if copy(a.SealKey[:], answer.SealKey) != len(a.SealKey) {
		return fmt.Errorf("cluster: the answer has a key of %d bytes", len(answer.SealKey))
	}
	for _, p := range answer.Members {
		a.Peers = append(a.Peers, Peer{Server: p.Server, Name: p.Name, Addresses: p.Addrs})
	}
	return Adopt(env, a)
}

// joiner lets servers in that show a token.
type joiner struct{ n *Node }

// Join implements peer.Joiner.
func (j joiner) Join(ctx context.Context, secret [16]byte, q *peer.JoinRequest) (*peer.JoinAnswer, error) {
	n := j.n
	if !n.Started() {
		return nil, peer.ErrNotReady
	}
	a, err := n.authority()
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(secret[:])
	r := JoinRequest{Name: q.Name, Site: q.Site, Witness: q.Kind == "witness", Addresses: q.Addrs, Portals: q.Portals, TokenHash: hash[:]}
	if err := decodeExtra(q.Extra, &r); err != nil {
		return nil, err
	}
	if err := n.tokenError(hash); err != nil {
		who := "a server"
		if utf8.ValidString(q.Name) && len(q.Name) <= meta.MaxServerName {
			who = fmt.Sprintf("server %q", q.Name)
		}
		n.tellRefused(fmt.Sprintf("%s was not let in: %v", who, err))
		return nil, err
	}
	type result struct {
		JoinAnswer
		err error
	}
	got := make(chan result, 1)
	n.Admit(r, func(a JoinAnswer, err error) { got <- result{a, err} })
	var x result
	select {
	case x = <-got:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if errors.Is(x.err, meta.ErrNoQuorum) {
		return nil, peer.ErrNotReady
	}
	if x.err != nil {
		return nil, x.err
	}
	cert, err := a.Sign(q.CSR, x.Server, n.env.Wall())
	if err != nil {
		return nil, err
	}
	answer := &peer.JoinAnswer{Server: x.Server, Cert: cert, Authority: a.CertPEM(), SealKey: x.SealKey[:]}
	for _, p := range x.Peers {
		answer.Members = append(answer.Members, peer.Peer{Server: p.Server, Addrs: p.Addresses, Name: p.Name})
	}
	return answer, nil
}

// tokenError says what is wrong with a token in the newcomer's terms, as far as
// this server's state tells; the command itself looks again.
func (n *Node) tokenError(hash [32]byte) error {
	for _, t := range n.State().Tokens() {
		switch {
		case t.Hash != hash:
		case n.env.Wall().After(t.Expires):
			return peer.ErrTokenExpired
		default:
			return nil // used ones may be shown again by who used them
		}
	}
	return peer.ErrTokenUnknown
}
