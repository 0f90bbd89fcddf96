package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"petal/cluster/meta"
	"petal/cluster/peer"
	"petal/cluster/peer/pki"
	"petal/cluster/times"
	"petal/journal/vfs"
	"petal/placement"
)

// ErrNoCluster says that a directory that is to be used with others belongs to
// no cluster: Init makes one, Join joins one.
var ErrNoCluster = errors.New("cluster: this server belongs to no cluster yet")

// Open starts a node on its directory and bricks. Fresh ones are initialized if
// the server is to be alone: a cluster of itself. A brick of another cluster,
// one newer than the agreed state, a damaged state or directories in use by
// another process are errors that say so.
//
// A server that is alone serves when Open returns. One that has others starts
// when a majority of them can be reached: see Started and Ready. What is found
// wrong only then is told by Failed.
func Open(opt Options) (*Node, error) {
	if err := opt.check(); err != nil {
		return nil, err
	}
	env, id, err := realEnv(&opt)
	if err != nil {
		return nil, err
	}
	if opt.networked() {
		if id == nil {
			return nil, ErrNoCluster
		}
		env.Transport = transportOf(&opt, id)
	}
	return OpenWith(opt, env)
}

// realEnv is the machine. id is nil if the server is alone.
func realEnv(opt *Options) (env Env, id *identity, err error) {
	if err := os.MkdirAll(opt.Dir, 0o700); err != nil {
		return env, nil, err
	}
	dir, err := vfs.NewOS(opt.Dir)
	if err != nil {
		return env, nil, err
	}
	env = Env{FS: dir, Clock: times.Real{}, Wall: time.Now, Rand: func(b []byte) { rand.Read(b) }}
	for _, b := range opt.Bricks {
		if err := os.MkdirAll(b.Path, 0o700); err != nil {
			return env, nil, err
		}
		bfs, err := vfs.NewOS(b.Path)
		if err != nil {
			return env, nil, fmt.Errorf("brick %s: %w", b.Path, err)
		}
		if !bfs.Direct() {
			opt.Log.Warn("the file system has no O_DIRECT: the brick goes through the page cache, with O_DSYNC", "brick", b.Path)
		}
		env.Bricks = append(env.Bricks, BrickEnv{FS: bfs, Path: b.Path})
	}
	id, err = readIdentity(dir)
	return env, id, err
}

// transportOf returns what makes a real node's connections.
func transportOf(opt *Options, id *identity) func(placement.Server, Handler) (Transport, error) {
	return func(self placement.Server, h Handler) (Transport, error) {
		own, err := pki.Load(filepath.Join(opt.Dir, "tls"))
		if err != nil && !(opt.Plain && errors.Is(err, fs.ErrNotExist)) {
			return nil, fmt.Errorf("certificate: %w", err)
		}
		if want := (pki.Name{Cluster: id.Cluster, Server: self}); own != nil && own.Name() != want {
			return nil, &meta.Error{Kind: meta.ErrInvalid, Thing: "certificate in " + filepath.Join(opt.Dir, "tls"), Why: fmt.Sprintf("it is of server %d of cluster %x, this is server %d of cluster %x",
				own.Name().Server, own.Name().Cluster, self, id.Cluster), Advice: "put back the tls directory with which this node joined; if it is lost, remove the node and let it join anew"}
		}
		n := h.(*Node)
		o := peer.Options{
			Cluster: id.Cluster, Self: self, Release: fmt.Sprint(meta.Release), TLS: own,
			Plain: opt.Plain, Pool: n.pool, Handler: h, Joiner: joiner{n}, Clock: times.Real{}, Times: opt.Times, Log: opt.Log,
			Gone: func(id placement.Server) bool { return n.State().Gone(id) }, Refused: n.tellRefused,
		}
		if a := opt.addresses(); len(a) > 0 {
			o.Advertise = a[0]
		}
		if opt.Listener != nil {
			o.Listeners = []net.Listener{opt.Listener}
		} else {
			o.Listen = []string{opt.Listen}
		}
		if dial := opt.Dial; dial != nil {
			o.Dial = func(ctx context.Context, addr string) (net.Conn, error) { return dial(ctx, "tcp", addr) }
		}
		p, err := peer.New(o)
		if err != nil {
			return nil, err
		}
		return &tcp{p, own, opt.Peers}, nil
	}
}

// tcp is package peer as a Transport.
type tcp struct {
	*peer.Peers
	own  *pki.Identity // nil: plain
	also []string      // addresses at which any of them may be
}

// renewEvery is how often a certificate's age is looked at: the calendar may be
// set at any moment, and one that was issued by a wrong one is of no use.
const renewEvery = time.Minute

// renew gives this server a new certificate when the old one is due: whoever can
// open the authority's key may issue its own. It counts from the next connection
// on. It needs nobody else, so a server that was off for longer than a
// certificate lasts has a good one before it talks to anybody.
func (n *Node) renew() {
	t, ok := n.net.(*tcp)
	if !ok || t.own == nil || n.ctx.Err() != nil {
		return
	}
	next := min(t.own.Due(n.env.Wall()), renewEvery)
	if next <= 0 {
		next = renewEvery
		if err := n.renewNow(t.own); err != nil {
			n.opt.Log.Error("this server's certificate could not be renewed", "until", t.own.NotAfter(), "error", err)
		} else {
			n.opt.Log.Info("certificate renewed", "until", t.own.NotAfter())
			next = min(t.own.Due(n.env.Wall()), renewEvery)
		}
	}
	n.env.Clock.AfterFunc(next+time.Second, n.renew)
}

func (n *Node) renewNow(own *pki.Identity) error {
	a, err := n.authority()
	if err != nil {
		return err
	}
	newer, err := a.Issue(own.Name(), n.env.Wall())
	if err != nil {
		return err
	}
	if err := own.Renew(newer); err != nil {
		return err
	}
	return own.Store(filepath.Join(n.opt.Dir, "tls"))
}

// Superseded returns the names of those who know a later start of this server than
// this process: another one runs with its identity.
func (n *Node) Superseded() []string {
	t, ok := n.net.(*tcp)
	if !ok {
		return nil
	}
	return t.those(func(s peer.Status) bool { return s.Superseded })
}

// Removed returns the names of those who say that this server is no member of the
// cluster any more.
func (n *Node) Removed() []string {
	if t, ok := n.net.(*tcp); ok {
		return t.strange()
	}
	return nil
}

// strange are the names of those who say that this server is no member any more.
func (t *tcp) strange() []string { return t.those(func(s peer.Status) bool { return s.Stranger }) }

func (t *tcp) those(are func(peer.Status) bool) (names []string) {
	for _, s := range t.Status() {
		if are(s) {
			names = append(names, s.Name)
		}
	}
	return names
}

// SetPeers says who there is.
func (t *tcp) SetPeers(list []Peer) {
	out := make([]peer.Peer, len(list))
	for i, p := range list {
		addrs := slices.Clone(p.Addresses)
		for _, a := range t.also { // who is there says who it is
			if !slices.Contains(addrs, a) {
				addrs = append(addrs, a)
			}
		}
		out[i] = peer.Peer{Server: p.Server, Addrs: addrs, Name: p.Name}
	}
	t.Peers.SetPeers(out)
}

// SetIncarnation lets the data classes connect.
func (t *tcp) SetIncarnation(n uint64) { t.Start(n) }
