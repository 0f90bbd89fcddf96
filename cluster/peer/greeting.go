package peer

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"

	"petal/cluster/wire"
	"petal/placement"
)

// greeting is the body of Hello and Welcome: who speaks (R1). Little-endian:
//
//	 0 16  cluster
//	16  4  from: the speaker
//	20  4  to: whom it means to speak to
//	24  8  incarnation of the speaker; 0 before raft has given it one
//	32  8  session: numbered by who dials, growing
//	40  1  class of the connection
//	41  1  least and
//	42  1  greatest version of messages that it understands
//	43  1  refusal: why there will be no connection; 0 in a Hello
//	44  4  window: bytes that it will take before it has handled any
//	48  1  length of the release
//	49  n  release of the speaker's program
//	    1  length of the address
//	    n  address: where the speaker is to be dialled, host:port; empty: unknown
type greeting struct {
	Cluster     [16]byte
	From, To    placement.Server
	Incarnation uint64
	Session     uint64
	Class       wire.Class
	Least, Most uint8
	Refusal     refusal
	Window      uint32
	Release     string
	Addr        string
}

const (
	greetingSize  = 49 // without release and address
	releaseMax    = 64
	advertisedMax = 255
	greetingMax   = greetingSize + releaseMax + 1 + advertisedMax
)

// refusal says why a Hello was not answered with a connection.
type refusal uint8

const (
	welcome        refusal = 0
	otherCluster   refusal = 1
	otherServer    refusal = 2 // not whom you meant to speak to, or not who you say
	oldIncarnation refusal = 3
	oldSession     refusal = 4
	unknownServer  refusal = 5 // not a member, for all that is known here
	notStarted     refusal = 6 // has no incarnation yet
	otherVersion   refusal = 7
	wrongDirection refusal = 8
	busy           refusal = 9  // the session before is still being handled
	twin           refusal = 10 // another process of the same server is connected
	refusalsKnown          = 11
)

var refusalNames = [refusalsKnown]string{
	welcome: "welcome", otherCluster: "belongs to another cluster", otherServer: "is another server", oldIncarnation: "knows a later start of this server",
	oldSession: "has a later connection", unknownServer: "does not know this server as a member", notStarted: "has not started yet",
	otherVersion: "has no version of the protocol in common", wrongDirection: "is to be waited for, not dialled", busy: "is still busy with the last connection",
	twin: "is connected with another process of this server",
}

func (r refusal) String() string {
	if r < refusalsKnown {
		return refusalNames[r]
	}
	return fmt.Sprintf("refuses for reason %d", uint8(r))
}

// Error makes a refusal the reason why there is no connection.
func (r refusal) Error() string { return r.String() }

func (g *greeting) append(b []byte) []byte {
	le := binary.LittleEndian
	b = append(b, g.Cluster[:]...)
	b = le.AppendUint32(b, uint32(g.From))
	b = le.AppendUint32(b, uint32(g.To))
	b = le.AppendUint64(b, g.Incarnation)
	b = le.AppendUint64(b, g.Session)
	b = append(b, byte(g.Class), g.Least, g.Most, byte(g.Refusal))
	b = le.AppendUint32(b, g.Window)
	release := g.Release[:min(len(g.Release), releaseMax)]
	b = append(b, byte(len(release)))
	b = append(b, release...)
	addr := g.Addr
	if len(addr) > advertisedMax {
		addr = "" // a part of one is none
	}
	b = append(b, byte(len(addr)))
	return append(b, addr...)
}

// parseGreeting decodes what append encoded, and refuses anything else.
func parseGreeting(b []byte) (g greeting, err error) {
	if len(b) <= greetingSize || b[48] > releaseMax || len(b) <= greetingSize+int(b[48]) {
		return g, fmt.Errorf("%w: greeting of %d bytes", wire.ErrCorrupt, len(b))
	}
	release, rest := b[greetingSize:greetingSize+int(b[48])], b[greetingSize+int(b[48]):]
	if len(rest) != 1+int(rest[0]) {
		return g, fmt.Errorf("%w: greeting of %d bytes", wire.ErrCorrupt, len(b))
	}
	le := binary.LittleEndian
	g = greeting{
		Cluster: [16]byte(b), From: placement.Server(le.Uint32(b[16:])), To: placement.Server(le.Uint32(b[20:])),
		Incarnation: le.Uint64(b[24:]), Session: le.Uint64(b[32:]), Class: wire.Class(b[40]),
		Least: b[41], Most: b[42], Refusal: refusal(b[43]), Window: le.Uint32(b[44:]), Release: string(release), Addr: string(rest[1:]),
	}
	bad := strings.ContainsFunc(g.Release+g.Addr, func(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError })
	if g.From == 0 || g.To == 0 || g.Class >= wire.Classes || g.Least > g.Most || bad {
		return g, fmt.Errorf("%w: greeting from server %d to %d for %v", wire.ErrCorrupt, g.From, g.To, g.Class)
	}
	return g, nil
}
