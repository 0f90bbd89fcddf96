package integration

import (
	"context"
	"testing"
	"time"
)

// TestInUseElsewhere: whichever node is asked, nothing is taken away from an
// initiator that is logged in at another one; nor while a node that may have
// sessions can't say so. One that is dead has none.
func TestInUseElsewhere(t *testing.T) {
	const target = "iqn.2026-11.petal:demo"
	d := startCluster(t, t.TempDir(), "--size", "64MiB", "--scale", "2") // the session must not end by a lapse
	eventually(t, healLimit, "n2 serves the target", func() bool { return d.at(2, "target", "show", target).status == 0 })
	disk := d.disk(2)
	for _, node := range []int{1, 2, 3} {
		for _, args := range [][]string{{"disk", "delete", "demo"}, {"target", "delete", target}, {"target", "unmap", target, "0"}} {
			d.refuses(node, 5, []string{"in use by 1 session, 1 at n2", "`petal session list` on n2", "--force"}, args...)
		}
	}
	if err := disk.Write(context.Background(), 0, blockOf("still there")); err != nil {
		t.Fatal(err)
	}
	paused := others(1, d.leader(), 1, 2)[0]
	began := time.Now()
	d.play("pause", paused) // alive for the others until its lease ends, and says nothing
	o := d.at(1, "target", "create", "iqn.2026-11.petal:other")
	if o.status != 0 {
		t.Fatalf("status %d\n%s", o.status, o.stderr)
	}
	if o := d.at(1, "target", "delete", "iqn.2026-11.petal:other"); o.status != 0 || time.Since(began) < 2*time.Second {
		t.Errorf("%v after n%d has stopped, which is not taken for dead before its lease of 4 s ends: status %d\n%s", time.Since(began), paused, o.status, o.stderr)
	}
	d.play("resume", paused)
	if err := disk.Session.Logout(context.Background()); err != nil {
		t.Fatal(err)
	}
	eventually(t, healLimit, "nobody is logged in", func() bool { return d.at(1, "disk", "delete", "demo").status == 0 })
}
