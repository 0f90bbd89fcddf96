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
	"slices"
	"strings"
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
	if err := a.wait(ctx); err != nil {
		return err
	}
	notify(daemon.SdNotifyStopping)
	a.log.Info("stopping", "sessions", len(a.server.Sessions()))
	return a.stop()
}

// wait returns nil when ctx ends, or why the node can't go on: what is wrong with
// a member of a cluster may be found only when it hears of the others.
func (a *appliance) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-a.node.Ready():
	}
	if err := a.node.Failed(); err != nil {
		return explainOpen(err)
	}
	a.log.Info("serving", "after", time.Since(a.started).Round(time.Millisecond).String())
	<-ctx.Done()
	return nil
}

// appliance is a running node. It implements api.Service.
type appliance struct {
	conf     *config.Config
	log      *slog.Logger
	started  time.Time
	recovery time.Duration // from start to serving

	portals listeners // bound at start, until they are served
	admin   net.Listener
	scrape  net.Listener // nil without admin.metrics
	peers   net.Listener // nil without cluster.listen
	node    *cluster.Node
	server  *target.Server
	exports *exports
	metrics *metrics
	cut     *cut // nil: the node has no connections that could be cut

	suspended bool          // look's: as the portals are
	noted     []byte        // look's: what disksFile says
	changes   chan struct{} // of the agreed state or the lease; holds one
	draining  chan struct{} // closed when stopping
	undo      []func()      // what release does, last first
}

// onRelease has f run when the node ends, after what was registered later.
func (a *appliance) onRelease(f func()) { a.undo = append(a.undo, f) }

func (a *appliance) release() {
	for i := len(a.undo) - 1; i >= 0; i-- {
		a.undo[i]()
	}
}

func (a *appliance) start() error {
	a.changes, a.draining, a.suspended = make(chan struct{}, 1), make(chan struct{}), true
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
	a.node.ServeSessions(a.sessionsOf)
	a.exports = newExports(a.node, a.server, a.conf.Portals, a.log)
	a.server.Suspend() // until there is a lease
	for i, l := range a.portals {
		p := a.conf.Portals[i]
		a.server.Serve(l, target.Portal{Advertise: p.Advertise, TPGT: portTag(p.Group, a.node.Self())})
	}
	a.node.Watch(func(*meta.State) { a.wake() })
	a.node.OnLease(func(bool) { a.wake() })
	a.node.OnReach(a.wake)
	a.look()
	go a.follow()
	a.recovery = time.Since(a.started)
	a.serveAdmin()
	return nil
}

// bind takes all addresses, before anything is written. Those of portals are
// given back until the node may serve.
func (a *appliance) bind() (err error) {
	if a.portals, err = bindPortals(a.conf.Portals); err != nil {
		return err
	}
	a.onRelease(a.portals.close)
	if address := a.conf.Cluster.Listen; address != "" {
		if a.peers, err = net.Listen("tcp", address); err != nil {
			return listenProblem("cluster.listen", address, err)
		}
		a.onRelease(func() { a.peers.Close() })
	}
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
	if err := CheckConfig(a.conf, "configuration"); err != nil {
		return err
	}
	opt := nodeOptions(a.conf, a.log)
	if note := PatienceNote(a.conf.Time); note != "" {
		a.log.Warn(note)
	}
	if a.conf.Cluster.Plain {
		a.log.Warn("cluster.plain: nodes talk without TLS; whoever reaches cluster.listen reads all data and may claim to be a node", "listen", a.conf.Cluster.Listen)
	}
	if k := a.conf.Cluster; k.Listen != "" && !k.Plain {
		a.cut = &cut{}
		opt.Dial = a.cut.dial
	}
	if a.peers != nil {
		opt.Listener = a.peers
		if a.cut != nil {
			opt.Listener = a.cut.listener(a.peers)
		}
	}
	a.node, err = cluster.Open(opt)
	return explainOpen(err)
}

// nodeOptions is a configuration in the cluster's terms.
func nodeOptions(conf *config.Config, log *slog.Logger) cluster.Options {
	k := conf.Cluster
	opt := cluster.Options{Dir: conf.Node.Dir, Name: conf.Node.Name, CacheBytes: conf.Cache, AcceptLoss: conf.AcceptLoss, Log: log, Times: Times(conf.Time),
		Site: k.Site, Peers: k.Peers, Listen: k.Listen, Advertise: k.Address(), Plain: k.Plain, Witness: k.Witness, Portals: announce(conf.Portals),
		CertificateLife: k.CertificateLife, ResyncRate: k.ResyncRate}
	for _, b := range conf.Bricks {
		opt.Bricks = append(opt.Bricks, cluster.BrickOptions{Path: b.Path, Journal: b.Journal, Capacity: b.Capacity})
		warnVolatile(b.Path, log)
	}
	return opt
}

// explainOpen says what to do about a directory that can't be opened, where the
// error itself doesn't.
func explainOpen(err error) error {
	switch {
	case errors.Is(err, cluster.ErrNoCluster):
		return problem{err, "`petal cluster init` makes it the first node of a cluster, `petal node join --token TOKEN` a further one"}
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

// follow applies changes of the state that nobody here asked for, and of the
// lease. Those that the admin socket asked for are applied before they are
// answered.
func (a *appliance) follow() {
	retry := time.NewTicker(retryPortals)
	defer retry.Stop()
	for {
		select {
		case <-a.changes:
		case <-retry.C:
			if !a.closed() {
				continue
			}
		case <-a.draining:
			return
		}
		a.look()
	}
}

// retryPortals is how often a portal is tried again that could not be opened.
const retryPortals = time.Second

// look brings what is served up to the state and the lease. It is called by one
// goroutine at a time.
//
//	no lease   drop sessions and close portals at once; then the rest
//	lease      first know the state that it counts from; then open the portals
func (a *appliance) look() {
	leased := a.serves()
	if !leased && !a.suspended {
		why := "no lease: the portals are closed until the cluster gives one"
		if lost := a.node.CutOff(); len(lost) > 0 {
			why = "another node reaches " + strings.Join(lost, " and ") + ", and this one does not: the portals are closed until it does"
		}
		a.log.Warn(why)
		a.server.Suspend()
	}
	a.exports.setLeased(leased)
	a.exports.apply(a.node.State())
	a.noteDisks(a.node.State())
	if leased && a.suspended {
		a.log.Info("the portals are open")
	}
	if a.suspended = !leased; leased {
		if err := a.server.Resume(); err != nil {
			a.log.Error("a portal cannot be opened; trying again", "err", err)
		}
	}
}

func (a *appliance) serves() bool { return serves(a.node) }

// serves reports whether a node may have sessions, and is no worse than others.
func serves(n interface {
	Leased() bool
	CutOff() []string
}) bool {
	return n.Leased() && len(n.CutOff()) == 0
}

// closed reports whether a portal should listen and does not.
func (a *appliance) closed() bool {
	return a.serves() && slices.ContainsFunc(a.server.Portals(), func(p target.PortalInfo) bool { return !p.Listening })
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
	// Whoever reaches it may ask, but not keep connections that nodes and initiators need.
	public := &http.Server{Handler: mux, ReadTimeout: scrapeLimit, WriteTimeout: 3 * scrapeLimit, IdleTimeout: scrapeLimit, ErrorLog: server.ErrorLog}
	go public.Serve(&fewConnections{Listener: a.scrape, free: make(chan struct{}, maxScrapes)})
	a.onRelease(func() { public.Close() })
}

// Bounds of the metrics over TCP: time that a request, or silence, may last, and
// connections at a time.
const (
	scrapeLimit = 10 * time.Second
	maxScrapes  = 32
)

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
