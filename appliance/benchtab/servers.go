package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"petal/target/initiator"
)

// setting is what a server is to be started with.
type setting struct {
	options   *options
	dir       string // made by start
	port      int    // on 127.0.0.1
	writeBack bool
	held      bool // each node has a CPU budget of its own
}

// server is one that runs.
type server struct {
	url     string
	portals []string // further ones, of a cluster
	pid     int      // whose CPU time counts, with its descendants
	notes   []string
	end     syscall.Signal // that ends it
	cmd     *exec.Cmd
	done    chan struct{} // closed when it has ended
	after   []func()      // to be called then
}

// startLimit bounds how long a server may take to serve.
const startLimit = 60 * time.Second

func start(ctx context.Context, name string, s *setting) (*server, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	switch name {
	case "petal":
		return startPetal(ctx, s, 1)
	case "cluster":
		return startCluster(ctx, s, false)
	case "cluster-plain":
		return startCluster(ctx, s, false, "--plain")
	case "cluster-dead":
		return startCluster(ctx, s, true)
	case "tgtd":
		return startTGTD(ctx, s)
	case "gotgt":
		return startGotgt(ctx, s)
	}
	return nil, fmt.Errorf("there is no server %q", name)
}

// launch starts a process whose output goes to the log in dir.
func (s *setting) launch(program string, args ...string) (*server, error) {
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	v := &server{end: syscall.SIGTERM, cmd: exec.Command(program, args...), done: make(chan struct{})}
	v.cmd.Stdout, v.cmd.Stderr, v.cmd.Dir = log, log, s.dir
	v.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to handle
	if err := v.cmd.Start(); err != nil {
		return nil, err
	}
	v.pid = v.cmd.Process.Pid
	go func() {
		v.cmd.Wait()
		close(v.done)
	}()
	return v, nil
}

// stop ends the server and waits for that.
func (v *server) stop() {
	v.cmd.Process.Signal(v.end)
	select {
	case <-v.done:
	case <-time.After(20 * time.Second):
		v.cmd.Process.Kill()
		<-v.done
	}
	for _, f := range v.after {
		f()
	}
}

// await calls try until it succeeds, the server ends or ctx does.
func (v *server) await(ctx context.Context, s *setting, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-v.done:
			return fmt.Errorf("it ended at its start:\n%s", s.logTail())
		case <-ctx.Done():
			v.stop()
			return fmt.Errorf("it does not serve: %w\n%s", err, s.logTail())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// logTail is the end of the server's log.
func (s *setting) logTail() string {
	data, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return string(bytes.TrimSpace(data[max(0, len(data)-2000):]))
}

// login tries a login.
func login(ctx context.Context, url string) error {
	u, err := initiator.ParseURL(url)
	if err != nil {
		return err
	}
	session, err := initiator.Dial(ctx, u, initiator.Options{})
	if err != nil {
		return err
	}
	defer session.Close()
	_, err = initiator.OpenDisk(ctx, session)
	return err
}

// startPetal starts `petal demo` with a disk of its own.
func startPetal(ctx context.Context, s *setting, nodes int, flags ...string) (*server, error) {
	binary, err := filepath.Abs(s.options.petal)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, "data")
	// Room for the region and nothing else that matters.
	args := append([]string{"demo", "--nodes", strconv.Itoa(nodes), "--dir", dir, "--port", strconv.Itoa(s.port),
		"--size", strconv.FormatInt(s.options.size, 10) + "B"}, flags...)
	v, err := s.launch(binary, args...)
	if err != nil {
		return nil, err
	}
	ready := regexp.MustCompile(`(?m)^ready (iscsi://\S+)`)
	err = v.await(ctx, s, func() error {
		m := ready.FindStringSubmatch(s.logTail())
		if m == nil {
			return errors.New("no ready line yet")
		}
		v.url = m[1]
		return nil
	})
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*server, error) {
		v.stop()
		return nil, err
	}
	mode := map[bool]string{false: "through", true: "back"}[s.writeBack]
	set := exec.CommandContext(ctx, binary, "disk", "set", "--write", mode, "demo")
	set.Env = append(os.Environ(), "PETAL_ADMIN="+filepath.Join(dir, "n1", "admin.sock"))
	if out, err := set.CombinedOutput(); err != nil {
		return fail(fmt.Errorf("disk set: %w: %s", err, out))
	}
	return v, nil
}

// startGotgt starts gotgt, built first if need be.
func startGotgt(ctx context.Context, s *setting) (*server, error) {
	binary, err := filepath.Abs(s.options.gotgt)
	if s.options.gotgt == "" {
		binary = filepath.Join(s.options.dir, "gotgt.bin")
		build := exec.CommandContext(ctx, "go", "build", "-o", binary, ".")
		build.Dir = filepath.Join("target", "peers", "gotgt")
		build.Env = append(os.Environ(), "GOFLAGS=-mod=mod")
		if out, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building it: %w: %s", err, out)
		}
	}
	if err != nil {
		return nil, err
	}
	if !s.writeBack {
		return nil, errors.New("it has a volatile write cache that can't be switched off")
	}
	file, err := s.file()
	if err != nil {
		return nil, err
	}
	const target = "iqn.2016-09.com.gotgt:bench"
	v, err := s.launch(binary, "-file", file, "-port", strconv.Itoa(s.port), "-target", target)
	if err != nil {
		return nil, err
	}
	v.url = fmt.Sprintf("iscsi://127.0.0.1:%d/%s/0", s.port, target)
	return v, v.await(ctx, s, func() error { return login(ctx, v.url) })
}

// file makes the sparse file that a file-backed target serves.
func (s *setting) file() (string, error) {
	path := filepath.Join(s.dir, "disk.img")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	return path, errors.Join(f.Truncate(s.options.size), f.Close())
}

// portOpen reports whether something listens on the setting's port.
func (s *setting) portOpen() error {
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)))
	if err == nil {
		err = c.Close()
	}
	return err
}
