package meta

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"petal/cluster/meta/metapb"
	"petal/journal/vfs"
	"petal/placement"

	"go.etcd.io/raft/v3/raftpb"
)

// FuzzApply: no entry of the log makes a server panic, and what it makes of it
// can be kept.
func FuzzApply(f *testing.F) {
	base := fuzzState(f)
	for _, c := range []*metapb.Command{initCmd(), start(1), join("q", nil), leave("n2"), diskOf("z", 5, "mirror"), deleteCmd("a"), reconfigure(base, placement.LinkID{GMap: 1}, 1, 0)} {
		b, err := proto.Marshal(&metapb.Proposal{Origin: 1, Session: 1, Number: 1, Command: c})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, _, _ := applyEntryTo(base, 2, 9, b)
		if n.index != 9 {
			t.Fatal("the entry is not counted")
		}
		m, err := n.marshal(snapshotFormat)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unmarshal(m); err != nil {
			t.Fatalf("the state after it does not come back: %v", err)
		}
	})
}

func fuzzState(f *testing.F) *State {
	s := (&State{}).clone()
	first := initCmd()
	first.GetInit().Release = Release
	for _, c := range []*metapb.Command{first, start(1), join("n2", nil), join("n3", nil), start(2), start(3), diskOf("a", 1, "mirror"), diskOf("b", 2, "mirror3")} {
		n, err := apply(s, c)
		if err != nil {
			f.Fatal(err)
		}
		s = n
	}
	s.conf = Conf{Voters: []placement.Server{1}, Learners: []placement.Server{2, 3}}
	return s
}

// FuzzSession holds the memory of proposals to a plain set.
func FuzzSession(f *testing.F) {
	f.Add([]byte{1, 2, 3, 2, 1, 0x81, 0x92})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var s session
		seen := map[[2]uint64]bool{}
		var newest uint64
		for _, op := range ops {
			p := &metapb.Proposal{Session: uint64(op >> 6), Number: uint64(op&15) + 1}
			_, fresh := s.take(p)
			if want := p.Session >= newest && !seen[[2]uint64{p.Session, p.Number}]; fresh != want {
				t.Fatalf("%+v after %v: fresh %v", p, seen, fresh)
			}
			s, _ = s.take(p)
			newest = max(newest, p.Session)
			seen[[2]uint64{p.Session, p.Number}] = true
		}
	})
}

// FuzzReceive: no message makes a group panic, and none makes it forget.
func FuzzReceive(f *testing.F) {
	add := func(m *metapb.Message) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	raft := func(m *raftpb.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	add(&metapb.Message{Kind: &metapb.Message_Renew{Renew: &metapb.Renew{SentNs: 1, Incarnation: 1}}})
	add(&metapb.Message{Kind: &metapb.Message_Grant{Grant: &metapb.Grant{SentNs: 1, Incarnation: 1, Index: 1}}})
	add(&metapb.Message{Kind: &metapb.Message_Piece{Piece: &metapb.Piece{Id: 1, Total: 3, Data: []byte("abc"), Message: raft(&raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(9)),
		Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(9)), Term: new(uint64(9)), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}}}}})}}})
	add(&metapb.Message{Kind: &metapb.Message_PieceAck{PieceAck: &metapb.PieceAck{Id: 1, Have: 1}}})
	add(&metapb.Message{Kind: &metapb.Message_Complaint{Complaint: &metapb.Complaint{Gmap: 1, Ver: 1, About: 1}}})
	add(&metapb.Message{Kind: &metapb.Message_Propose{Propose: &metapb.Propose{Proposal: []byte{8, 2}}}})
	add(&metapb.Message{Kind: &metapb.Message_Refused{Refused: &metapb.Refused{Session: 1, Number: 1}}})
	for _, kind := range []raftpb.MessageType{raftpb.MsgApp, raftpb.MsgHeartbeat, raftpb.MsgVote, raftpb.MsgPreVote, raftpb.MsgAppResp, raftpb.MsgTimeoutNow, raftpb.MsgReadIndex, raftpb.MsgReadIndexResp, raftpb.MsgSnap} {
		m := &raftpb.Message{Type: kind.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(9)), Index: new(uint64(3)), LogTerm: new(uint64(2)), Commit: new(uint64(4)),
			Entries: []*raftpb.Entry{{Term: new(uint64(9)), Index: new(uint64(4)), Data: []byte{1}}}}
		add(&metapb.Message{Kind: &metapb.Message_Raft{Raft: raft(m)}})
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		g, err := single(vfs.NewMemory(1<<20), still{})
		if err != nil {
			t.Fatal(err)
		}
		id := ID{1}
		if err := g.Bootstrap(&metapb.Init{ClusterId: id[:], ServerName: "n1", Release: Release}); err != nil {
			t.Fatal(err)
		}
		for g.Step() {
		}
		before := g.State().Index()
		g.Receive(2, body)
		for g.Step() {
		}
		if g.State().Index() < before || g.State().ClusterID() != id {
			t.Fatal("it has forgotten what was agreed")
		}
		g.Close()
	})
}
