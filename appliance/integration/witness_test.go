package integration

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"petal/appliance/api"
)

// TestWitness makes a cluster of two by hand, as an operator does. Without a
// third vote status says what that means; with a witness one of the two dies under
// load and the other goes on.
func TestWitness(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	flags := func(i int, name string) []string {
		return []string{"--dir", filepath.Join(dir, name), "--name", name, "--listen", fmt.Sprintf("127.0.1.%d:%d", i, port)}
	}
	client := func(name string) *api.Client { return api.NewClient(filepath.Join(dir, name, "admin.sock")) }
	status := func(name string) api.Status {
		st, _ := client(name).Status(context.Background())
		return st
	}
	serve := func(args ...string) (kill func()) {
		cmd := command(t, binary, args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill = func() { cmd.Process.Kill(); cmd.Wait() }
		t.Cleanup(kill)
		return kill
	}
	portal := func(i int) []string { return []string{"--portal", fmt.Sprintf("127.0.0.%d:%d", i, port)} }

	must(t, runLimit, binary, slices.Concat([]string{"cluster", "init", "pair"}, flags(1, "a"))...)
	kill := serve(slices.Concat([]string{"serve"}, flags(1, "a"), portal(1))...)
	eventually(t, healLimit, "the first node serves", func() bool { return status("a").Cluster.Lease })
	token := strings.TrimSpace(must(t, runLimit, binary, "cluster", "token", "--uses", "2", "--admin", filepath.Join(dir, "a", "admin.sock")))
	must(t, runLimit, binary, slices.Concat([]string{"node", "join", "--token", token}, flags(2, "b"))...)
	serve(slices.Concat([]string{"serve"}, flags(2, "b"), portal(2))...)
	eventually(t, healLimit, "the second node serves", func() bool { return status("b").Cluster.Lease })
	disk, err := client("b").CreateDisk(context.Background(), api.NewDisk{Name: "data", Size: 64 << 20})
	if err != nil || disk.Scheme != "mirror" {
		t.Fatalf("%v, %+v", err, disk)
	}
	if st := status("a"); !strings.Contains(strings.Join(st.Problems, " "), "add a witness") {
		t.Errorf("two nodes without a third vote: %q", st.Problems)
	}
	serve(slices.Concat([]string{"witness", "--token", token}, flags(3, "c"))...)
	eventually(t, healLimit, "three vote", func() bool { return len(status("a").Cluster.Voters) == 3 && len(status("a").Problems) == 0 })
	l := startLoad(t, fmt.Sprintf("iscsi://127.0.0.2:%d/iqn.2026-11.petal:data/0", port), "--size", "8MiB")
	kill()
	eventually(t, healLimit, "the other goes on alone", func() bool {
		st := status("b")
		return st.Cluster.Lease && len(st.Unhealthy) == 1 && st.Unhealthy[0].Health.Served == 100
	})
	l.flows()
	l.await(4)
	l.finish()
}
