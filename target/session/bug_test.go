package session

import (
	"testing"
	"testing/synctest"
)

// TestBug: a panic of either goroutine costs the session and nothing else: it
// ends, and who waits for its tasks is told.
func TestBug(t *testing.T) {
	for name, act := range map[string]func(*rig){
		"reader": func(r *rig) { r.nexus.panics = true; r.send(r.command(0x28, 10, 10), nil) },
		"pump":   func(r *rig) { r.s.post(func() { panic("a bug in a call") }) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, nil)
				synctest.Wait()
				act(r)
				if err := <-r.result; err != errBug {
					t.Errorf("ended with %v", err)
				}
				told := false
				r.s.AbortAll(0, false, func() { told = true })
				if !told {
					t.Error("AbortAll is not answered")
				}
				r.conn.Close()
			})
		})
	}
}
