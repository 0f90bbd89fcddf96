package brick

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// trouble is what becomes of errors in Pebble's own goroutines. Pebble reports
// them and tries the same again at once, for ever, while whoever waits for a
// flush goes on waiting. What it should come to depends on the error:
//
//	no space       wait for it, with a pause between tries: everything is in the
//	               journal, and somebody may make room
//	rotten table   the same: what can be read goes on
//	anything else  the brick has failed
//	Fatalf         the brick has failed, and Pebble with it
//
// It is Pebble's Logger and listens to its events.
type trouble struct {
	log  *slog.Logger
	open atomic.Bool   // Open is over: there is a brick to fail
	full chan struct{} // capacity 1: a try has met a full file system

	mu     sync.Mutex
	said   time.Time     // when a repeated error was last logged
	onFail func(error)   // tells the brick
	cause  error         // why the map has failed
	failed chan struct{} // closed with cause set
	dead   bool          // by Fatalf
}

const (
	troublePause = 100 * time.Millisecond // between two tries
	troubleLog   = time.Minute            // between two log entries about it
)

func (t *trouble) init(log *slog.Logger) {
	t.log, t.full, t.failed = log, make(chan struct{}, 1), make(chan struct{})
}

// notify sets what is to be called, on a goroutine of its own, when the map has
// failed.
func (t *trouble) notify(f func(error)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.onFail = f
	if t.cause != nil {
		go f(t.cause)
	}
}

// background is told of an error in one of Pebble's goroutines, which holds
// Pebble's lock; reads do not need that.
func (t *trouble) background(err error) {
	space := errors.Is(err, syscall.ENOSPC)
	if !space && !pebble.IsCorruptionError(err) {
		t.fail(fmt.Errorf("brick: map: %w", err), false)
		time.Sleep(troublePause) // it tries again all the same
		return
	}
	t.mu.Lock()
	say := time.Since(t.said) >= troubleLog
	if say {
		t.said = time.Now()
	}
	t.mu.Unlock()
	if say {
		t.log.Error("the map cannot be written, and is tried again", "cause", err)
	}
	if space {
		select {
		case t.full <- struct{}{}:
		default:
		}
	}
	time.Sleep(troublePause)
}

// fail notes why the map has failed, the first time.
func (t *trouble) fail(err error, dead bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dead = t.dead || dead
	if t.cause != nil {
		return
	}
	t.cause = err
	close(t.failed)
	if t.onFail != nil {
		go t.onFail(err)
	}
}

func (t *trouble) gaveUp() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.dead
}

// Infof is part of Pebble's Logger.
func (t *trouble) Infof(string, ...any) {}

// Errorf is part of Pebble's Logger.
func (t *trouble) Errorf(format string, a ...any) { t.log.Error("map: " + fmt.Sprintf(format, a...)) }

// Fatalf is part of Pebble's Logger. It is called when Pebble cannot go on, for
// instance after it could not sync its manifest, and must not return. The
// goroutine ends; the brick has failed, and the process serves what else it has.
func (t *trouble) Fatalf(format string, a ...any) {
	err := fmt.Errorf("brick: map: "+format, a...)
	if !t.open.Load() {
		panic(err) // openMap's own goroutine, which has nothing to go on with
	}
	t.fail(err, true)
	runtime.Goexit()
}

// errMapFull: the file system had no room for the map when the brick was closed.
var errMapFull = fmt.Errorf("brick: map: %w; the journal has what it lacks", syscall.ENOSPC)

// flush makes everything in the map durable. While the file system is full it
// waits for room, until stop is closed.
func (m *pmap) flush(stop <-chan struct{}) error {
	t := &m.trouble
	select {
	case <-t.full: // an old one
	default:
	}
	done, err := m.db.AsyncFlush()
	if err != nil {
		return fmt.Errorf("brick: map: %w", err)
	}
	for {
		select {
		case <-done:
			return nil
		case <-t.failed:
			return t.cause
		case <-t.full:
			select {
			case <-stop:
				return errMapFull
			default:
			}
		}
	}
}
