package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"petal/appliance/api"
)

// node is a `petal serve` with two portals.
type node struct {
	dir     string
	portals [2]string
	log     *bytes.Buffer // to be read after stop
	stop    func()        // SIGTERM, and wait; more calls do nothing
}

func (n *node) client() *api.Client { return api.NewClient(filepath.Join(n.dir, "admin.sock")) }

func (n *node) url(disk string) string {
	return "iscsi://" + n.portals[0] + "/iqn.2026-11.petal:" + disk + "/0"
}

// stopLimit is beyond all limits that a node gives itself.
const stopLimit = 90 * time.Second

// startNode starts a node and waits until it serves. brick is the text of its
// [[brick]] table; if empty it has the default one.
func startNode(t *testing.T, brick string) *node {
	t.Helper()
	n := &node{dir: t.TempDir(), log: &bytes.Buffer{}}
	file := n.writeConfig(t, brick)
	cmd := command(t, binary, "serve", "--config", file)
	cmd.Stderr = n.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	n.stop = func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(stopLimit):
			cmd.Process.Signal(syscall.SIGQUIT) // every goroutine says where it is
			<-ended
			t.Errorf("the node did not stop within %v", stopLimit)
		}
	}
	t.Cleanup(func() {
		n.stop()
		if t.Failed() {
			t.Logf("the node's log:\n%s", ends(n.log.String()))
		}
	})
	eventually(t, healLimit, "the node serves", func() bool {
		_, err := n.client().Status(context.Background())
		return err == nil
	})
	return n
}

// writeConfig writes the node's petal.toml. Like a demo of one node it is patient.
func (n *node) writeConfig(t *testing.T, brick string) (file string) {
	t.Helper()
	for i := range n.portals {
		n.portals[i] = fmt.Sprintf("127.0.0.%d:%d", i+1, freePort(t))
	}
	file = filepath.Join(n.dir, "petal.toml")
	text := fmt.Sprintf("[node]\ndir = %q\n[time]\nscale = 5\n[[portal]]\nlisten = %q\n[[portal]]\nlisten = %q\ngroup = 2\n[admin]\nsocket = %q\n%s\n",
		n.dir, n.portals[0], n.portals[1], filepath.Join(n.dir, "admin.sock"), brick)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func (n *node) status(t *testing.T) api.Status {
	t.Helper()
	st, err := n.client().Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// createDisk makes a disk and waits until both portals, which may be two nodes', have it.
func (n *node) createDisk(t *testing.T, name string, size uint64) {
	t.Helper()
	if _, err := n.client().CreateDisk(context.Background(), api.NewDisk{Name: name, Size: size}); err != nil {
		t.Fatal(err)
	}
	for _, portal := range n.portals {
		awaitLogin(t, "iscsi://"+portal+"/iqn.2026-11.petal:"+name+"/0")
	}
}
