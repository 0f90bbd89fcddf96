package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"petal/cluster/brick"
	"petal/cluster/meta"
	"petal/cluster/times"
)

// Options of a node.
type Options struct {
	// Dir is the node's own directory: the agreed state, the key that secrets are
	// sealed with, its certificate. It is made if it is missing.
	Dir string
	// Name is the server's name in the cluster, at most 63 bytes. It never changes.
	Name string
	// ClusterName is what people call the cluster that a fresh node begins.
	ClusterName string
	// Site is where the server stands: copies and voters are spread over sites.
	Site string
	// Witness makes the server vote and hold no data: it has no bricks.
	Witness bool
	// Bricks are the node's disks. This release serves exactly one.
	Bricks []BrickOptions
	// AcceptLoss opens a brick whose journal has lost acknowledged writes, or that
	// is older than the cluster remembers it and has the only copy of something,
	// so that unknown blocks hold older data. Otherwise that is an error.
	AcceptLoss bool
	// CacheBytes is the budget of the read cache; MemoryBytes of everything else
	// that holds data: commands in flight, messages, the journal. Default 256 MiB.
	CacheBytes, MemoryBytes int64
	// Portals are where initiators reach this node, told to the others. What is in
	// the strings is the caller's business.
	Portals []string

	// Listen is the host:port to be reached at by the other members; empty: there
	// are none. Advertise is what they dial, default Listen.
	Listen, Advertise string
	// Peers are where other members may be, beside the addresses that they agreed on:
	// for when so many have moved at once that they can't agree on the new ones.
	Peers []string
	// Plain sends data unencrypted and believes who says who he is: for networks
	// that nobody else is on.
	Plain bool
	// CertificateLife is how long the certificates last that this node signs, its
	// own and those of who joins through it; 0: a year.
	CertificateLife time.Duration
	// ResyncRate bounds the copying of blocks that were missed, in bytes a second
	// over all links; 0: 50 MiB, negative: no bound.
	ResyncRate int64
	// Listener is used instead of Listen, and Dial instead of the net package's:
	// for demonstrations that cut connections.
	Listener net.Listener
	Dial     func(ctx context.Context, network, address string) (net.Conn, error)

	// Times are the cluster's intervals; zero: the default. All members must use
	// the same.
	Times times.Times
	Log   *slog.Logger

	brick func(*brick.Options) // for tests
}

// networked reports whether the node talks to others.
func (o *Options) networked() bool { return o.Listen != "" || o.Listener != nil }

// addresses are what others dial.
func (o *Options) addresses() []string {
	switch {
	case o.Advertise != "":
		return []string{o.Advertise}
	case o.Listen != "":
		return []string{o.Listen}
	case o.Listener != nil:
		return []string{o.Listener.Addr().String()}
	}
	return nil
}

// BrickOptions is one disk of a node.
type BrickOptions struct {
	Path     string // directory on a file system of the disk
	Journal  int64  // bytes of journal, 0 for the default
	Segment  int64  // bytes of a segment of the journal, 0 for the default
	Capacity int64  // bytes of data at most, 0 for what the file system has
}

// memoryBytes is the default of Options.MemoryBytes.
const memoryBytes = 256 << 20

func (o *Options) check() error {
	if want := 1; len(o.Bricks) != want && !o.Witness {
		return &meta.Error{Kind: meta.ErrInvalid, Thing: fmt.Sprintf("%d bricks", len(o.Bricks)), Advice: "this release serves exactly one brick a node"}
	}
	if o.Witness && len(o.Bricks) > 0 {
		return &meta.Error{Kind: meta.ErrInvalid, Thing: "a witness with bricks", Why: "it holds no data", Advice: "take the bricks out of the configuration, or the witness"}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MemoryBytes == 0 {
		o.MemoryBytes = memoryBytes
	}
	if o.Times == (times.Times{}) {
		o.Times = times.Default()
	}
	return o.Times.Check()
}

// timesPermille is what the state keeps of the intervals: leases are safe only
// if all members count alike.
func (o *Options) timesPermille() uint32 {
	return uint32(1000 * float64(o.Times.Lease) / float64(times.Default().Lease))
}
