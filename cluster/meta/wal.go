package meta

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"google.golang.org/protobuf/proto"

	"petal/cluster/meta/metapb"
	"petal/journal"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// wal is the durable side of raft: a journal of Records, and the snapshot file.
//
//	raft/     ... | entries 5-7, hard | entries 8 | mark 8, hard | entries 9 | entries 9', 10' |
//	snapshot      the state after entry 8
//
// A Record is what raft wants to be durable together; nothing that depends on
// it is sent before (DESIGN, traps of raft). Entries with an index that was there
// before replace it and all after it: the later record wins at replay. A snapshot is
// written whole (snapshot.go), then the mark, then the log before it goes.
type wal struct {
	hard     *metapb.Hard // as of the last record
	session  uint64       // of this process
	records  []walRecord  // with entries, oldest first
	queue    []*walWrite  // under way, oldest first
	held     []*raftpb.Message
	writing  bool   // the snapshot file is being written
	snapshot uint64 // index of the snapshot file
}

// walRecord says up to which index a record has entries.
type walRecord struct {
	lsn  journal.LSN
	last uint64
}

// walWrite is a MsgStorageAppend on its way; its responses go out when it and all
// before it are durable.
type walWrite struct {
	m       *raftpb.Message
	state   *State      // of its snapshot, if it has one
	lsn     journal.LSN // of its first record
	trim    uint64      // once it is durable, the log up to this index can go
	durable bool
}

// Sizes of the log, in bytes. Entries that are not applied are bounded by what
// raft has under way; the rest is dropped when the log is half full.
const (
	walSegment     = 1 << 20
	walCapacity    = 16 << 20
	walRecordBytes = 256 << 10 // of entries in one record, unless one alone has more
)

var walUUID = func() (u [16]byte) {
	sum := sha256.Sum256([]byte("petal raft log"))
	copy(u[:], sum[:])
	return u
}()

// load opens or makes the directory and brings back what raft had.
func (g *Group) load() (err error) {
	c := &g.cfg
	if err := c.FS.MkdirAll(c.Dir); err != nil {
		return err
	}
	if err := c.FS.SyncDir(path.Dir(c.Dir)); err != nil {
		return err
	}
	if g.lock, err = c.FS.Lock(path.Join(c.Dir, "lock")); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			if g.log != nil {
				g.log.Close()
			}
			g.lock.Close()
		}
	}()
	old, err := legacy(c.FS, c.Dir)
	if err != nil {
		return err
	}
	rec, err := g.openLog(old != nil)
	if err != nil {
		return err
	}
	if old != nil {
		if err := adopt(c.FS, c.Dir, old); err != nil {
			return err
		}
	}
	s, err := readSnapshot(c.FS, c.Dir)
	if err != nil {
		return err
	}
	return g.replay(s, rec)
}

// openLog opens the journal, or makes it in a directory where nothing was ever
// promised.
func (g *Group) openLog(fresh bool) (*journal.Recovery, error) {
	opt := journal.Options{FS: g.cfg.FS, Dir: path.Join(g.cfg.Dir, "raft"), Segment: g.cfg.segment, Capacity: g.cfg.capacity, UUID: walUUID, Manual: g.cfg.Manual}
	log, rec, err := journal.Open(opt)
	if errors.Is(err, fs.ErrNotExist) {
		format, ferr := storedFormat(g.cfg.FS, g.cfg.Dir)
		if ferr != nil {
			return nil, ferr
		}
		if format != 0 && !fresh {
			return nil, fmt.Errorf("%w: there is a snapshot but no log in %s", ErrRotten, opt.Dir)
		}
		opt.Create = true
		log, rec, err = journal.Open(opt)
	}
	if err != nil {
		return nil, fmt.Errorf("meta: log: %w", err)
	}
	g.log = log
	if len(rec.Rotten) > 0 {
		return nil, fmt.Errorf("%w: log records %v", ErrRotten, rec.Rotten)
	}
	return rec, g.cfg.FS.SyncDir(g.cfg.Dir) // the log's own name
}

// replay builds raft from the snapshot and the log. A process that finds them
// has a session of its own, durable before it proposes anything.
func (g *Group) replay(s *State, rec *journal.Recovery) error {
	r := replayed{hard: &metapb.Hard{}}
	err := g.log.Replay(0, func(e journal.Entry) error {
		var m metapb.Record
		if err := proto.Unmarshal(e.Head, &m); err != nil {
			return fmt.Errorf("%w: log record %d: %v", ErrRotten, e.LSN, err)
		}
		return r.add(e.LSN, &m)
	})
	if err != nil {
		return err
	}
	if err := r.fit(s); err != nil {
		return err
	}
	g.wal = wal{hard: r.hard, session: r.session + 1, records: r.records, snapshot: s.index}
	if err := g.appendAndWait(&metapb.Record{Hard: hardOf(g.wal.hard), Session: g.wal.session}); err != nil {
		return fmt.Errorf("meta: log: %w", err)
	}
	return g.start(s, r.entries)
}

// replayed is what records say, one after another.
type replayed struct {
	hard    *metapb.Hard
	session uint64
	entries []*raftpb.Entry // without gaps
	records []walRecord
}

func (r *replayed) add(lsn journal.LSN, m *metapb.Record) error {
	if m.Hard != nil {
		r.hard = m.Hard
	}
	r.session = max(r.session, m.Session)
	if m.Snapshot.GetReset_() {
		r.entries = nil
	}
	for _, e := range m.Entries {
		switch n := len(r.entries); {
		case n == 0 || e.Index < r.entries[0].GetIndex():
			r.entries = nil
		case e.Index > r.entries[n-1].GetIndex()+1:
			return fmt.Errorf("%w: entry %d follows %d in the log", ErrRotten, e.Index, r.entries[n-1].GetIndex())
		default:
			r.entries = r.entries[:e.Index-r.entries[0].GetIndex()]
		}
		r.entries = append(r.entries, &raftpb.Entry{Term: new(e.Term), Index: new(e.Index), Type: raftpb.EntryType(e.Type).Enum(), Data: e.Data})
	}
	if n := len(m.Entries); n > 0 {
		r.records = append(r.records, walRecord{lsn, m.Entries[n-1].Index})
	}
	return nil
}

// fit puts the log behind the snapshot. Where the snapshot came from the leader and
// the crash came before the mark, the log disagrees with it and goes.
func (r *replayed) fit(s *State) error {
	if n := len(r.entries); n > 0 {
		first := r.entries[0].GetIndex()
		switch {
		case s.index >= first && s.index < first+uint64(n):
			if at := r.entries[s.index-first]; at.GetTerm() != s.term {
				r.entries = nil
			} else {
				r.entries = r.entries[s.index-first+1:]
			}
		case s.index >= first:
			r.entries = nil
		case first != s.index+1:
			return fmt.Errorf("%w: the log begins with entry %d, the snapshot ends with %d", ErrRotten, first, s.index)
		}
	}
	last, term := s.index, s.term
	if n := len(r.entries); n > 0 {
		last, term = r.entries[n-1].GetIndex(), r.entries[n-1].GetTerm()
	}
	r.hard.Commit = min(max(r.hard.Commit, s.index), last)
	if term > r.hard.Term {
		r.hard.Term, r.hard.Vote = term, 0
	}
	return nil
}

// start makes raft anew on a state and the entries after it.
func (g *Group) start(s *State, entries []*raftpb.Entry) error {
	g.storage = &storage{MemoryStorage: raft.NewMemoryStorage(), group: g}
	if s.index > 0 {
		if err := g.storage.ApplySnapshot(&raftpb.Snapshot{Metadata: s.metadata()}); err != nil {
			return err
		}
	}
	h := g.wal.hard
	if h.Term > 0 {
		g.storage.SetHardState(&raftpb.HardState{Term: new(h.Term), Vote: new(h.Vote), Commit: new(h.Commit)})
	}
	if err := g.storage.Append(entries); err != nil {
		return err
	}
	t := &g.cfg.Times
	var err error
	g.rn, err = raft.NewRawNode(&raft.Config{
		ID: uint64(g.cfg.Self), Storage: g.storage, Applied: s.index,
		ElectionTick: int(t.Election / t.Tick), HeartbeatTick: int(t.Heartbeat / t.Tick),
		PreVote: true, CheckQuorum: true, AsyncStorageWrites: true, StepDownOnRemoval: true,
		// Followers hand proposals to the leader themselves (propose.go): it looks at them first.
		DisableProposalForwarding: true,
		MaxSizePerMsg:             maxAppend, MaxInflightMsgs: 64, MaxInflightBytes: 4 * maxAppend, MaxUncommittedEntriesSize: 4 << 20,
		MaxCommittedSizePerReady: 4 << 20,
		Logger:                   raftLogger{g.cfg.Log},
	})
	if err != nil {
		return err
	}
	g.view, g.told = s, s
	g.state.Store(s)
	return nil
}

// restart is start for a state that was made here.
func (g *Group) restart(s *State) error {
	g.wal.hard = &metapb.Hard{Term: s.term, Commit: s.index}
	g.wal.snapshot = s.index
	if err := g.appendAndWait(&metapb.Record{Hard: hardOf(g.wal.hard), Snapshot: &metapb.Mark{Term: s.term, Index: s.index, Reset_: true}, Session: g.wal.session}); err != nil {
		return err
	}
	return g.start(s, nil)
}

// maxAppend is the greatest size of a message with entries, unless it has one
// only.
const maxAppend = 256 << 10

// storage is raft's memory of its log. A snapshot is made when one is asked for.
type storage struct {
	*raft.MemoryStorage
	group *Group
}

// Snapshot gives the applied state.
func (s *storage) Snapshot() (*raftpb.Snapshot, error) {
	v := s.group.view
	data, err := v.marshal(snapshotFormat)
	if err != nil {
		return nil, err
	}
	return &raftpb.Snapshot{Data: data, Metadata: v.metadata()}, nil
}

func (s *State) metadata() *raftpb.SnapshotMetadata {
	return &raftpb.SnapshotMetadata{Index: new(s.index), Term: new(s.term), ConfState: s.conf.raft()}
}

func (c *Conf) raft() *raftpb.ConfState {
	return &raftpb.ConfState{Voters: wide(c.Voters), Learners: wide(c.Learners), VotersOutgoing: wide(c.Outgoing), LearnersNext: wide(c.LearnersNext), AutoLeave: new(c.AutoLeave)}
}

func confOfRaft(c *raftpb.ConfState) Conf {
	return Conf{Voters: narrow(c.GetVoters()), Learners: narrow(c.GetLearners()), Outgoing: narrow(c.GetVotersOutgoing()), LearnersNext: narrow(c.GetLearnersNext()), AutoLeave: c.GetAutoLeave()}
}

// hardOf returns a copy for a record.
func hardOf(h *metapb.Hard) *metapb.Hard {
	return &metapb.Hard{Term: h.Term, Vote: h.Vote, Commit: h.Commit}
}

// appendAndWait makes a record durable before it returns; while nothing else runs.
func (g *Group) appendAndWait(m *metapb.Record) error {
	head, err := proto.Marshal(m)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	g.log.Append(&journal.Record{Head: head, Done: func(_ *journal.Record, err error) { done <- err }})
	for g.cfg.Manual && len(done) == 0 {
		if !g.log.Commit() {
			return errors.New("the log has no room for a record")
		}
	}
	return <-done
}
