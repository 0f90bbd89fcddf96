package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"petal/appliance/api"
	"petal/target/initiator/load"
)

// TestWitness makes a cluster of two by hand, as an operator does. Without a
// third vote status says what that means; with a witness one of the two dies and
// the other goes on.
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

	must(t, time.Minute, binary, slices.Concat([]string{"cluster", "init", "pair"}, flags(1, "a"))...)
	kill := serve(slices.Concat([]string{"serve"}, flags(1, "a"), portal(1))...)
	eventually(t, time.Minute, "the first node serves", func() bool { return status("a").Cluster.Lease })
	token := strings.TrimSpace(must(t, time.Minute, binary, "cluster", "token", "--uses", "2", "--admin", filepath.Join(dir, "a", "admin.sock")))
	must(t, time.Minute, binary, slices.Concat([]string{"node", "join", "--token", token}, flags(2, "b"))...)
	serve(slices.Concat([]string{"serve"}, flags(2, "b"), portal(2))...)
	eventually(t, time.Minute, "the second node serves", func() bool { return status("b").Cluster.Lease })
	disk, err := client("b").CreateDisk(context.Background(), api.NewDisk{Name: "data", Size: 64 << 20})
	if err != nil || disk.Scheme != "mirror" {
		t.Fatalf("%v, %+v", err, disk)
	}
	if st := status("a"); !strings.Contains(strings.Join(st.Problems, " "), "add a witness") {
		t.Errorf("two nodes without a third vote: %q", st.Problems)
	}
	serve(slices.Concat([]string{"witness", "--token", token}, flags(3, "c"))...)
	eventually(t, time.Minute, "three vote", func() bool { return len(status("a").Cluster.Voters) == 3 && len(status("a").Problems) == 0 })
	kill()
	o := run(t, 2*time.Minute, binary, "bench", "--verify", "--time", "2s", "--size", "8MiB", "--quiet", "--json", fmt.Sprintf("iscsi://127.0.0.2:%d/iqn.2026-11.petal:data/0", port))
	var r load.Result
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil || o.status != 0 || r.Disks[0].Reconnects > 1 {
		t.Errorf("after the death of one: status %d, %v\n%s%s", o.status, err, o.stdout, o.stderr)
	}
	if st := status("b"); len(st.Unhealthy) != 1 || st.Unhealthy[0].Health.Served != 100 {
		t.Errorf("%+v", st.Unhealthy)
	}
}
