package cli

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"petal/appliance/api"
	"petal/target/initiator"
)

// TestScripts runs testdata/*.txtar: what command lines mean. Besides the
// commands of package testscript there are:
//
//	start DIR      a node below DIR, at $PORT; PETAL_ADMIN then names it. It writes DIR.log
//	halt DIR       SIGTERM, and wait
//	crash DIR      SIGKILL, and wait
//	login IQN      an initiator logs in and stays, and comes back when it has lost its connection
//	logout
//	rot FILE       overwrite all of FILE with garbage
//	newer FILE     make the superblock FILE one of format 99, with checksums that are right
//	occupy PORT    listen there
//	status ARGS    what petal ARGS exits with, on standard output
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", UpdateScripts: *rewrite, RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("PETAL_ADMIN", env.WorkDir+"/none.sock")
			env.Setenv("PORT", freePort(t))
			env.Setenv("PORT2", freePort(t))
			env.Setenv("PORT3", freePort(t))
			env.Values[scriptKey{}] = &script{nodes: map[string]*scriptNode{}}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"start": cmdStart, "halt": cmdStop(syscall.SIGTERM), "crash": cmdStop(syscall.SIGKILL),
			"login": cmdLogin, "logout": cmdLogout, "rot": cmdRot, "newer": cmdNewer, "occupy": cmdOccupy, "status": cmdStatus,
		}})
}

// freePort returns a port that nobody listens on, another one each time. It lies
// below those that the kernel gives to outgoing connections: such a one could hold it
// when a node wants it.
func freePort(t *testing.T) string {
	for range 1000 {
		port := strconv.Itoa(10000 + rand.IntN(20000))
		if _, given := portsGiven.LoadOrStore(port, true); given {
			continue // to another script, which runs at the same time
		}
		if l, err := net.Listen("tcp", "127.0.0.1:"+port); err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return ""
}

var portsGiven sync.Map

type scriptKey struct{}

// script is what one script has running.
type script struct {
	nodes   map[string]*scriptNode
	session *initiator.Session
}

type scriptNode struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

func of(ts *testscript.TestScript) *script { return ts.Value(scriptKey{}).(*script) }

// cmdStart runs this test binary as petal, which is what $PATH has.
func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: start DIR")
	}
	program := ""
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if _, err := os.Stat(filepath.Join(dir, "petal")); err == nil {
			program = filepath.Join(dir, "petal")
			break
		}
	}
	dir := ts.MkAbs(args[0])
	log, err := os.Create(dir + ".log")
	ts.Check(err)
	defer log.Close()
	n := &scriptNode{cmd: exec.Command(program, "serve", "--dir", dir, "--portal", "127.0.0.1:"+ts.Getenv("PORT")), ended: make(chan struct{})}
	n.cmd.Stderr = log
	ts.Check(n.cmd.Start())
	go func() { n.cmd.Wait(); close(n.ended) }()
	of(ts).nodes[args[0]] = n
	ts.Defer(func() { n.cmd.Process.Kill(); <-n.ended })
	ts.Setenv("PETAL_ADMIN", filepath.Join(dir, "admin.sock"))
	client := api.NewClient(filepath.Join(dir, "admin.sock"))
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err = client.Status(context.Background()); err == nil {
			return
		}
		select {
		case <-n.ended:
			text, _ := os.ReadFile(dir + ".log")
			ts.Fatalf("petal serve --dir %s: %s\n%s", args[0], n.cmd.ProcessState, text)
		default:
		}
		if time.Now().After(deadline) {
			ts.Fatalf("petal serve --dir %s is not ready: %v", args[0], err)
		}
	}
}

func cmdStop(sig syscall.Signal) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		n := of(ts).nodes[args[0]]
		ts.Check(n.cmd.Process.Signal(sig))
		<-n.ended
		if sig == syscall.SIGTERM && n.cmd.ProcessState.ExitCode() != 0 {
			ts.Fatalf("petal serve ended with %s", n.cmd.ProcessState)
		}
	}
}

func cmdLogin(ts *testscript.TestScript, neg bool, args []string) {
	s, err := initiator.Dial(context.Background(), initiator.URL{Host: "127.0.0.1:" + ts.Getenv("PORT"), Target: args[0]}, initiator.Options{Name: "iqn.2026-11.petal:script", Reconnect: time.Minute})
	ts.Check(err)
	of(ts).session = s
	ts.Defer(s.Close)
}

func cmdLogout(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(of(ts).session.Logout(context.Background()))
}

func cmdRot(ts *testscript.TestScript, neg bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), bytes.Repeat([]byte("rot!"), int(info.Size()/4)), 0o600))
}

// cmdNewer knows the superblock's head: format at byte 8, length at 12, CRC32C at
// the end of each copy, copies 64 KiB apart.
func cmdNewer(ts *testscript.TestScript, neg bool, args []string) {
	path := ts.MkAbs(args[0])
	text, err := os.ReadFile(path)
	ts.Check(err)
	changed := 0
	for at := 0; at+16 <= len(text); at += 64 << 10 {
		super := text[at:]
		n := int(binary.LittleEndian.Uint32(super[12:]))
		if !bytes.HasPrefix(super, []byte("petalbrk")) || n < 20 || n > len(super) {
			continue
		}
		binary.LittleEndian.PutUint32(super[8:], 99)
		binary.LittleEndian.PutUint32(super[n-4:], crc32.Checksum(super[:n-4], crc32.MakeTable(crc32.Castagnoli)))
		changed++
	}
	if changed == 0 {
		ts.Fatalf("%s holds no superblock", args[0])
	}
	ts.Check(os.WriteFile(path, text, 0o600))
}

func cmdOccupy(ts *testscript.TestScript, neg bool, args []string) {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%s", strings.TrimSpace(args[0])))
	ts.Check(err)
	ts.Defer(func() { l.Close() })
}

func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("petal", args...)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("petal %v: %v", args, err)
	}
	status := 0
	if exit != nil {
		status = exit.ExitCode()
	}
	fmt.Fprintln(ts.Stdout(), status)
}
