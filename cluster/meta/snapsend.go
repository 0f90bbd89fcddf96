package meta

import (
	"bytes"
	"hash/crc32"
	"time"

	"google.golang.org/protobuf/proto"

	"petal/cluster/meta/metapb"
	"petal/placement"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// Snapshots go to followers in pieces, a few at a time; what got lost is sent
// again from the last piece that arrived in order.
const (
	pieceBytes  = 256 << 10
	pieceWindow = 4 * pieceBytes // sent and not acknowledged
)

type snapshotSend struct {
	id       uint64
	message  []byte // MsgSnap without the data
	data     []byte
	sum      uint32 // of data
	sent     int
	have     int           // acknowledged
	progress time.Duration // when have last grew
	again    time.Duration // when it is sent again
}

type snapshotReceipt struct {
	from    placement.Server
	id      uint64
	message []byte
	total   uint64
	sum     uint32 // of data, as the sender says
	data    []byte
}

// sendSnapshot begins to send what raft wants a follower to have.
func (g *Group) sendSnapshot(m *raftpb.Message) {
	to := placement.Server(m.GetTo())
	data := m.GetSnapshot().GetData()
	bare := proto.Clone(m).(*raftpb.Message)
	bare.Snapshot.Data = nil
	body, err := proto.Marshal(bare)
	if err != nil {
		g.cfg.Log.Error("snapshot message", "error", err)
		return
	}
	if g.sends == nil {
		g.sends = map[placement.Server]*snapshotSend{}
	}
	g.snapshotID++
	s := &snapshotSend{id: g.wal.session<<32 | g.snapshotID, message: body, data: data, sum: crc32.Checksum(data, castagnoli), progress: g.now()}
	g.sends[to] = s
	g.sendPieces(to, s)
}

func (g *Group) sendPieces(to placement.Server, s *snapshotSend) {
	for s.sent-s.have < pieceWindow && (s.sent < len(s.data) || s.sent == 0) {
		n := min(pieceBytes, len(s.data)-s.sent)
		g.send(to, &metapb.Message{Kind: &metapb.Message_Piece{Piece: &metapb.Piece{Id: s.id, Message: s.message, Total: uint64(len(s.data)),
			Offset: uint64(s.sent), Data: s.data[s.sent : s.sent+n], Sum: s.sum}}})
		s.sent += n
	}
	s.again = g.now() + g.cfg.Times.Election
}

func (g *Group) receivePieceAck(from placement.Server, m *metapb.PieceAck) {
	s := g.sends[from]
	if s == nil || s.id != m.Id || m.Have > uint64(len(s.data)) {
		return
	}
	if int(m.Have) > s.have {
		s.have, s.progress = int(m.Have), g.now()
	}
	if s.have < len(s.data) {
		g.sendPieces(from, s)
		return
	}
	delete(g.sends, from)
	g.raft(func() error { g.rn.ReportSnapshot(uint64(from), raft.SnapshotFinish); return nil })
}

// tickSnapshots sends again what has stopped, and gives up when nothing arrives.
func (g *Group) tickSnapshots() {
	for _, v := range g.view.Servers() {
		s := g.sends[v.ID]
		switch {
		case s == nil:
		case g.now()-s.progress > 2*g.cfg.Times.Lease:
			delete(g.sends, v.ID)
			g.raft(func() error { g.rn.ReportSnapshot(uint64(v.ID), raft.SnapshotFailure); return nil })
		case g.now() >= s.again:
			s.sent = s.have
			g.sendPieces(v.ID, s)
		}
	}
}

// receivePiece puts a snapshot together. Memory grows with what has come, not
// with what was announced.
func (g *Group) receivePiece(from placement.Server, p *metapb.Piece) {
	if p.Total > maxSnapshot || p.Offset+uint64(len(p.Data)) > p.Total || len(p.Data) > pieceBytes {
		return
	}
	r := g.receipt
	if r == nil || r.from != from || r.id != p.Id {
		if p.Offset != 0 {
			return
		}
		r = &snapshotReceipt{from: from, id: p.Id, message: p.Message, total: p.Total, sum: p.Sum}
		g.receipt = r
	}
	if p.Offset == uint64(len(r.data)) && r.total == p.Total && r.sum == p.Sum && bytes.Equal(r.message, p.Message) {
		r.data = append(r.data, p.Data...)
	}
	have := uint64(len(r.data))
	if have == r.total {
		g.receipt = nil
		if !g.takeSnapshot(r) {
			return
		}
	}
	g.send(from, &metapb.Message{Kind: &metapb.Message_PieceAck{PieceAck: &metapb.PieceAck{Id: r.id, Have: have}}})
}

// takeSnapshot hands a complete snapshot to raft if it is one.
func (g *Group) takeSnapshot(r *snapshotReceipt) bool {
	var m raftpb.Message
	if proto.Unmarshal(r.message, &m) != nil || m.GetType() != raftpb.MsgSnap {
		return false
	}
	if crc32.Checksum(r.data, castagnoli) != r.sum {
		g.cfg.Log.Error("a snapshot arrived damaged", "from", r.from)
		return false // it is sent again as a whole
	}
	s, err := unmarshal(r.data)
	meta := m.GetSnapshot().GetMetadata()
	if err != nil || s.index != meta.GetIndex() || s.term != meta.GetTerm() || s.conf.raft().Equivalent(meta.GetConfState()) != nil {
		g.cfg.Log.Error("a snapshot that makes no sense", "from", r.from, "error", err)
		return false
	}
	if old := g.view.clusterID; old != (ID{}) && old != s.clusterID {
		g.cfg.Log.Error("a snapshot of another cluster", "from", r.from)
		return false
	}
	g.receiveRaft(r.from, r.message, r.data)
	return true
}
