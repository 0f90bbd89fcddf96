package cluster

import (
	"path/filepath"
	"testing"
	"time"

	"petal/cluster/brick"
	"petal/cluster/peer/pki"
)

// TestRenewAfterWrongClock: a machine boots with a calendar that is years ahead,
// and renews its certificate. When it starts with the right one the certificate
// has not begun; it gets another one, and is not cut off for years.
func TestRenewAfterWrongClock(t *testing.T) {
	dir := t.TempDir()
	opt := Options{Dir: filepath.Join(dir, "n1"), Name: "n1", CacheBytes: 1 << 20, Times: patient(),
		Bricks: []BrickOptions{{Path: filepath.Join(dir, "brick"), Journal: 16 << 20, Capacity: 64 << 20}},
		brick:  func(o *brick.Options) { o.SegmentBytes = 1 << 20 }}
	opt.Listener = listen(t, 0)
	if err := Init(t.Context(), opt, "test"); err != nil {
		t.Fatal(err)
	}
	run := func(ahead int) *pki.Identity {
		t.Helper()
		opt := opt
		opt.Listener = listen(t, 0)
		if err := opt.check(); err != nil {
			t.Fatal(err)
		}
		env, id, err := realEnv(&opt)
		if err != nil {
			t.Fatal(err)
		}
		env.Wall = func() time.Time { return time.Now().AddDate(ahead, 0, 0) }
		env.Transport = transportOf(&opt, id)
		n, err := OpenWith(opt, env)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		own, err := pki.Load(filepath.Join(opt.Dir, "tls"))
		if err != nil {
			t.Fatal(err)
		}
		return own
	}
	run(0) // what Init was the last to agree on is not known to be agreed on before that
	if own := run(3); own.NotAfter().Before(time.Now().AddDate(3, 0, 0)) {
		t.Fatalf("years ahead it was not renewed: it ends %v", own.NotAfter())
	}
	if own := run(0); own.Due(time.Now()) <= 0 || own.NotAfter().After(time.Now().AddDate(2, 0, 0)) {
		t.Errorf("it ends %v, and is due in %v", own.NotAfter(), own.Due(time.Now()))
	}
}
