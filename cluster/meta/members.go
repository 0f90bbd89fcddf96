package meta

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"petal/placement"
)

// ServerKind says what a server is for.
type ServerKind uint8

const (
	Data    ServerKind = iota
	Witness            // votes, and holds no data
)

func (k ServerKind) String() string {
	if k == Witness {
		return "witness"
	}
	return "data"
}

// Server is a member of the cluster.
type Server struct {
	ID          placement.Server
	Name        string // never changes
	Site        string // may be empty
	Kind        ServerKind
	Incarnation uint64   // of its latest process, from 1; 0: it has never started
	Confirmed   uint64   // the latest incarnation that its bricks bear witness of (R14)
	Bricks      []ID     // the bricks it has opened last
	Addresses   []string // host:port of the peer protocol
	Portals     []string // host:port of iSCSI
	Release     uint32   // of its latest process
	Joined      time.Time
	Down        time.Time // since when it has had no lease; zero: it has one, or nobody has noticed yet
	Failed      time.Time // since when its process has served nothing of its brick, which has failed; zero: it has not
	Leaving     bool      // it is being taken out of the voters and then out of the cluster
}

// public reports whether initiators elsewhere reach one of the server's portals.
func (v *Server) public() bool {
	return slices.ContainsFunc(v.Portals, func(p string) bool {
		a, err := netip.ParseAddrPort(p)
		return err != nil || !a.Addr().IsLoopback()
	})
}

// Conf is who takes part in raft. Outgoing voters count too until a change of
// voters is complete.
type Conf struct {
	Voters, Learners, Outgoing, LearnersNext []placement.Server // ascending
	AutoLeave                                bool
}

// Joint reports whether a change of voters is under way.
func (c *Conf) Joint() bool { return len(c.Outgoing) > 0 }

// Voter and Learner say what a server is.
func (c *Conf) Voter(id placement.Server) bool { return slices.Contains(c.Voters, id) }

func (c *Conf) Learner(id placement.Server) bool {
	return slices.Contains(c.Learners, id) || slices.Contains(c.LearnersNext, id)
}

// Has reports whether raft knows the server at all.
func (c *Conf) Has(id placement.Server) bool {
	return c.Voter(id) || c.Learner(id) || slices.Contains(c.Outgoing, id)
}

// Server returns a member, or nil.
func (s *State) Server(id placement.Server) *Server { return s.servers[id] }

// ServerByName returns a member, or nil.
func (s *State) ServerByName(name string) *Server {
	for _, v := range s.servers {
		if v.Name == name {
			return v
		}
	}
	return nil
}

// Servers returns the members by id.
func (s *State) Servers() []*Server {
	return slices.SortedFunc(maps.Values(s.servers), func(a, b *Server) int { return cmp.Compare(a.ID, b.ID) })
}

// DataServers returns the members that hold data and stay, by id.
func (s *State) DataServers() []*Server {
	return slices.DeleteFunc(s.Servers(), func(v *Server) bool { return v.Kind != Data || v.Leaving })
}

// Conf returns raft's membership as of this state.
func (s *State) Conf() Conf { return s.conf }

// Name is the cluster's name; it may be empty.
func (s *State) Name() string { return s.name }

// TimesPermille is the factor of the cluster's intervals against the default
// ones, in thousandths; 0 if nobody has said.
func (s *State) TimesPermille() uint32 { return s.times }

// Release is the lowest release among the members: commands that came later
// are not accepted, so that every member knows all that are in the log.
func (s *State) Release() uint32 {
	low := uint32(0)
	for _, v := range s.servers {
		if low == 0 || v.Release < low {
			low = v.Release
		}
	}
	return low
}

// Gone reports whether a server was a member and is none any more: numbers are
// given in order, and never again.
func (s *State) Gone(id placement.Server) bool {
	return id != 0 && id < s.nextServer && s.servers[id] == nil
}

// CA returns the certificate and the sealed key of the cluster's own
// authority, nil before it has one. Whoever has the cluster's key opens the
// latter (Sealer, owner "ca").
func (s *State) CA() (certificate, sealedKey []byte) { return s.caCert, s.caKey }

// Token is a right to join that somebody was given. The secret itself is not
// kept, so that nobody who reads the state can use it.
type Token struct {
	Hash     [32]byte // SHA-256 of the secret
	Created  time.Time
	Expires  time.Time
	UsesLeft uint32
	UsedBy   string // names of those who have used it, with commas
}

// Tokens returns the tokens, the used and the expired ones too, oldest first.
func (s *State) Tokens() []Token {
	return slices.SortedFunc(maps.Values(s.tokens), func(a, b Token) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(string(a.Hash[:]), string(b.Hash[:])))
	})
}

// MaxEvents is how many events are kept.
const MaxEvents = 1000

// Event is something that happened to the cluster, in words.
type Event struct {
	Number uint64 // from 1
	Time   time.Time
	Kind   string           // "member", "link", "disk", "voter", "loss", ...
	Server placement.Server // that it is about; 0: none in particular
	Text   string
}

// Events returns the last events, oldest first. The caller must not change the
// slice.
func (s *State) Events() []*Event { return s.events }

// session remembers which proposals of a server's present session were
// applied, so that one that was sent twice takes effect once.
type session struct {
	session uint64
	floor   uint64   // all numbers below it
	numbers []uint64 // of the others, ascending; replaced, not modified
}
