package appliance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"petal/appliance/api"
	"petal/appliance/config"
	"petal/cluster"
	"petal/cluster/meta"
	"petal/journal/vfs"
	"petal/target"
)

// Run runs a node until ctx ends, then drains it and returns nil. Everything
// that was acknowledged is durable whenever the process ends. Errors say why
// the node could not start, or could not stop cleanly.
func Run(ctx context.Context, conf *config.Config, logTo io.Writer) error {
	a := &appliance{conf: conf, log: newLog(conf.Log, logTo), started: time.Now()}
	defer a.release()
	if err := a.start(); err != nil {
		return err
	}
	a.log.Info("ready", "version", Version, "node", conf.Node.Name, "pid", os.Getpid(), "admin", conf.Admin.Socket,
		"after", a.recovery.Round(time.Millisecond).String())
	notify(daemon.SdNotifyReady)
	go feedWatchdog(ctx, func() { a.Status(ctx) })
	<-ctx.Done()
	notify(daemon.SdNotifyStopping)
	a.log.Info("stopping", "sessions", len(a.server.Sessions()))
	return a.stop()
}

// appliance is a running node. It implements api.Service.
type appliance struct {
	conf     *config.Config
	log      *slog.Logger
	started  time.Time
	recovery time.Duration // from start to serving

	portals listeners
	admin   net.Listener
	scrape  net.Listener // nil without admin.metrics
	node    *cluster.Node
	server  *target.Server
	exports *exports
	metrics *metrics

	changes  chan struct{} // of the agreed state; holds one
	draining chan struct{} // closed when stopping
	undo     []func()      // what release does, last first
}

// onRelease has f run when the node ends, after what was registered later.
func (a *appliance) onRelease(f func()) { a.undo = append(a.undo, f) }

func (a *appliance) release() {
	for i := len(a.undo) - 1; i >= 0; i-- {
		a.undo[i]()
	}
}

func (a *appliance) start() error {
	a.changes, a.draining = make(chan struct{}, 1), make(chan struct{})
	if err := a.bind(); err != nil {
		return err
	}
	if err := a.open(); err != nil {
		return err
	}
	remove, err := writePID(a.conf.Node.Dir)
	if err != nil {
		return err
	}
	a.onRelease(remove)
	a.metrics = newMetrics(a)
	a.server = target.New(target.Config{Log: a.log, NopInterval: a.conf.ISCSI.NopInterval, NopTimeout: a.conf.ISCSI.NopTimeout,
		LoginTimeout: a.conf.ISCSI.LoginTimeout, Observe: a.metrics.session})
	a.onRelease(func() { a.server.Close() })
	a.exports = newExports(a.node, a.server, a.conf.Portals[0].Group, a.log)
	a.node.Watch(func(*meta.State) { a.wake() })
	a.exports.apply(a.node.State())
	go a.follow()
	for i, l := range a.portals {
		p := a.conf.Portals[i]
		a.server.Serve(l, target.Portal{Advertise: p.Advertise, TPGT: p.Group})
	}
	a.recovery = time.Since(a.started)
	a.serveAdmin()
	return nil
}

// bind takes all addresses, before anything is written.
func (a *appliance) bind() (err error) {
	if a.portals, err = bindPortals(a.conf.Portals); err != nil {
		return err
	}
	a.onRelease(a.portals.close)
	if address := a.conf.Admin.Metrics; address != "" {
		if a.scrape, err = net.Listen("tcp", address); err != nil {
			return listenProblem("admin.metrics", address, err)
		}
		a.onRelease(func() { a.scrape.Close() })
	}
	for _, dir := range []string{a.conf.Node.Dir, filepath.Dir(a.conf.Admin.Socket)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return problem{fmt.Errorf("directory %s: %w", dir, err), "make it, owned by the user that runs petal, or change node.dir and admin.socket"}
		}
	}
	if a.admin, err = api.Listen(a.conf.Admin.Socket); err != nil {
		return err
	}
	a.onRelease(func() { a.admin.Close(); os.Remove(a.conf.Admin.Socket) })
	return nil
}

// open opens the bricks and the agreed state, which recovers them.
func (a *appliance) open() (err error) {
	opt := cluster.Options{Dir: a.conf.Node.Dir, Name: a.conf.Node.Name, CacheBytes: a.conf.Cache, AcceptLoss: a.conf.AcceptLoss, Log: a.log}
	for _, b := range a.conf.Bricks {
		opt.Bricks = append(opt.Bricks, cluster.BrickOptions{Path: b.Path, Journal: b.Journal, Capacity: b.Capacity})
	}
	a.node, err = cluster.Open(opt)
	return explainOpen(err)
}

// explainOpen says what to do about a directory that can't be opened, where the
// error itself doesn't.
func explainOpen(err error) error {
	switch {
	case errors.Is(err, vfs.ErrLocked):
		return problem{err, "a petal runs there: stop it first, or use directories that are free"}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return problem{err, "make room on that file system, or give the brick a smaller journal (brick.journal)"}
	case errors.Is(err, fs.ErrPermission):
		return problem{err, "the user that runs petal needs to own the directory (systemd: see ReadWritePaths= in the unit)"}
	}
	return err
}

// wake has follow look at the state. It never blocks.
func (a *appliance) wake() {
	select {
	case a.changes <- struct{}{}:
	default:
	}
}

// follow applies changes of the state that nobody here asked for. Those that
// the admin socket asked for are applied before they are answered.
func (a *appliance) follow() {
	for {
		select {
		case <-a.changes:
			a.exports.apply(a.node.State())
		case <-a.draining:
			return
		}
	}
}

func (a *appliance) serveAdmin() {
	scrape := a.metrics.handler()
	server := &http.Server{Handler: api.Handler(a, Version, scrape), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelWarn)}
	go server.Serve(a.admin)
	a.onRelease(func() { server.Close() })
	if a.scrape == nil {
		return
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", scrape)
	public := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: server.ErrorLog}
	go public.Serve(a.scrape)
	a.onRelease(func() { public.Close() })
}

// stop ends what is in flight and closes the node. Sessions first: commands
// that are running get their answers from a node that works.
func (a *appliance) stop() error {
	close(a.draining)
	ctx, cancel := context.WithTimeout(context.Background(), a.conf.Node.Drain)
	defer cancel()
	err := a.server.Drain(ctx)
	if err != nil {
		a.log.Warn("not all commands ended in time; their initiators will send them again", "err", err)
	}
	a.server.Close()
	// A fresh limit: the last flush is worth waiting for even after a slow drain.
	ctx, cancel = context.WithTimeout(context.Background(), CloseLimit)
	defer cancel()
	err = a.node.Close(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = problem{fmt.Errorf("the bricks did not close within %v: %w", CloseLimit, err), "nothing acknowledged is lost; the next start recovers from the journal"}
	}
	a.log.Info("stopped")
	return err
}

// CloseLimit is how long the bricks may take to close, after node.drain_timeout.
const CloseLimit = 60 * time.Second
