package meta

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"petal/cluster/meta/metapb"
	"petal/journal"
	"petal/journal/vfs"
)

// Sizes of the log. Commands are few and small; a snapshot is taken when the
// log is half full.
const (
	logSegment  = 1 << 20
	logCapacity = 8 << 20
)

// Store keeps the State of one node: the log and the snapshot in a directory
// of its own. Methods are safe for concurrent use.
type Store struct {
	fs   vfs.FS
	dir  string
	lock io.Closer
	log  *journal.Journal

	state atomic.Pointer[State]

	mu       sync.Mutex // serializes Propose; guards what follows
	last     journal.LSN
	failed   error
	watchers []func(*State)
}

// Open opens the store in dir of fsys, or makes it there if the directory is
// empty. It takes a lock on it, so that no second process has it open. A
// damaged log or snapshot is an error (ErrRotten), never a smaller state.
func Open(fsys vfs.FS, dir string) (*Store, error) {
	return open(fsys, dir, logSegment, logCapacity)
}

func open(fsys vfs.FS, dir string, segment, capacity int64) (*Store, error) {
	if err := fsys.MkdirAll(dir); err != nil {
		return nil, err
	}
	if err := fsys.SyncDir(path.Dir(dir)); err != nil {
		return nil, err
	}
	lock, err := fsys.Lock(path.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	s := &Store{fs: fsys, dir: dir, lock: lock}
	if err := s.load(segment, capacity); err != nil {
		lock.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) load(segment, capacity int64) error {
	if format, err := storedFormat(s.fs, s.dir); err != nil {
		return err
	} else if format > 1 {
		return fmt.Errorf("%w: the directory is that of a Group", ErrNewer)
	}
	state, err := readSnapshot(s.fs, s.dir)
	if err != nil {
		return err
	}
	log, rec, err := s.openLog(state, segment, capacity)
	if err != nil {
		return fmt.Errorf("meta: log: %w", err)
	}
	s.log = log
	if err := s.fs.SyncDir(s.dir); err != nil { // the log's own name
		log.Close()
		return err
	}
	if err := s.replay(state, rec); err != nil {
		log.Close()
		return err
	}
	return nil
}

// openLog opens the log, or makes it where there is none and no snapshot
// either: then nothing was ever acknowledged here, though a start may have been
// cut short.
func (s *Store) openLog(state *State, segment, capacity int64) (*journal.Journal, *journal.Recovery, error) {
	opt := journal.Options{FS: s.fs, Dir: path.Join(s.dir, "log"), Segment: segment, Capacity: capacity, UUID: logUUID}
	log, rec, err := journal.Open(opt)
	if !errors.Is(err, fs.ErrNotExist) {
		return log, rec, err
	}
	if state.index != 0 {
		return nil, nil, fmt.Errorf("%w: there is a snapshot but no log in %s", ErrRotten, opt.Dir)
	}
	opt.Create = true
	return journal.Open(opt)
}

// logUUID seeds the log's checksums: the bytes of no other journal match.
var logUUID = func() (u [16]byte) {
	sum := sha256.Sum256([]byte("petal meta log"))
	copy(u[:], sum[:])
	return u
}()

func (s *Store) replay(state *State, rec *journal.Recovery) error {
	if len(rec.Rotten) > 0 {
		return fmt.Errorf("%w: log records %v", ErrRotten, rec.Rotten)
	}
	err := s.log.Replay(0, func(e journal.Entry) error {
		s.last = e.LSN
		var entry metapb.Entry
		if err := proto.Unmarshal(e.Head, &entry); err != nil {
			return fmt.Errorf("%w: log record %d: %v", ErrRotten, e.LSN, err)
		}
		if entry.Index <= state.index {
			return nil // the snapshot has it
		}
		if entry.Index != state.index+1 {
			return fmt.Errorf("%w: command %d follows %d in the log", ErrRotten, entry.Index, state.index)
		}
		next, err := applyEntry(state, &entry)
		if err != nil {
			return fmt.Errorf("%w: command %d: %v", ErrRotten, entry.Index, err)
		}
		state = next
		return nil
	})
	if err != nil {
		return err
	}
	s.state.Store(state)
	return nil
}

func applyEntry(s *State, e *metapb.Entry) (*State, error) {
	var cmd metapb.Command
	if err := proto.Unmarshal(e.Command, &cmd); err != nil {
		return nil, err
	}
	next, err := apply(s, &cmd)
	if err != nil {
		return nil, err
	}
	next.term, next.index = e.Term, e.Index
	return next, nil
}

// State returns the present state. It does not block.
func (s *Store) State() *State { return s.state.Load() }

// Watch registers f to be called after every change, in the order of the
// changes, from the goroutine that proposed it. f must not call Propose.
func (s *Store) Watch(f func(*State)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers = append(s.watchers, f)
}

// Propose applies cmd if the state machine accepts it. When it returns nil the
// command is durable, applied and told to the watchers. An *Error says that it
// was refused and changed nothing; any other error that the log has failed,
// and the outcome is open until the next start.
func (s *Store) Propose(cmd *metapb.Command) (*State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return nil, s.failed
	}
	now := s.State()
	if _, err := apply(now, cmd); err != nil {
		return nil, err
	}
	if err := s.compact(now); err != nil {
		return nil, err
	}
	body, err := proto.Marshal(cmd)
	if err != nil {
		return nil, err
	}
	entry := &metapb.Entry{Term: 1, Index: now.index + 1, Command: body}
	head, err := proto.Marshal(entry)
	if err != nil {
		return nil, err
	}
	if n := int64(len(head)); n > journal.MaxHead || journal.RecordBytes(len(head), 0) > s.log.MaxRecord() {
		return nil, fmt.Errorf("meta: a command of %d bytes does not fit the log", n)
	}
	if err := s.append(head); err != nil {
		s.failed = fmt.Errorf("meta: log: %w", err)
		return nil, s.failed
	}
	next, err := applyEntry(now, entry)
	if err != nil {
		panic("meta: a command was accepted and then refused: " + err.Error())
	}
	s.state.Store(next)
	for _, f := range s.watchers {
		f(next)
	}
	return next, nil
}

// append makes an entry durable.
func (s *Store) append(head []byte) error {
	done := make(chan error, 1)
	rec := &journal.Record{Head: head, Done: func(_ *journal.Record, err error) { done <- err }}
	s.log.Append(rec)
	err := <-done
	s.last = rec.LSN
	return err
}

// compact takes a snapshot and drops the log before it when the log is half
// full. A failure matters only once the log is nearly full: then the command
// at hand is refused.
func (s *Store) compact(state *State) error {
	used, capacity := s.log.Fill()
	if used < capacity/2 {
		return nil
	}
	err := writeSnapshotAs(s.fs, s.dir, state, 1)
	if err == nil {
		s.log.Trim(s.last + 1)
		return nil
	}
	if used > capacity*9/10 {
		return fmt.Errorf("meta: no room for another command: snapshot: %w", err)
	}
	return nil
}

// Close ends the use of the directory. Everything proposed is durable already.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = errors.New("meta: closed")
	}
	err := s.log.Close()
	if cerr := s.lock.Close(); err == nil {
		err = cerr
	}
	return err
}
